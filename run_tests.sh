#!/bin/sh
# Runs the tests of dosna; `sh run_tests.sh --help` says how.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
. "$here/venv.sh"

usage() {
    cat <<'END'
usage: sh run_tests.sh [--install]
       sh run_tests.sh --fast | --faults | --newest | --oldest
       sh run_tests.sh [--install] --backend NAME [--engine NAME] [--connection NAME]
                       [--connection-options KEY=VALUE ...] [--engine-options KEY=VALUE ...]
       mpiexec -n NPROC sh run_tests.sh [--backend NAME ...]

Without arguments: runs the tests with what is there, which is $PYTHON, or ./.venv, or
python3. A test that needs a missing component is skipped, and says which.

--install   sets up ./.venv with everything that PyPI has (and, as root on Debian, the
            system packages that are missing), then runs everything: ruff, mypy, codespell,
            the build of the documentation and the tests, where a missing component is now
            a failure, and the coverage of the tests of --fast is measured
--fast      runs the tests that need no service, no other process and no more than a moment
            each: about a minute on two quiet cores
--faults    runs the slow tests of faults, which nothing else here runs: servers that die or
            pause, writers that are killed, answers that are lost
--newest    runs a part of the tests, a few minutes long, with the newest releases of all
            packages and a newer Python: one of PATH or of pyenv, or (as root on Debian)
            that of a Debian 13 in a folder of its own
--oldest    runs the same with the oldest releases that setup.cfg allows
--backend   runs the backend tests on a store of your own instead: the conformance kit on
            the connection NAME, for instance

              sh run_tests.sh --backend hdf5 --engine joblib --connection trial \
                  --connection-options directory=/data timeout=5 --engine-options njobs=2

            Options are parameters of the backend's connection and of the engine; each
            value takes the type that its parameter declares.
--help      prints this

Under mpiexec all ranks run the tests of the mpi engine and the conformance kit together: on
hdf5 in a scratch folder below $TMPDIR, which all must see, or on the backend and connection
that are named.

The exit status is 0 if all passed, 2 for a wrong argument.
END
}

wrong() {
    printf 'run_tests.sh: %s (see --help)\n' "$1" >&2
    exit 2
}

has_ceph() {
    for program in ceph-mon ceph-osd radosgw radosgw-admin; do
        command -v "$program" >/dev/null || return 1
    done
    /usr/bin/python3 -c 'import rados' 2>/dev/null
}

has_class_tools() {
    command -v g++ >/dev/null || return 1
    for header in objclass.h buffer.h; do
        [ -e "/usr/include/rados/$header" ] || return 1
    done
}

