"""A fake of the transformer: it copies its input, or does what a test tells it."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from support import HANG

from dosna.delivery.transform import TransformRequest, TransformResult
from dosna.errors import QueryError


class FakeTransform:
    """What stands in for `dosna.delivery.transform.transform`.

    Attributes
    ----------
    calls : list of str
        The sources, in the order in which they came.
    fails : callable
        Told a source, the error to raise, or None.
    gate : threading.Event
        What each call waits for.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.fails: Callable[[str], BaseException | None] = lambda source: None
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, request: TransformRequest) -> TransformResult:
        self.calls.append(request.source)
        self.gate.wait(HANG)
        error = self.fails(request.source)
        if error is not None:
            raise error
        if request.selection == "bad":
            raise QueryError("there is no column 'x': the columns are a, b")
        path = Path(request.folder, request.name)
        shutil.copyfile(request.source, path)
        return TransformResult(str(path), path.stat().st_size, 7, "a line of log")
