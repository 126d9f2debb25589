"""Places for tests, by the fields of their descriptions."""

from __future__ import annotations

import functools
import http.server
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from services import Ceph, Sshd

Fields = dict[str, Any]


def sftp(sshd: Sshd, folder: Path | str) -> Fields:
    """Give the fields of a folder of an SSH server."""
    options = {"known_hosts": sshd.known_hosts, "config": None, "keepalive_interval": 2}
    url = f"ssh://{sshd.user}@{sshd.host}:{sshd.port}{folder}"
    return {"service_url": url, "userkey": sshd.userkey, "options": options}


def bucket(gateway: Ceph, name: str) -> Fields:
    """Give the fields of a bucket of an S3 gateway."""
    keys = {"access_key_id": gateway.access_key, "secret_access_key": gateway.secret_key}
    return {"service_url": f"s3://{name}/pilot", "endpoint_url": gateway.endpoint_url, **keys}


@pytest.fixture(params=["file", "ssh", "s3"])
def fields(request: pytest.FixtureRequest, tmp_path: Path) -> Fields:
    """Give the fields of an empty place of each kind."""
    from support import require

    if request.param == "file":
        return {"service_url": f"file://{tmp_path}/store"}
    if request.param == "ssh":
        require("sshfs")
        return sftp(request.getfixturevalue("sshd"), tmp_path / "store")
    require("obstore")
    return bucket(request.getfixturevalue("gateway"), f"pilot-{os.urandom(6).hex()}")


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Give the URL of a web server, and its folder."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    folder = tmp_path / "web"
    folder.mkdir()
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", folder
        server.shutdown()
        thread.join()


@pytest.fixture
def make_files(tmp_path: Path) -> Callable[..., list[str]]:
    """Give a function that writes files, and gives their paths."""

    def make(**contents: bytes) -> list[str]:
        folder = tmp_path / "made"
        folder.mkdir(exist_ok=True)
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        return [str(folder / name) for name in contents]

    return make


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Any]:
    """Give a service for data, with a state of its own."""
    from support import HANG, require

    require("sqlalchemy")
    from dosna.pilot.data import PilotDataService
    from dosna.pilot.sessions import close_session

    service = PilotDataService(f"sqlite:///{tmp_path}/state.db")
    yield service
    service.wait(HANG)
    close_session(service._session)
