"""The memory that requests share: order, waiting, refusals, and that all of it comes back."""

from __future__ import annotations

import asyncio
import http.client
import json
import random
import threading
from collections.abc import AsyncGenerator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import pytest
from support import HANG, require, wait_until

require("starlette")
require("uvicorn")

from starlette.applications import Starlette  # noqa: E402
from starlette.requests import Request  # noqa: E402
from starlette.responses import PlainTextResponse, Response  # noqa: E402
from starlette.routing import Route  # noqa: E402

from dosna.web import (  # noqa: E402
    HANDLERS,
    Access,
    Limits,
    Server,
    Streamed,
    budget,
    protect,
    sharing,
)
from dosna.web.budget import Budget, Crowded, Share  # noqa: E402

TOTAL = 1000


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


class Kitchen:
    """An application whose requests ask for memory, and a note of what they do with it."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.holds, self.goes_on = threading.Event(), threading.Event()
        self.asked: list[str] = []
        self.done: list[str] = []
        self.used = self.most = 0
        self._lock = threading.Lock()
        routes = [
            Route("/make/{size:int}", self.make),
            Route("/hold/{size:int}", self.hold),
            Route("/fail/{size:int}", self.fail),
            Route("/large/{size:int}", self.large),
            Route("/pieces/{size:int}", self.pieces),
            Route("/wait/{size:int}", self.wait),
        ]
        app = Starlette(routes=routes, exception_handlers=HANDLERS)
        self.access = Access.of(guarded=False)
        self.app = protect(app, self.access, limits or Limits(total_bytes=TOTAL, seconds=HANG))

    def server(self) -> Server:
        return Server(self.app, self.access)

    @contextmanager
    def using(self, request: Request) -> Iterator[int]:
        size, path = int(request.path_params["size"]), request.url.path
        self.asked.append(path)
        with sharing(size):
            with self._lock:
                self.used += size
                self.most = max(self.most, self.used)
            try:
                yield size
            finally:
                with self._lock:
                    self.used -= size
                self.done.append(path)

    def make(self, request: Request) -> Response:
        with self.using(request) as size:
            return PlainTextResponse("x" * size)

    def hold(self, request: Request) -> Response:
        with self.using(request):
            self.holds.set()
            assert self.goes_on.wait(HANG)
            return PlainTextResponse("held")

    def fail(self, request: Request) -> Response:
        with self.using(request):
            raise ValueError("burnt")

    async def large(self, request: Request) -> Response:
        with self.using(request) as size:
            return Response(bytes(size))

    async def pieces(self, request: Request) -> Response:
        async def endless() -> AsyncGenerator[bytes]:
            while True:
                yield bytes(1 << 16)
                await asyncio.sleep(0)  # nothing is waited for when the client has left

        with self.using(request):
            return Streamed(endless())

    async def wait(self, request: Request) -> Response:
        """Ask for memory before the clock can be looked at."""
        with self.using(request):
            return PlainTextResponse("there")


@pytest.fixture(autouse=True)
def nothing_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "SMALL", 0)


@pytest.fixture
def kitchen() -> Iterator[Kitchen]:
    kitchen = Kitchen()
    yield kitchen
    kitchen.goes_on.set()


def get(server: Server, path: str) -> Answer:
    with asking(server, path) as connection:
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())


def check_all_is_back(server: Server) -> None:
    """Check that nothing of the budget is taken: who asks for all of it gets it."""
    assert get(server, f"/make/{TOTAL}").body == b"x" * TOTAL


@contextmanager
def asking(server: Server, path: str) -> Iterator[http.client.HTTPConnection]:
    """Send a request, do not wait for the answer, and leave at the end."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=HANG)
    connection.request("GET", path)
    try:
        yield connection
    finally:
        connection.close()


def test_many_at_once_are_all_answered_within_the_budget(kitchen: Kitchen) -> None:
    rng = random.Random(1)
    sizes = [rng.randrange(1, TOTAL + 1) for _ in range(100)]
    with kitchen.server() as server, ThreadPoolExecutor(len(sizes)) as clients:
        bodies = list(clients.map(lambda size: get(server, f"/make/{size}").body, sizes))
        check_all_is_back(server)
    assert [len(body) for body in bodies] == sizes
    assert kitchen.most <= TOTAL


def test_what_becomes_of_a_request_does_not_matter_to_the_budget(kitchen: Kitchen) -> None:
    """Some are answered, some fail, and the clients of some leave without a word."""
    rng = random.Random(2)

    def one(number: int) -> None:
        size = rng.randrange(1, TOTAL + 1)
        if number % 3 == 0:
            assert get(server, f"/make/{size}").status == 200
        elif number % 3 == 1:
            assert get(server, f"/fail/{size}").status == 500
        else:
            with asking(server, f"/{rng.choice(['make', 'pieces'])}/{size}"):
                pass

    with kitchen.server() as server, ThreadPoolExecutor(20) as clients:
        list(clients.map(one, range(60)))
        check_all_is_back(server)
    assert kitchen.most <= TOTAL


def test_small_requests_do_not_wait(kitchen: Kitchen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "SMALL", 10)
    with kitchen.server() as server, asking(server, f"/hold/{TOTAL}"):
        assert kitchen.holds.wait(HANG)
        with ThreadPoolExecutor(60) as clients:
            # More than there are threads to wait in.
            waiting = [clients.submit(get, server, f"/make/{TOTAL}") for _ in range(60)]
            wait_until(lambda: len(kitchen.asked) == 61)
            assert get(server, "/make/10").body == b"x" * 10
            assert not any(one.done() for one in waiting)
            kitchen.goes_on.set()
            assert all(one.result().status == 200 for one in waiting)


