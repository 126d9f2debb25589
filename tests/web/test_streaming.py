"""Answers in pieces: what makes the pieces is closed, however the answer ends."""

from __future__ import annotations

import gc
import tempfile
import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import HANG, require, wait_until

require("starlette")
require("uvicorn")
httpx = require("httpx")

from starlette.applications import Starlette  # noqa: E402
from starlette.requests import Request  # noqa: E402
from starlette.routing import Route  # noqa: E402

from dosna.errors import DosnaError  # noqa: E402
from dosna.web import Access, Server, Streamed, in_threads  # noqa: E402


class Pieces:
    """Pieces with a temporary folder, whose generator waits before the second."""

    def __init__(self, place: Path, fails: bool = False) -> None:
        self.place, self.fails = place, fails
        self.waits, self.goes_on = threading.Event(), threading.Event()
        self.closed_by: str | None = None

    def each(self) -> Generator[bytes]:
        try:
            with tempfile.TemporaryDirectory(dir=self.place):
                yield b"first"
                self.waits.set()
                assert self.goes_on.wait(HANG)
                yield b"second"
                if self.fails:
                    raise DosnaError("no third")
                while True:
                    yield b"more"
        finally:
            self.closed_by = threading.current_thread().name

    def server(self) -> Any:
        async def answer(request: Request) -> Streamed:
            return Streamed(in_threads(self.each()), media_type="text/plain")

        return Server(Starlette(routes=[Route("/", answer)]), Access.of("127.0.0.1", None))

    def check(self) -> None:
        """Check that the generator is closed, in a thread that may wait."""
        wait_until(lambda: self.closed_by is not None)
        assert self.closed_by != "dosna-server"
        assert list(self.place.iterdir()) == []


@pytest.fixture(autouse=True)
def uncollected() -> Iterator[None]:
    """Leave nothing to Python's collector, which would close the generators too, later."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def test_a_client_that_leaves_while_a_piece_is_made(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path)
    with pieces.server() as server:
        with httpx.stream("GET", server.root, timeout=HANG) as answer:
            assert next(answer.iter_raw()) == b"first"
            assert pieces.waits.wait(HANG)
        pieces.goes_on.set()
        pieces.check()


def test_a_client_that_leaves_while_a_piece_is_sent(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path)
    pieces.goes_on.set()
    with pieces.server() as server:
        with httpx.stream("GET", server.root, timeout=HANG) as answer:
            assert next(answer.iter_raw()).startswith(b"first")
        pieces.check()


def test_a_server_that_stops_while_a_piece_is_made(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path)
    with pieces.server() as server, httpx.stream("GET", server.root, timeout=HANG) as answer:
        assert next(answer.iter_raw()) == b"first"
        assert pieces.waits.wait(HANG)
        server.stop()
        assert pieces.closed_by is None
        pieces.goes_on.set()
        pieces.check()


def test_a_generator_that_fails(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path, fails=True)
    pieces.goes_on.set()
    with pieces.server() as server:
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(server.root, timeout=HANG)
        pieces.check()
