"""Checksums that are computed while files are on their way."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import crc32c
import pytest

from dosna.pilot.data import files, staging
from dosna.pilot.data.checksums import Parts, checksum_text


@pytest.mark.parametrize("sizes", [[], [0], [1], [5, 1, 1000], [4096] * 7 + [3], [1 << 20, 77]])
def test_parts_in_any_order(sizes: list[int]) -> None:
    data = os.urandom(sum(sizes))
    parts, pieces, start = Parts(), [], 0
    for size in sizes:
        pieces.append((start, data[start : start + size]))
        start += size
    random.Random(1).shuffle(pieces)
    for at, piece in [*pieces, *pieces[:1]]:  # one is sent again
        parts.see(at, memoryview(piece))
    assert parts.text() == checksum_text(crc32c.crc32c(data))


@pytest.mark.parametrize("size", [0, 10, (20 << 20) + 3])
def test_files_are_not_read_again(
    fields: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").write_bytes(os.urandom(size))
    wanted = files.checksum_of(str(tmp_path / "out" / "file"))
    if not fields["service_url"].startswith("ssh"):  # asyncssh reads and writes files itself
        for module in (files, staging):
            monkeypatch.setattr(
                module, "checksum_of", lambda path: pytest.fail("it is read again")
            )
    request = {"data_unit": "du-1", "place": fields, "patterns": ["file"]}
    (found,) = staging.stage_out(request, str(tmp_path / "out"))
    assert found["checksum"] == wanted
    assert staging.stage_in({**request, "files": [found]}, str(tmp_path / "in")) == [found]
    assert (tmp_path / "in" / "file").stat().st_size == size