has_postgres() {
    for program in /usr/lib/postgresql/*/bin/postgres "$(command -v postgres)"; do
        [ ! -x "$program" ] || return 0
    done
    return 1
}

has_sshd() (
    PATH=$PATH:/usr/sbin # as below
    command -v sshd >/dev/null && command -v ssh >/dev/null && command -v sftp >/dev/null
)

has_slurm() (
    PATH=$PATH:/usr/sbin # where Debian has the daemons, not in everybody's PATH
    for program in munged slurmctld slurmd sbatch; do
        command -v "$program" >/dev/null || exit 1
    done
)

install() {
    require_all=1
    if ! command -v h5dump >/dev/null; then
        if can_apt; then
            apt_install hdf5-tools
        else
            say "h5dump is missing and only root can install it here: its tests are skipped"
            require_all=0
        fi
    fi

    services="ceph-mon ceph-osd radosgw python3-rados ceph-common"
    if ! has_ceph; then
        if can_apt; then
            # shellcheck disable=SC2086  # a list of packages
            apt_install --no-install-recommends $services
        else
            say "Ceph is missing and only root can install it here: the tests of the backends" \
                "s3 and ceph that need it are skipped"
            require_all=0
        fi
    fi

    # To compile the object class. rados-objclass-dev needs libradospp-dev, and does not say so.
    tools="g++ rados-objclass-dev libradospp-dev"
    if has_ceph && ! has_class_tools; then
        # shellcheck disable=SC2086  # a list of packages
        if ! can_apt || ! apt_install --no-install-recommends $tools; then
            say "g++ or the headers of Ceph's object classes are missing and cannot be installed" \
                "here: the tests of queries on the OSDs are skipped"
            require_all=0
        fi
    fi

    if ! has_postgres; then
        if can_apt; then
            # In runlevel 1 Debian starts no server of the system's: the tests have their own.
            (export RUNLEVEL=1 && apt_install --no-install-recommends postgresql)
        else
            say "PostgreSQL is missing and only root can install it here: the tests of the" \
                "loader that need it are skipped"
            require_all=0
        fi
    fi

    if ! has_sshd; then
        if can_apt; then
            # As above.
            (
                export RUNLEVEL=1
                apt_install --no-install-recommends openssh-client openssh-server
            )
        else
            say "OpenSSH's server or client is missing and only root can install it here: the" \
                "tests of pilots by SSH are skipped"
            require_all=0
        fi
    fi

    if ! has_slurm; then
        if can_apt; then
            # As above.
            (
                export RUNLEVEL=1
                apt_install --no-install-recommends slurmctld slurmd slurm-client munge
            )
        else
            say "Slurm or munge is missing and only root can install it here: the tests of the" \
                "engine dask on Slurm are skipped"
            require_all=0
        fi
    fi

    if ! command -v chromium >/dev/null; then
        if can_apt; then
            apt_install --no-install-recommends chromium
        else
            say "Chromium is missing and only root can install it here: the tests of the page in" \
                "a browser are skipped"
            require_all=0
        fi
    fi

    make_venv
    make_hsds
    make_func_adl
    if ! link_rados; then
        say "Ceph's binding rados is not there for $("$python" --version), but only for the" \
            "system's Python: the tests of the backend ceph are skipped"
        require_all=0
    fi
}

has_test_tools() {
    "$1" -c 'import hypothesis, pytest, pytest_timeout' 2>/dev/null
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        python=$PYTHON
    elif has_test_tools "$venv/bin/python"; then
        python=$venv/bin/python
    else
        python=python3
    fi
    if ! is_recent "$python"; then
        say "$python is not a Python >= 3.11" >&2
        exit 1
    fi
    if ! has_test_tools "$python"; then
        say "$python lacks pytest, pytest-timeout or hypothesis; --install brings them" >&2
        exit 1
    fi
}

run_pytest() {
    PYTHONPATH=$here${PYTHONPATH:+:$PYTHONPATH} \
        "$python" -m pytest -c "$here/pyproject.toml" "$@" && return
    status=$?
    [ "$status" = 5 ] || failed=$status # 5: no test has the marker
}

# After the loop "$@" is what goes to pytest.
installing=no
choosing=no
lane=
backend=
engine=mpi # under mpiexec
expects=
left=$#
while [ "$left" -gt 0 ]; do
    word=$1
    shift
    left=$((left - 1))
    case $expects in
    one*)
        case $word in
        '' | --*) wrong "${expects#one}: a value is missing" ;;
        esac
        case $expects in
        one--backend) backend=$word ;;
        one--engine) engine=$word ;;
        esac
        set -- "$@" "${expects#one}=$word"
        expects=
        continue
        ;;
    esac
    case $word in
    --help | -h)
        usage
        exit 0
        ;;
    --install)
        installing=yes
        expects=
        ;;
    --fast | --faults | --newest | --oldest)
        [ -z "$lane" ] || wrong "$word: it does not go with --$lane"
        lane=${word#--}
        expects=
        ;;
    --backend | --engine | --connection)
        choosing=yes
        expects=one$word
        ;;
    --connection-options | --engine-options)
        choosing=yes
        expects=many$word
        ;;
    [!=-]*=*)
        [ -n "$expects" ] || wrong "unknown argument '$word'"
        set -- "$@" "${expects#many}=$word"
        ;;
    *)
        [ -z "$expects" ] || wrong "${expects#many}: expected KEY=VALUE, found '$word'"
        wrong "unknown argument '$word'"
        ;;
    esac
done
case $expects in
one*) wrong "${expects#one}: a value is missing" ;;
esac
if [ "$choosing" = yes ] && [ -z "$backend" ]; then
    wrong "--backend is missing"
fi
if [ -n "$lane" ]; then
    if [ "$installing" = yes ] || [ "$choosing" = yes ]; then
        wrong "--$lane goes with no other option"
    fi
fi
case $lane in
newest | oldest)
    . "$here/tests/lanes.sh"
    run_lane
    exit
    ;;
esac

# As MPICH, Intel MPI and Slurm's srun tell it, or Open MPI.
rank=${PMI_RANK:-${OMPI_COMM_WORLD_RANK:-${PMIX_RANK:-}}}
if [ -n "$rank" ] && [ "$installing" = yes ]; then
    wrong "--install is for one process, not for each rank"
fi

require_all=${DOSNA_REQUIRE_ALL:-0}
if [ "$installing" = yes ]; then
    install
else
    find_python
fi
export DOSNA_REQUIRE_ALL="$require_all"
# The tests start hundreds of interpreters, which would compile this tree each time.
unset PYTHONDONTWRITEBYTECODE

failed=0
if [ -n "$rank" ] && [ "$engine" = mpi ]; then
    # One rank speaks for all: each knows what failed on the others.
    [ "$rank" = 0 ] || exec >/dev/null
    PYTHONPATH=$here${PYTHONPATH:+:$PYTHONPATH} exec "$python" -m mpi4py -m pytest \
        -c "$here/pyproject.toml" -o timeout_method=thread "$@" \
        "$here/tests/mpi/suite.py" "$here/tests/mpi/kit.py"
fi
if [ "$choosing" = yes ]; then
    run_pytest "$@" "$here/tests/test_backend_runner.py"
    exit "$failed"
fi

cd "$here"
if [ "$installing" = yes ]; then
    say "ruff, mypy and codespell"
    "$python" -m ruff check . || failed=1
    "$python" -m ruff format --check . || failed=1
    "$python" -m mypy || failed=1
    PYTHONPATH=$here${PYTHONPATH:+:$PYTHONPATH} "$(dirname "$python")/lint-imports" || failed=1
    "$python" -m codespell_lib -- *.* docs dosna tests examples benchmarks || failed=1
    say "the documentation site"
    NO_MKDOCS_2_WARNING=1 "$python" -m mkdocs build --strict || failed=1
fi
least_covered=47.5 # per cent, a little below what they cover
two="-n 2 --dist worksteal"
three="-n 3 --dist worksteal"
"$python" -c 'import xdist' 2>/dev/null || two='' three=''
# shellcheck disable=SC2086  # $two and $three are lists of options
case $lane in
fast) run_pytest $two --lane fast tests ;;
faults) run_pytest $two --faults -m fault tests ;;
'')
    say "tests that measure time, one at a time"
    # shellcheck disable=SC2046  # a list of files
    run_pytest -m serial $(grep -rl --include='test_*.py' mark.serial tests)
    if [ "$installing" = yes ]; then
        say "the tests of --fast, two at a time, and what they cover"
        run_pytest $two --lane fast --cov --cov-report= --cov-fail-under="$least_covered" tests
        say "all other tests, three at a time: many wait"
        run_pytest $three --lane rest -m 'not serial' tests
    else
        say "all other tests, three at a time: many wait"
        run_pytest $three -m 'not serial' tests
    fi
    ;;
esac
exit "$failed"
