"""Places that vanish, fill up, or do not answer during a transfer: an error, and nothing half."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from pilot.data.conftest import bucket, sftp
from support import require, require_program

from dosna.errors import DosnaError, SourceNotFoundError, StorageError
from dosna.pilot.data import stage_in, stage_out
from dosna.pilot.data.places import open_place

if TYPE_CHECKING:
    from services import Ceph, Sshd

SIZE = 64 << 20


def once(action: Callable[[], object]) -> Callable[[int, int], None]:
    """Give a callback of progress that does something when a part is done."""
    done: list[int] = []

    def tell(nbytes: int, total: int) -> None:
        if not done and nbytes > 1 << 20:
            done.append(nbytes)
            action()

    return tell


def visible(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file() and path.name[0] != "."]


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Give a folder with a file that takes a moment."""
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "big").write_bytes(os.urandom(SIZE))
    return tmp_path / "work"


def request(fields: dict[str, Any], *files: dict[str, Any]) -> dict[str, Any]:
    return {"data_unit": "du-1", "place": fields, "files": list(files), "patterns": ["big"]}


@pytest.mark.slow
@pytest.mark.parametrize("how", ["in", "out"])
def test_an_ssh_server_is_killed(
    how: str, start_sshd: Callable[..., AbstractContextManager[Sshd]], work: Path, tmp_path: Path
) -> None:
    require("sshfs")
    with start_sshd() as sshd:
        fields = sftp(sshd, tmp_path / "store")

        def kill() -> None:
            daemon = psutil.Process(sshd.pids["sshd"])
            for process in [*daemon.children(recursive=True), daemon]:
                process.kill()

        if how == "out":
            with pytest.raises(DosnaError, match="failed"):
                stage_out(request(fields), str(work), once(kill))
            assert visible(tmp_path / "store") == []
        else:
            found = stage_out(request(fields), str(work))
            with pytest.raises(DosnaError, match="failed"):
                stage_in(request(fields, *found), str(tmp_path / "back"), once(kill))
            assert list((tmp_path / "back").iterdir()) == []


@pytest.mark.fault
def test_an_ssh_server_that_hangs_is_given_up(
    start_sshd: Callable[..., AbstractContextManager[Sshd]], work: Path, tmp_path: Path
) -> None:
    require("sshfs")
    with start_sshd() as sshd:
        fields = sftp(sshd, tmp_path / "store")
        stopped: list[psutil.Process] = []

        def stop() -> None:
            daemon = psutil.Process(sshd.pids["sshd"])
            stopped.extend([*daemon.children(recursive=True), daemon])
            for process in stopped:
                process.suspend()

        try:
            with pytest.raises(DosnaError, match="failed"):
                stage_out(request(fields), str(work), once(stop))
        finally:
            for process in stopped:
                process.resume()
        assert visible(tmp_path / "store") == []


@pytest.mark.fault
@pytest.mark.parametrize("how", ["in", "out"])
def test_an_s3_gateway_dies(how: str, work: Path, tmp_path: Path) -> None:
    require("obstore")
    for program in ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin"):
        require_program(program)
    from services import start_ceph

    with start_ceph("--gateway") as ceph:
        fields = {**bucket(ceph, "vanishing"), "options": {"retries": 1, "timeout": 20.0}}
        if how == "in":
            found = stage_out(request(fields), str(work))
            kill = once(lambda: ceph.kill("rgw"))
            with pytest.raises(DosnaError, match=r"reached|broke"):
                stage_in(request(fields, *found), str(tmp_path / "back"), kill)
            assert list((tmp_path / "back").iterdir()) == []
            ceph.start("rgw")
            stage_in(request(fields, *found), str(tmp_path / "back"))
            assert visible(tmp_path / "back") == ["big"]
            return
        with open_place(fields) as place:
            place.check()
        with pytest.raises(DosnaError, match=r"reached|broke"):
            stage_out(request(fields), str(work), once(lambda: ceph.kill("rgw")))
        ceph.start("rgw")
        with open_place(fields) as place:
            with pytest.raises(SourceNotFoundError):
                place.size("du-1/big")
            place.remove("du-1")


@pytest.mark.slow
def test_a_full_disk_of_a_place(small_disk: Path, work: Path, sshd: Sshd) -> None:
    require("sshfs")
    for fields in (sftp(sshd, small_disk), {"service_url": f"file://{small_disk}"}):
        with pytest.raises(StorageError, match=r"full|No space"):
            stage_out(request(fields), str(work))
        assert [path for path in small_disk.rglob("*") if path.is_file()] == []


@pytest.mark.slow
def test_a_full_working_directory(
    small_disk: Path, work: Path, tmp_path: Path, sshd: Sshd, gateway: Ceph
) -> None:
    require("sshfs")
    name = f"pilot-{os.urandom(6).hex()}"
    for fields in (sftp(sshd, tmp_path / "store"), bucket(gateway, name)):
        found = stage_out(request(fields), str(work))
        with pytest.raises(StorageError, match="do not fit"):
            stage_in(request(fields, *found), str(small_disk))
        # As if the sizes were not known.
        unknown = [{"name": one["name"]} for one in found]
        with pytest.raises(StorageError, match=r"[Nn]o (space|room)"):
            stage_in(request(fields, *unknown), str(small_disk))
        assert list(small_disk.iterdir()) == []
