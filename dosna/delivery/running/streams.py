"""Results as streams of Arrow, for those who read them while they are made."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from dosna.delivery.objects import ObjectPlace
from dosna.delivery.running.jobs import scratch_folder
from dosna.delivery.settings import Settings
from dosna.delivery.state.requests import Row
from dosna.delivery.transform import Limits
from dosna.delivery.transform.streaming import to_stream

__all__ = ["stream_of"]


@contextmanager
def stream_of(
    row: Row, name: str, nbytes: int, place: ObjectPlace, settings: Settings
) -> Iterator[str]:
    """Yield the path of a stream of a result, which a confined process makes.

    Parameters
    ----------
    row : Row
        The request.
    name : str
        The name of the result.
    nbytes : int
        Its size.
    place : ObjectPlace
        The place of results.
    settings : Settings
        The settings of the service.
    """
    limits = Limits(settings.file_seconds, settings.file_memory, settings.file_disk)
    scratch = scratch_folder(settings)
    os.makedirs(scratch, mode=0o700, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch, prefix="stream-") as folder:
        path = place.path(row.id, name)
        if path is None:
            path = os.path.join(folder, "object")
            with open(path, "wb") as copy:
                for piece in place.read(row.id, name, 0, nbytes):
                    copy.write(piece)
        work = os.path.join(folder, "work")
        os.mkdir(work)
        yield to_stream(path, row.format, work, limits, settings.unconfined)
