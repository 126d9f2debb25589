#!/bin/sh
# A codec that nobody uses should not stop a library from being imported. numcodecs 0.16.6 compares
# the version of zfpy, if it is installed, when it is imported itself: it takes the version apart
# at its dots and makes each part a number. zfpy 1.0.1.post0, which plain "pip install zfpy"
# brings, has a part that is none. So "import numcodecs" raises ValueError, and zarr-python 3.1.6
# with it, for all arrays. zfpy 1.0.1 beside the same numcodecs is fine. An environment of Zarr
# stops working by the installation of a compressor.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    numcodecs==0.16.6 zarr==3.1.6 zfpy==1.0.1.post0 numpy==2.4.6 || exit 2
venv/bin/python -I - <<'END'
import subprocess
import sys


def run(code):
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)
    return (done.stdout + done.stderr).strip().splitlines()[-1]


def imports():
    said = run("from importlib.metadata import version; print(version('zfpy'))")
    names = ("zfpy", "numcodecs", "zarr")
    return [said] + [run(f"import {name}; print('imported')") for name in names]


def install(what):
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if subprocess.run([*pip, what]).returncode:
        sys.exit(2)


newer = imports()
print("zfpy, then what imports of zfpy, numcodecs and zarr say:")
print(*newer, sep="; ")
install("zfpy==1.0.1")
older = imports()
print(*older, sep="; ")

fails = "ValueError: invalid literal for int() with base 10: 'post0'"
as_seen = newer == ["1.0.1.post0", "imported", fails, fails]
sys.exit(0 if as_seen and older == ["1.0.1"] + ["imported"] * 3 else "This has changed.")
END