def test_who_leaves_gives_up_the_place(kitchen: Kitchen) -> None:
    with kitchen.server() as server, asking(server, "/hold/600"):
        assert kitchen.holds.wait(HANG)
        with asking(server, f"/make/{TOTAL}"):
            wait_until(lambda: f"/make/{TOTAL}" in kitchen.asked)
        # It would still be the first in order.
        assert get(server, "/make/400").status == 200


def test_work_that_goes_on_without_a_client_keeps_its_share(kitchen: Kitchen) -> None:
    with kitchen.server() as server, ThreadPoolExecutor(1) as clients:
        with asking(server, f"/hold/{TOTAL}"):
            assert kitchen.holds.wait(HANG)
        other = clients.submit(get, server, "/make/1")
        wait_until(lambda: "/make/1" in kitchen.asked)
        kitchen.goes_on.set()
        assert other.result().status == 200
        assert kitchen.done == [f"/hold/{TOTAL}", "/make/1"]


@pytest.mark.parametrize("kind", ["large", "pieces"])
def test_an_answer_has_its_share_until_it_is_sent(kind: str) -> None:
    size = 64 << 20  # much more than is on the way to a client
    kitchen, path = Kitchen(Limits(total_bytes=size, seconds=HANG)), f"/{kind}/{size}"
    with kitchen.server() as server, ThreadPoolExecutor(1) as clients:
        with asking(server, path) as connection:
            answer = connection.getresponse()
            assert answer.read(1) == b"\0"
            # It would have its share in the same step of the event loop.
            other = clients.submit(get, server, "/wait/1")
            wait_until(lambda: "/wait/1" in kitchen.asked)
            assert kitchen.done == [path]
            if kind == "large":
                assert len(answer.read()) == size - 1
                assert other.result().status == 200
        assert other.result().status == 200


def test_who_waits_too_long_is_told_to_come_again() -> None:
    kitchen = Kitchen(Limits(total_bytes=TOTAL, seconds=0.1))
    with kitchen.server() as server:
        with ExitStack() as clients:

            def begun() -> bool:
                connection = clients.enter_context(asking(server, f"/pieces/{TOTAL}"))
                return connection.getresponse().status == 200

            wait_until(begun)  # from then on it may take as long as it likes
            answer = get(server, "/wait/1")
            assert answer.status == 503
            assert int(answer.headers["Retry-After"]) > 0
            assert "other large answers" in json.loads(answer.body)["error"]
            assert json.loads(answer.body)["hint"]
        wait_until(lambda: get(server, f"/wait/{TOTAL}").status == 200)


def test_the_end_of_a_server_does_not_wait_for_those_who_wait(kitchen: Kitchen) -> None:
    with kitchen.server() as server, asking(server, f"/hold/{TOTAL}"):
        assert kitchen.holds.wait(HANG)
        with asking(server, "/make/1"):
            wait_until(lambda: "/make/1" in kitchen.asked)
            server.stop()
    kitchen.goes_on.set()
    with kitchen.server() as server:
        check_all_is_back(server)


def test_what_is_larger_than_the_budget() -> None:
    limits = Limits(answer_bytes=None, total_bytes=TOTAL)
    limits.check_bytes(TOTAL)
    with pytest.raises(Exception, match="limit is 1000 B") as refused:
        limits.check_bytes(TOTAL + 1)
    assert refused.value.status == 413
    assert Limits(answer_bytes=None, total_bytes=None).most_bytes is None
    # Work may need more than its answer, as for a large chunk: then it has all of it.
    kitchen = Kitchen()
    with kitchen.server() as server:
        assert get(server, f"/fail/{2 * TOTAL}").status == 500
        assert get(server, f"/wait/{2 * TOTAL}").body == b"there"
        check_all_is_back(server)


def test_without_a_total_nobody_waits() -> None:
    kitchen = Kitchen(Limits(total_bytes=None))
    with kitchen.server() as server, asking(server, "/hold/1000000"):
        assert kitchen.holds.wait(HANG)
        assert get(server, "/make/1000000").status == 200
        kitchen.goes_on.set()


def test_bytes_are_given_in_order() -> None:
    async def run() -> None:
        shared, given = Budget(10), []

        async def one(name: str, nbytes: int) -> None:
            await shared.wait(nbytes)
            given.append(name)

        assert shared.take(6)
        tasks = [asyncio.ensure_future(one(*each)) for each in (("a", 5), ("b", 9), ("c", 1))]
        await asyncio.sleep(0)
        assert not shared.take(1)  # others wait for what is free
        shared.give(1)
        await tasks[0]
        assert given == ["a"]
        tasks[1].cancel()
        shared.give(5)
        await tasks[2]
        assert given == ["a", "c"]
        shared.give(5 + 1)
        assert shared.take(10)

    asyncio.run(run())


def test_a_place_that_is_given_up_as_it_is_reached() -> None:
    async def run() -> None:
        shared = Budget(10)
        assert shared.take(10)
        waiting = asyncio.ensure_future(shared.wait(10))
        await asyncio.sleep(0)
        shared.give(10)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert shared.take(10)

    asyncio.run(run())


def test_a_share_grows_and_is_given_back_once() -> None:
    shared = Budget(10)
    share, other = Share(shared), Share(shared)
    with share.at_least(4), share.at_least(3), other.at_least(2):
        with share.at_least(8):
            assert not shared.take(1)
        with pytest.raises(Crowded) as crowded, share.at_least(9):
            raise AssertionError
        assert crowded.value.nbytes == 9
        share.leave()
        assert not shared.take(1)
    assert shared.take(8)
    other.leave()
    assert shared.take(2)
    assert not shared.take(1)
