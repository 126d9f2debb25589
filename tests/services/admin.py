"""What an administrator of a test's Ceph cluster does."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rados

from services import Ceph


@contextmanager
def administrator(ceph: Ceph) -> Iterator[Any]:
    """Give a connection of Ceph's own administrator."""
    with rados.Rados(conffile=ceph.conf) as cluster:
        yield cluster


def command(ceph: Ceph, prefix: str, **arguments: Any) -> Any:
    """Send the monitor a command, and give its answer."""
    with administrator(ceph) as cluster:
        return send(cluster, prefix, **arguments)


def send(cluster: Any, prefix: str, **arguments: Any) -> Any:
    """Send a command as the administrator whose connection it is."""
    message = json.dumps({"prefix": prefix, "format": "json", **arguments})
    status, out, error = cluster.mon_command(message, b"", timeout=200)
    assert status == 0, error
    return json.loads(out) if out.strip() else None


def add_clients(ceph: Ceph, clients: Mapping[str, str]) -> None:
    """Make clients that may do on OSDs what is said of each, and put their keys in the keyring."""
    for name, may in clients.items():
        entity, caps = f"client.{name}", ["mon", "allow r", "osd", may]
        made = command(ceph, "auth get-or-create", entity=entity, caps=caps)
        with Path(ceph.folder, "keyring").open("a") as file:
            file.write(f"[{entity}]\n\tkey = {made[0]['key']}\n")
