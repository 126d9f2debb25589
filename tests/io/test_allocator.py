"""The allocator's memory: kept for the next request, unless the environment chooses."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from dosna.io import allocator

FAULTS = """
import resource, sys, threading
import numpy as np
from dosna.io.allocator import keep_freed_memory

assert keep_freed_memory() == (sys.argv[1] == "kept")

def work():
    def read():  # blocks of 1 MiB that live together, as chunks of a slice
        return [np.full(1 << 17, 1.0) for _ in range(16)]
    read(), read()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        read()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc")
@pytest.mark.parametrize("choice", ["kept", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
@pytest.mark.slow
def test_threads_map_memory_once(choice):
    values = {"MALLOC_TRIM_THRESHOLD_": "131072", "GLIBC_TUNABLES": "glibc.malloc.mmap_max=65536"}
    environment = {
        name: value for name, value in os.environ.items() if name not in allocator._CHOSEN
    }
    if choice in values:
        environment[choice] = values[choice]
    command = [sys.executable, "-c", FAULTS, choice]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    # 20 times 16 MiB are 81,920 pages of 4 KiB; without the setting most are mapped each time,
    # unless the kernel gives out large pages by itself.
    if choice == "kept":
        assert int(done.stdout) < 4000


def test_other_libraries_are_left_alone(monkeypatch):
    for name in allocator._CHOSEN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: object())
    assert not allocator.keep_freed_memory()
