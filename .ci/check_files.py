"""Check names and sizes of files that git knows: python .ci/check_files.py [FILE ...].

Without names all tracked files are checked. A picture of the documentation has at most 512 KB;
larger data do not belong in the repository, because every clone carries them for ever.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 512_000

# What stands at the top. A new name there is a decision: add it here in the same commit.
TOP = {
    *(".ci", ".gitignore", ".importlinter", ".pre-commit-config.yaml"),
    *("CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "MANIFEST.in", "README.md"),
    *("benchmarks", "changelog.d", "docs", "dosna", "examples", "findings", "tests", "web"),
    *("ceph.sample.conf", "sage.sample.conf", "mkdocs.yml", "pyproject.toml", "setup.cfg"),
    *("run_mpi.sh", "run_tests.sh", "venv.sh"),
}


def tracked() -> list[str]:
    """Return the names of all files that git tracks, relative to the top."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True)
    return listed.stdout.decode().rstrip("\0").split("\0")


def faults(names: list[str]) -> list[str]:
    """Return a line for each file that should not be committed as it is."""
    found = []
    for name in names:
        path = ROOT / name
        if name.partition("/")[0] not in TOP:
            found.append(f"{name}: not one of the names at the top that .ci/check_files.py lists")
        elif path.is_file() and path.stat().st_size > LIMIT:
            found.append(f"{name}: {path.stat().st_size} bytes, and the limit is {LIMIT}")
    return found


if __name__ == "__main__":
    lines = faults(sys.argv[1:] or tracked())
    print(*lines, sep="\n", end="\n" * bool(lines))
    sys.exit(bool(lines))
