#!/bin/sh
# Runs a Python script on NPROC ranks: sh run_mpi.sh NPROC SCRIPT [ARGUMENT ...]
# Where there is no MPI for $PYTHON or python3, ./.venv is given MPICH and mpi4py from PyPI.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
venv=$here/.venv

case ${1:-}:$# in
--help:* | -h:*)
    sed -n '2,3s/^# //p' "$0"
    exit 0
    ;;
*:0 | *:1 | *[!0-9]*:*)
    echo 'usage: sh run_mpi.sh NPROC SCRIPT [ARGUMENT ...]' >&2
    exit 2
    ;;
esac
nproc=$1
shift

has_mpi() {
    command -v "$mpiexec" >/dev/null && "$python" -c 'import numpy, mpi4py.MPI' 2>/dev/null
}

python=$venv/bin/python
mpiexec=$venv/bin/mpiexec
if ! has_mpi; then
    python=${PYTHON:-python3}
    mpiexec=mpiexec
fi
if ! has_mpi; then
    base=$python
    python=$venv/bin/python
    mpiexec=$venv/bin/mpiexec
    if ! "$python" -m pip --version >/dev/null 2>&1; then
        "$base" -m venv --clear "$venv"
    fi
    echo "installing MPICH and dosna[mpi] into $venv" >&2
    "$python" -m pip install --quiet --disable-pip-version-check mpich --editable "$here[mpi]"
fi

# `-m mpi4py` ends every rank when one fails; the others would wait for it forever.
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"
exec "$mpiexec" -n "$nproc" "$python" -m mpi4py "$@"
