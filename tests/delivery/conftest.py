"""A delivery service on a free port, and files of events that it serves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import require

FILES = 4


@pytest.fixture(scope="session")
def events(tmp_path_factory: Any) -> Path:
    """Write files of events into a folder, and give it."""
    ak, uproot = require("awkward"), require("uproot")
    folder, rng = tmp_path_factory.mktemp("served"), np.random.default_rng(3)
    for number in range(FILES):
        count = 90 + 10 * number
        muons = rng.integers(0, 4, count)
        with uproot.recreate(folder / f"events_{number}.root") as file:
            file.mktree(
                "Events",
                {
                    "run": np.arange(count, dtype="i4") + 1000 * number,
                    "nHit": rng.integers(0, 200, count).astype("u2"),
                    "met": rng.random(count),
                    "Muon_pt": ak.unflatten(rng.random(muons.sum(), dtype="f4"), muons),
                },
            )
            if number > 1:
                file.mktree("Runs", {"number": np.array([number], "i8")})
    return folder


@pytest.fixture(scope="session")
def paths(events: Path) -> list[str]:
    return [str(events / f"events_{number}.root") for number in range(FILES)]


@pytest.fixture
def serve(tmp_path: Path, events: Path) -> Iterator[Callable[..., Any]]:
    """Give a function that starts a service in this process, and gives its server."""
    require("fastapi")
    require("sqlalchemy")
    from dosna.delivery import Service, Settings
    from dosna.delivery.front import open_server

    with ExitStack() as stack:

        def start(transform: Any = None, **settings: Any) -> Any:
            given = {"roots": (str(events),), "state": str(tmp_path / "state"), "port": 0}
            service = Service(Settings(**(given | {"workers": 2} | settings)), transform)
            stack.enter_context(service)
            server = stack.enter_context(open_server(service))
            server.service = service
            return server

        yield start
