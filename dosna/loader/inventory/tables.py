"""The tables of an inventory, the states of its files, and the clock of its database."""

from __future__ import annotations

from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

__all__ = [
    "DIFFERENT",
    "DONE",
    "FAILED",
    "NOT_YET",
    "PENDING",
    "RUNNING",
    "Phase",
    "files",
    "metadata",
    "now",
    "places",
]

Phase = Literal["load", "diff"]

PENDING, RUNNING, DONE, FAILED, DIFFERENT = "pending", "running", "done", "failed", "different"
NOT_YET = "not yet"
"""The verification state of a file that is not loaded."""

metadata = sa.MetaData()
_id = sa.BigInteger().with_variant(sa.Integer, "sqlite")
files = sa.Table(
    "dosna_files",
    metadata,
    sa.Column("id", _id, primary_key=True),
    sa.Column("key", sa.Text, nullable=False, unique=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("etag", sa.Text, nullable=False),
    sa.Column("claim", sa.Text, index=True),
    sa.Column("lease_until", sa.Double),
    sa.Column("not_before", sa.Double, nullable=False),
    sa.Column("loads", sa.Integer, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    *(
        column
        for phase in ("load", "diff")
        for column in (
            sa.Column(f"{phase}_status", sa.Text, nullable=False),
            sa.Column(f"{phase}_attempts", sa.Integer, nullable=False),
            sa.Column(f"{phase}_worker", sa.Text),
            sa.Column(f"{phase}_start", sa.Double),
            sa.Column(f"{phase}_finish", sa.Double),
        )
    ),
)
for _phase in ("load", "diff"):
    sa.Index(
        f"dosna_files_{_phase}",
        files.c[f"{_phase}_status"],
        files.c[f"{_phase}_attempts"],
        files.c.id,
    )
places = sa.Table(
    "dosna_loader",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)


class now(FunctionElement[float]):
    """An SQL expression for the database's time, in seconds since 1970."""

    type = sa.Double()
    inherit_cache = True


@compiles(now, "sqlite")
def _(element: Any, compiler: Any, **options: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now, "postgresql")
def _(element: Any, compiler: Any, **options: Any) -> str:
    return "extract(epoch from clock_timestamp())::double precision"
