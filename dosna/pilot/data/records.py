"""The data units in the state: their files, their replicas, and the free space."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from dosna.core.sizes import format_size, parse_size
from dosna.errors import ConfigurationError, SourceNotFoundError, StorageError
from dosna.pilot.affinity import Input, Label, distance
from dosna.pilot.data.files import File
from dosna.pilot.handles import row_of
from dosna.pilot.session import Session
from dosna.pilot.states import State
from dosna.pilot.store import TABLES

__all__ = [
    "digest_of",
    "fields_of",
    "files_of",
    "id_of",
    "input_of",
    "label_of",
    "nearest",
    "request_for",
    "room_of",
]

MEGABYTE = 1 << 20


def id_of(url: str) -> str:
    """Return the id at the end of the URL of a data unit or a pilot data."""
    return url.rpartition(":")[2].rpartition("/")[2]


def label_of(description: Mapping[str, Any]) -> Label:
    """Return the affinity labels of a description."""
    return Label(
        description.get("affinity_datacenter_label") or "",
        description.get("affinity_machine_label") or "",
    )


def fields_of(session: Session, pilot_data: str) -> dict[str, Any]:
    """Return the fields of a pilot data, including its secrets, to open its place.

    Raises
    ------
    ConfigurationError
        It needs secrets that this process does not have.
    """
    row = row_of(session, "pilot_data", pilot_data)
    secrets = session.secrets_of(pilot_data)
    if missing := sorted({*row["details"].get("secrets", ())} - secrets.keys()):
        raise ConfigurationError(
            f"the {', '.join(missing)} of {row['description']['service_url']} are unknown, "
            "because they are never stored: call create_pilot again with its description"
        )
    return {**row["description"], **secrets}


def files_of(session: Session, data_unit: str) -> list[File]:
    """Return the files of a data unit, in the order of their names."""
    rows = session.store.rows("files", order="name", data_unit=data_unit)
    return [File.of({**row, **row["details"]}) for row in rows]


def note_files(
    session: Session,
    data_unit: str,
    files: Iterable[File],
    nbytes: Mapping[str, int] | None = None,
) -> None:
    """Record files of a data unit, replacing those with the same names.

    The sizes of arrays are given by the names of the files in which they are delivered.
    """
    rows = []
    for file in files:
        id = f"{data_unit}/{file.name}"
        row = {"id": id, "data_unit": data_unit, **vars(file), "state": str(State.Running)}
        del row["others"]
        url = row.pop("url")
        row["details"] = {"url": url, "nbytes": (nbytes or {}).get(file.name, 0)} if url else {}
        rows.append(row)
    # Together, so that a reader gets all of the old ones, or all of the new ones.
    session.store.write(rows={"files": rows})


def digest_of(files: Sequence[File]) -> str:
    """Return a digest of the files of a data unit."""
    listed = sorted((file.name, file.size, file.checksum) for file in files)
    return hashlib.sha256(repr(listed).encode()).hexdigest()[:16]


def room_of(session: Session, pilot_data: str, without: str = "") -> int | None:
    """Return the free space of a pilot data in bytes; None if it has no size.

    The data unit `without` is not counted. A size that is a number is in megabytes, as in the
    Pilot-API; a text may have another unit.
    """
    size = row_of(session, "pilot_data", pilot_data)["description"].get("size")
    if not size:
        return None
    most = parse_size(size) if isinstance(size, str) else int(size) * MEGABYTE
    files, replicas = TABLES["files"], TABLES["replicas"]
    query = (
        sa.select(sa.func.sum(files.c.size))
        .join(replicas, replicas.c.data_unit == files.c.data_unit)
        .where(replicas.c.pilot_data == pilot_data, replicas.c.data_unit != without)
        .where(replicas.c.state.in_([str(State.Running), str(State.Pending)]), files.c.size > 0)
    )
    return max(0, most - int(session.store.ask(query)[0][0] or 0))


def require_room(session: Session, pilot_data: str, data_unit: str, nbytes: int) -> None:
    """Raise an error if a pilot data has no room for a data unit of a size."""
    room = room_of(session, pilot_data, data_unit)
    if room is not None and nbytes > room:
        raise StorageError(
            f"{pilot_data} has room for {format_size(room)}, but needs {format_size(nbytes)}: "
            "give it a larger size, or remove data units"
        )


def replicas_of(session: Session, data_unit: str) -> list[dict[str, Any]]:
    """Return the replicas of a data unit that are complete, the oldest first.

    Outputs go to the oldest; another one counts only as long as it has the same files.
    """
    files = digest_of(files_of(session, data_unit))
    rows = list(session.store.rows("replicas", data_unit=data_unit, state=str(State.Running)))
    return [one for n, one in enumerate(rows) if not n or one["details"].get("files") == files]


def input_of(session: Session, data_unit: str) -> Input:
    """Return a data unit as an input of placement: its size, and the labels of its replicas.

    Arrays have the labels of the data unit itself.
    """
    rows = list(session.store.rows("files", data_unit=data_unit))
    nbytes = sum(max(0, row["size"]) + row["details"].get("nbytes", 0) for row in rows)
    own = label_of(row_of(session, "data_units", data_unit)["description"])
    if rows and all(row["details"].get("url") for row in rows):
        return Input(data_unit, nbytes, (own,) if own != Label() else ())
    places = [one["pilot_data"] for one in replicas_of(session, data_unit)]
    rows = list(session.store.rows("pilot_data", id=places))
    return Input(data_unit, nbytes, tuple(label_of(row["description"]) for row in rows))


def nearest(session: Session, data_unit: str, label: Label) -> str | None:
    """Return the pilot data with a complete replica whose label is nearest to a label."""
    found = [
        (distance(label_of(place["description"]), label), number, place["id"])
        for number, replica in enumerate(replicas_of(session, data_unit))
        if (place := session.store.get("pilot_data", replica["pilot_data"])) is not None
    ]
    return min(found)[2] if found else None


def request_for(
    session: Session,
    data_unit: str,
    patterns: Iterable[str] | None,
    place: str | None = None,
    *,
    near: Label | None = None,
    output: bool = False,
) -> dict[str, Any]:
    """Return the request to stage a data unit in or out; see `dosna.pilot.data.staging`.

    Parameters
    ----------
    session : Session
        The session of the data unit.
    data_unit : str
        Its id.
    patterns : iterable of str or None
        The names and patterns of the files.
    place : str, optional
        The id of the pilot data; by default the nearest replica, or for outputs the oldest.
    near : Label, optional
        The labels of the place to which it is staged.
    output : bool
        True for a request of `stage_out`.

    Raises
    ------
    SourceNotFoundError
        There is no such data unit, or no place has it.
    ConfigurationError
        The credentials of the place are unknown.
    """
    row_of(session, "data_units", data_unit)
    files = files_of(session, data_unit)
    if place is None and (output or near is None):
        replicas = replicas_of(session, data_unit)
        place = replicas[0]["pilot_data"] if replicas else None
    elif place is None and near is not None:
        place = nearest(session, data_unit, near)
    if place is None and (output or not all(file.url for file in files)):
        raise SourceNotFoundError(
            f"no pilot data has the data unit {data_unit}: submit it to one, and wait for it"
        )
    request: dict[str, Any] = {
        "data_unit": data_unit,
        "place": fields_of(session, place) if place is not None else {},
        "files": [file.to_json() for file in files],
        "patterns": None if patterns is None else list(patterns),
    }
    if output and place is not None:
        request["room"] = room_of(session, place)
    return request
