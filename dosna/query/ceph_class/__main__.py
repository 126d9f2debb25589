"""Compile the object class: ``python -m dosna.query.ceph_class build --to DIR``."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

__all__ = ["LIBRARY", "SOURCE", "build"]

SOURCE = Path(__file__).with_name("cls_dosna.cc")
LIBRARY = "libcls_dosna.so"
"""The file that an OSD looks for in its ``osd class dir``."""

_FLAGS = ["-std=c++17", "-O3", "-fPIC", "-shared", "-Wall", "-Wextra"]


def build(folder: Path, compiler: str) -> Path:
    """Compile the class into a folder, and return the path of the library.

    Parameters
    ----------
    folder : Path
        The folder, which is created if it does not exist.
    compiler : str
        The command of a C++ compiler, with options if needed.

    Raises
    ------
    OSError
        If the compiler cannot be started, or the folder cannot be written to.
    subprocess.CalledProcessError
        If the compiler fails; it has printed the reason.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / f"{LIBRARY}.{os.getpid()}"
    try:
        subprocess.run([*shlex.split(compiler), *_FLAGS, "-o", str(made), str(SOURCE)], check=True)
        # An OSD that has loaded the library keeps the old file.
        os.replace(made, folder / LIBRARY)
    finally:
        made.unlink(missing_ok=True)
    return folder / LIBRARY


def main(arguments: list[str] | None = None) -> int:
    """Run the command, and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m dosna.query.ceph_class",
        description="Compile the object class of dosna for the OSDs of a Ceph cluster.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("build", help=f"compile {SOURCE.name}")
    command.add_argument("--to", required=True, type=Path, metavar="DIR", help="folder to write")
    command.add_argument("--compiler", default=os.environ.get("CXX", "g++"))
    options = parser.parse_args(arguments)
    try:
        print(build(options.to, options.compiler))
    except (OSError, subprocess.CalledProcessError) as error:
        print(
            f"{LIBRARY} was not built: {error}. It needs g++ and the packages "
            "rados-objclass-dev and libradospp-dev, of the release of the OSDs",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
