#!/bin/sh
# psij-python 0.9.11 takes the arguments of a job as they are, with spaces. One expects the same of
# the paths of its streams. But the local executor writes them without quotes into the script that
# it runs: a job whose `stdout_path` has a space fails with status 1 and without a message, the
# command never runs, and there is no output. Its folder may have a space.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    psij-python==0.9.11 || exit 2
cat >jobs.py <<'END'
import os
import sys
import warnings
from pathlib import Path

import psij

warnings.simplefilter("ignore")
executor = psij.JobExecutor.get_instance("local")
found = {}
for folder, name in (("here", "one.txt"), ("some where", "one.txt"), ("here", "two words.txt")):
    os.makedirs(folder, exist_ok=True)
    out = Path(name).absolute()
    job = psij.Job(
        psij.JobSpec(
            executable="/bin/echo",
            arguments=["two  words"],
            directory=Path(folder).absolute(),
            stdout_path=out,
        )
    )
    executor.submit(job)
    status = job.wait()
    written = out.read_text() if out.exists() else None
    found[folder, name] = (status.state.name, status.message, written)
    print(f"in {folder!r} to {name!r}: {status.state.name}, {status.message}, {written!r}")
    out.unlink(missing_ok=True)
done = ("COMPLETED", None, "two  words\n")
as_seen = list(found.values()) == [done, done, ("FAILED", None, None)]
sys.stdout.flush()
os._exit(0 if as_seen else 1)
END
venv/bin/python -I jobs.py
