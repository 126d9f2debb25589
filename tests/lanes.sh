#!/bin/sh
# Runs a part of the tests with other releases than those of ./.venv: source it after venv.sh.

# What touches NumPy and other libraries' formats and private doors; none needs a service.
lane_tests="bounds codecs columns compare deflate doors evaluation event_files export folder_reads
    foreign_codecs hdf5 hdf5_as_found hsds_http interop metadata options pace private_doors ram root_kinds
    s3_answers s3_options selection sources sources_datasets sources_hdf5
    sources_records sources_zarr storedata text zarr zarr_others"
# The extras whose packages come as wheels for every Python, but for servicex, which holds boto3 back.
lane_extras=hdf5,jl,zarr,s3,progress,plot,hsds,ingest,root,loader

# Sets $newer to a Python that is newer than that of most distributions.
find_newer_python() {
    for newer in python3.14 python3.13 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[34]*/bin/python; do
        if command -v "$newer" >/dev/null && "$newer" -c 'import ensurepip, ssl, venv' 2>/dev/null; then
            return
        fi
    done
    return 1
}

# Makes an environment with the Python that is named, and uv in it, which does the rest.
make_lane() {
    # That of another system, as Debian's below, does not start.
    if ! "$lane_venv/bin/python" -m uv --version >/dev/null 2>&1; then
        "$1" -m venv --clear "$lane_venv"
        "$lane_venv/bin/python" -m pip install --quiet --disable-pip-version-check uv
    fi
    say "installing the $lane releases into $lane_venv with $("$lane_venv/bin/python" --version)"
}

lane_install() {
    "$lane_venv/bin/uv" pip install --quiet --python "$lane_venv/bin/python" "$@"
}

run_lane() {
    cd "$here"
    lane_venv=$venv/$lane
    case $lane in
    newest)
        if ! find_newer_python; then
            run_in_debian
            return
        fi
        make_lane "$newer"
        lane_install --upgrade --editable "$here[$lane_extras,test]"
        ;;
    oldest)
        find_base_python || {
            say "no Python >= 3.11 with venv and ensurepip was found" >&2
            exit 1
        }
        make_lane "$base"
        lane_install --resolution lowest-direct --editable "$here[$lane_extras,test]"
        ;;
    esac
    "$lane_venv/bin/python" - <<'END_OF_PYTHON'
from importlib.metadata import version
from platform import python_version

names = "numpy h5py zarr numcodecs xarray dask uproot awkward pyarrow obstore boto3 joblib".split()
print("== Python", python_version(), *(f"{name} {version(name)}" for name in names))
END_OF_PYTHON
    files=
    for name in $lane_tests; do
        files="$files $(find tests -name "test_$name.py")"
    done
    # shellcheck disable=SC2086  # a list of files
    PYTHONPATH=$here${PYTHONPATH:+:$PYTHONPATH} exec "$lane_venv/bin/python" -m pytest \
        -c "$here/pyproject.toml" -m 'not serial' -n 2 --dist worksteal $files
}

# The same in a Debian 13, whose files are below ./.venv, with this folder mounted in it.
run_in_debian() {
    if ! can_apt; then
        say "no Python newer than 3.12 was found, and only root on Debian can bring one: install" \
            "it, or put it on PATH" >&2
        exit 1
    fi
    debian=$venv/debian-13
    mkdir -p "$venv"
    if [ ! -e "$debian/made" ]; then
        command -v debootstrap >/dev/null || apt_install debootstrap
        # The mirror that this system has its own packages from.
        mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | head -n 1)
        say "making a Debian 13 in $debian"
        rm -rf "$debian"
        debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates trixie \
            "$debian" "$mirror" >"$venv/debootstrap.log" 2>&1 || {
            tail -n 5 "$venv/debootstrap.log" >&2
            exit 1
        }
        touch "$debian/made"
    fi
    # Mounts and processes are those of a namespace, which goes with this command.
    exec unshare --mount --pid --fork --kill-child sh -eu -c '
        here=$1 debian=$2
        # Names and certificates of the network, and what pip and uv are told of it.
        for path in "$here" /etc/hosts /etc/resolv.conf /etc/ssl /etc/pip.conf /etc/uv /etc/xdg; do
            if [ -d "$path" ]; then
                mkdir -p "$debian$path"
            elif [ -e "$path" ]; then
                touch "$debian$path"
            else
                continue
            fi
            mount --bind "$path" "$debian$path"
        done
        mount -t proc proc "$debian/proc"
        mount --rbind /dev "$debian/dev"
        mount -t tmpfs tmpfs "$debian/tmp"
        exec chroot "$debian" env PATH=/usr/bin:/bin TMPDIR=/tmp sh "$here/run_tests.sh" --newest
    ' sh "$here" "$debian"
}
