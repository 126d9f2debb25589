"""Local files of a pinned state, read in many pieces."""

from __future__ import annotations

import os
import shutil

import pytest

from dosna.errors import SourceChangedError, SourceNotFoundError
from dosna.io.local import LocalFile


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(bytes(range(200)))
    found = LocalFile(str(path))
    found.pin(found.fingerprint())
    return found


def read_all(file, meanwhile=lambda at: None):
    """Read byte by byte, and call `meanwhile` after each."""
    out = bytearray(200)

    def read(at):
        file.read_into(at, memoryview(out)[at : at + 1])
        meanwhile(at)

    file.for_each(read, range(200))
    return bytes(out)


def test_the_state_is_looked_up_once_for_many_reads(file, monkeypatch):
    looks = []
    real = os.stat
    monkeypatch.setattr(os, "stat", lambda *a, **k: (looks.append(a), real(*a, **k))[1])
    assert read_all(file) == bytes(range(200))
    assert len(looks) == 1
    file.read(0, 1)
    assert len(looks) == 2


def test_a_change_between_reads_is_an_error(file):
    def change(at):
        if at == 100:
            os.utime(file.location, ns=(1, 1))

    with pytest.raises(SourceChangedError):
        read_all(file, change)
    with pytest.raises(SourceChangedError):
        file.read(0, 1)


def test_a_change_explains_what_fails_meanwhile(file):
    def fail(at):
        if at == 100:
            with open(file.location, "r+b") as other:
                other.truncate(50)
            raise ValueError("what was read makes no sense")

    with pytest.raises(SourceChangedError):
        read_all(file, fail)
    os.unlink(file.location)
    with pytest.raises(SourceNotFoundError):
        read_all(file)


def test_what_fails_without_a_change_is_told(file):
    def fail(at):
        if at == 100:
            raise ValueError("sense")

    with pytest.raises(ValueError, match="sense"):
        read_all(file, fail)
    assert read_all(file) == bytes(range(200))


def test_a_file_in_the_same_state_is_read_from_the_start(file, tmp_path):
    other = tmp_path / "other"
    other.write_bytes(bytes(reversed(range(200))))
    shutil.copystat(file.location, other)
    replaced = []

    def replace(at):
        if at == 100 and not replaced:
            replaced.append(at)
            os.rename(other, file.location)

    assert read_all(file, replace) == bytes(reversed(range(200)))
