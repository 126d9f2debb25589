"""Whole files to and from S3, in parts, several of which are under way."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from dosna.errors import SourceChangedError
from dosna.io.parallel import in_flight
from dosna.io.s3.client import S3Client

__all__ = ["download", "upload"]

PART = 8 << 20
"""The bytes of a part."""
_PARTS = 6
"""The parts under way for a file."""

Tell = Callable[[int], object]
See = Callable[[int, "memoryview | bytes"], object]
"""A function that gets each part, and where it begins; by many threads."""


def download(
    client: S3Client,
    path: str,
    target: str,
    tell: Tell | None = None,
    see: See | None = None,
) -> None:
    """Write the object ``bucket/key`` into a new local file.

    Raises
    ------
    Failure
        A request failed.
    SourceChangedError
        The object was replaced meanwhile.
    """
    first = client.head(path)
    with open(target, "xb") as file:
        os.truncate(file.fileno(), first.size)

        def fetch(start: int) -> None:
            part = client.get(path, (start, min(start + PART, first.size)))
            if part.etag != first.etag:
                raise SourceChangedError(f"{path} was replaced while it was read: read it again")
            data, at = part.data, start
            if see is not None:
                see(start, data)
            while data:
                count = os.pwrite(file.fileno(), data, at)
                data, at = data[count:], at + count
            if tell is not None:
                tell(at - start)

        in_flight(fetch, range(0, first.size, PART), _PARTS)


def upload(
    client: S3Client,
    source: str,
    path: str,
    tell: Tell | None = None,
    see: See | None = None,
) -> None:
    """Write a local file as the object ``bucket/key``, which others see whole or not at all.

    Raises
    ------
    Failure
        A request failed.
    """
    told = 0

    def parts() -> Iterator[bytes]:
        nonlocal told
        done = 0
        with open(source, "rb", buffering=0) as file:
            while part := file.read(PART):
                if see is not None:
                    see(done, part)
                yield part
                done += len(part)
                # What is sent again after a failure was reported before.
                if tell is not None and done > told:
                    tell(done - told)
                    told = done

    client.put_parts(path, parts, PART, _PARTS)
