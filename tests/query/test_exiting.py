"""Streams of batches at the end of the interpreter."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support import HANG

BUSY = """
import threading, time
from dosna.query.exiting import UntilExit

stream, asked = UntilExit(iter(range(3))), threading.Event()

def read():
    # As a thread of pyarrow, which still needs the interpreter after it was answered.
    next(stream)
    asked.set()
    end = time.monotonic() + 1
    while time.monotonic() < end:
        pass
    print("over", flush=True)
    time.sleep(1000)

threading.Thread(target=read, daemon=True).start()
asked.wait()
{drop}
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="others do not tell what runs")
@pytest.mark.parametrize("drop", ["", "del stream"])
def test_the_interpreter_does_not_end_while_a_reader_works(drop):
    done = subprocess.run(
        [sys.executable, "-c", BUSY.format(drop=drop)],
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    assert (done.returncode, done.stdout) == (0, "over\n"), done.stderr
