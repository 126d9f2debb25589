"""The statements by which workers take files from an inventory, and give them back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from dosna.loader.inventory.tables import FAILED, PENDING, RUNNING, Phase, files, now

__all__ = ["end", "take"]

_c = files.c


def take(
    connection: sa.Connection,
    phase: Phase,
    token: str,
    worker: str,
    lease: float,
    max_attempts: int,
) -> Any:
    """Claim a file that waits, or else one of a worker that has died; return its row, or None.

    Files that have cost too many workers are marked as failed.
    """
    status, attempts = _c[f"{phase}_status"], _c[f"{phase}_attempts"]
    values = {
        status: RUNNING,
        attempts: attempts + 1,
        _c.claim: token,
        _c.lease_until: now() + lease,
        _c[f"{phase}_worker"]: worker,
        _c[f"{phase}_start"]: now(),
        _c[f"{phase}_finish"]: sa.null(),
    }
    found = _first(connection, attempts, values, status == PENDING, _c.not_before <= now())
    if found is None:
        dead = (status == RUNNING, _c.lease_until < now())
        message = (
            sa.literal("given up: ")
            + sa.cast(attempts, sa.Text)
            + " workers died or stalled at it, the last of them "
            + _c[f"{phase}_worker"]
        )
        connection.execute(
            files.update()
            .where(*dead, attempts >= max_attempts)
            .values({status: FAILED, _c.claim: sa.null(), _c.message: message})
        )
        found = _first(connection, attempts, values, *dead)
    return found


def _first(
    connection: sa.Connection, attempts: sa.ColumnElement[int], values: Any, *where: Any
) -> Any:
    """Change the first file that fulfils the conditions, those with the fewest attempts first."""
    first = (
        sa.select(_c.id)
        .where(*where)
        .order_by(attempts, _c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    return connection.execute(
        files.update()
        .where(_c.id == first)
        .values(values)
        .returning(_c.key, _c.size, _c.etag, attempts, _c.loads)
    ).first()


def end(connection: sa.Connection, token: str, values: Mapping[Any, Any]) -> bool:
    """Change the row of a claim, and end the claim; return False if it is lost."""
    done = connection.execute(
        files.update()
        .where(_c.claim == token)
        .values({**values, _c.claim: sa.null(), _c.lease_until: sa.null()})
    )
    return done.rowcount == 1
