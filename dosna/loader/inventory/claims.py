"""The statements by which workers take files from an inventory, and give them back.

Each is made once, with parameters: making one takes longer than SQLite takes to execute it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa

from dosna.loader.inventory.tables import (
    DONE,
    FAILED,
    NOT_YET,
    PENDING,
    RUNNING,
    Phase,
    files,
    now,
)

__all__ = ["Outcome", "end", "take_dead", "take_waiting"]

Outcome = Literal["loaded", "compared", "outdated", "failed", "released"]
"""The outcome of a claim."""

_c = files.c


class _Taking(NamedTuple):
    """The statements of `take_waiting` and `take_dead`."""

    waiting: sa.Executable
    give_up: sa.Executable
    dead: sa.Executable


@cache
def _taking(phase: Phase) -> _Taking:
    status, attempts = _c[f"{phase}_status"], _c[f"{phase}_attempts"]
    dead = (status == RUNNING, _c.lease_until < now())
    message = (
        sa.literal("given up: ")
        + sa.cast(attempts, sa.Text)
        + " workers died or stalled at it, the last of them "
        + _c[f"{phase}_worker"]
    )
    return _Taking(
        _first(phase, status == PENDING, _c.not_before <= now()),
        files.update()
        .where(*dead, attempts >= sa.bindparam("most", type_=sa.Integer))
        .values({status: FAILED, _c.claim: sa.null(), _c.message: message}),
        _first(phase, *dead),
    )


def _first(phase: Phase, *where: Any) -> sa.Executable:
    """Return what takes the first file that fulfils conditions, of those with fewest attempts."""
    attempts = _c[f"{phase}_attempts"]
    first = (
        sa.select(_c.id)
        .where(*where)
        .order_by(attempts, _c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    values = {
        _c[f"{phase}_status"]: RUNNING,
        attempts: attempts + 1,
        _c.claim: sa.bindparam("token", type_=sa.Text),
        _c.lease_until: now() + sa.bindparam("lease", type_=sa.Double),
        _c[f"{phase}_worker"]: sa.bindparam("by", type_=sa.Text),
        _c[f"{phase}_start"]: now(),
        _c[f"{phase}_finish"]: sa.null(),
    }
    found = (_c.key, _c.size, _c.etag, attempts, _c.loads)
    return files.update().where(_c.id == first).values(values).returning(*found)


def take_waiting(
    connection: sa.Connection, phase: Phase, token: str, worker: str, lease: float
) -> Any:
    """Claim a file that waits, by one statement; return its row, or None."""
    given = {"token": token, "lease": lease, "by": worker}
    found = connection.execute(_taking(phase).waiting, given).all()
    return found[0] if found else None


def take_dead(
    connection: sa.Connection,
    phase: Phase,
    token: str,
    worker: str,
    lease: float,
    max_attempts: int,
) -> Any:
    """Claim a file of a worker that has died; return its row, or None.

    Files that have cost too many workers are marked as failed, in the same transaction.
    """
    statements = _taking(phase)
    connection.execute(statements.give_up, {"most": max_attempts})
    return connection.execute(
        statements.dead, {"token": token, "lease": lease, "by": worker}
    ).first()


@cache
def _ending(outcome: Outcome, phase: Phase) -> sa.Executable:
    """Return the statement that ends a claim."""
    status, attempts, finish = (_c[f"{phase}_{x}"] for x in ("status", "attempts", "finish"))
    changed = attempts == 0  # as the watcher says of a file that changes while it is loaded
    text = sa.bindparam("text", type_=sa.Text)
    values: dict[Any, Any]
    if outcome == "loaded":
        etag = sa.bindparam("loaded_etag", type_=sa.Text)
        # The ETag listed meanwhile may be newer than the loaded one, or the same.
        current = sa.or_(_c.etag == sa.bindparam("claimed_etag", type_=sa.Text), _c.etag == etag)
        size = sa.bindparam("loaded_size", type_=sa.BigInteger)
        values = {
            status: sa.case((current, DONE), else_=PENDING),
            attempts: sa.case((current, attempts), else_=0),
            finish: now(),
            _c.loads: _c.loads + 1,
            _c.etag: sa.case((current, etag), else_=_c.etag),
            _c.size: sa.case((current, size), else_=_c.size),
            _c.diff_status: sa.case((current, PENDING), else_=NOT_YET),
            _c.diff_attempts: 0,
            _c.message: text,
        }
    elif outcome == "compared":
        state = sa.bindparam("state", type_=sa.Text)
        values = {status: state, finish: now(), _c.message: text}
    elif outcome == "outdated":
        values = {
            _c.load_status: PENDING,
            _c.load_attempts: 0,
            _c.diff_status: NOT_YET,
            _c.message: text,
        }
    elif outcome == "failed":
        pause = sa.bindparam("pause", type_=sa.Double)
        values = {
            status: sa.case((changed, PENDING), else_=sa.bindparam("state", type_=sa.Text)),
            finish: now(),
            _c.not_before: sa.case((changed, 0.0), else_=now() + pause),
            _c.message: text,
        }
    else:
        values = {status: PENDING, attempts: sa.case((changed, 0), else_=attempts - 1)}
    return (
        files.update()
        .where(_c.claim == sa.bindparam("token", type_=sa.Text))
        .values({**values, _c.claim: sa.null(), _c.lease_until: sa.null()})
    )


def end(
    connection: sa.Connection,
    outcome: Outcome,
    phase: Phase,
    token: str,
    values: Mapping[str, Any],
) -> bool:
    """Change the row of a claim, and end the claim; return False if it is lost."""
    done = connection.execute(_ending(outcome, phase), {"token": token, **values})
    return bool(done.rowcount == 1)
