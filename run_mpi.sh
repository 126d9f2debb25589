#!/bin/sh
# Runs a Python script on NPROC ranks: sh run_mpi.sh NPROC SCRIPT [ARGUMENT ...]
# with the first that has MPI of $PYTHON, ./.venv and python3; without one it sets up ./.venv.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
. "$here/venv.sh"

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

# An mpiexec that lies beside the Python is the one that fits its mpi4py.
has_mpi() {
    python=$1
    mpiexec=$(dirname -- "$(command -v "$python" || echo .)")/mpiexec
    [ -x "$mpiexec" ] || mpiexec=mpiexec
    command -v "$mpiexec" >/dev/null && "$python" -c 'import numpy, mpi4py.MPI' 2>/dev/null
}

if [ -n "${PYTHON:-}" ] && has_mpi "$PYTHON"; then
    :
elif venv_is_complete && has_mpi "$venv/bin/python"; then
    :
elif [ -z "${PYTHON:-}" ] && has_mpi python3; then
    :
else
    make_venv >&2
    has_mpi "$venv/bin/python" || {
        say "neither $venv nor ${PYTHON:-python3} has a working MPI" >&2
        exit 1
    }
fi

# `-m mpi4py` ends every rank when one fails; the others would wait for it forever.
export PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}"
exec "$mpiexec" -n "$nproc" "$python" -m mpi4py "$@"
