#!/bin/sh
# Functions that the other scripts share: source it with $here set to the repository's folder.

venv=$here/.venv

say() {
    printf '== %s\n' "$*"
}

is_recent() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# Can this Python make a virtual environment? Debian's has venv, but not always ensurepip.
can_make_venv() {
    is_recent "$1" && "$1" -c 'import ensurepip, venv' 2>/dev/null
}

can_apt() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null
}

apt_install() {
    say "apt-get install $*"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >/dev/null
}

find_base_python() {
    for base in "${PYTHON:-python3}" python3 python3.13 python3.12 python3.11; do
        if can_make_venv "$base"; then
            return
        fi
    done
    return 1
}

# Does ./.venv hold all that setup.cfg asks for now?
venv_is_complete() {
    wanted=$(cd "$here" && cksum setup.cfg pyproject.toml && pwd)
    [ "$(cat "$venv/dosna-installed" 2>/dev/null)" = "$wanted" ] && is_recent "$venv/bin/python"
}

# Sets $python to that of ./.venv, which is made with dosna and what its tests and examples need.
make_venv() {
    python=$venv/bin/python
    if venv_is_complete; then
        return
    fi
    if ! is_recent "$python" || ! "$python" -m pip --version >/dev/null 2>&1; then
        if ! find_base_python && can_apt; then
            apt_install python3 python3-venv
        fi
        if ! find_base_python; then
            say "no Python >= 3.11 with venv and ensurepip was found; install it (on Debian" \
                "python3-venv), or name one: PYTHON=/path/to/python sh $0" >&2
            exit 1
        fi
        say "making $venv with $("$base" --version)"
        "$base" -m venv --clear "$venv"
    fi
    say "installing dosna[all,dev] into $venv"
    "$python" -m pip install --quiet --disable-pip-version-check --editable "$here[all,dev]"
    printf '%s\n' "$wanted" >"$venv/dosna-installed"
}

# The tests' HSDS server needs older packages than dosna, and so has an environment of its own.
make_hsds() {
    if [ -x "$venv/hsds/bin/hsds" ]; then
        return
    fi
    say "installing hsds into $venv/hsds"
    "$python" -m venv "$venv/hsds"
    "$venv/hsds/bin/python" -m pip install --quiet --disable-pip-version-check 'hsds>=1.0.2,<2'
}

# func_adl needs an older release of Dask than dosna, and so has an environment of its own.
make_func_adl() {
    if [ -x "$venv/func_adl/bin/python" ]; then
        return
    fi
    say "installing func_adl into $venv/func_adl"
    "$python" -m dosna.delivery.transform.environment "$venv/func_adl" >/dev/null
}

# Ceph's Python binding is in no package index: ./.venv borrows that of the system's Python, if
# that is of the same version.
link_rados() {
    if "$python" -c 'import rados' 2>/dev/null; then
        return
    fi
    file=rados$("$python" -c 'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))')
    site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')
    for found in /usr/lib/python3/dist-packages/"$file" /usr/lib*/python3.*/site-packages/"$file"; do
        if [ -e "$found" ]; then
            ln -sf "$found" "$site/$file"
            if "$python" -c 'import rados' 2>/dev/null; then
                return
            fi
            rm -f "$site/$file"
        fi
    done
    return 1
}
