"""The tables of the service. Times are seconds since 1970; those of results, microseconds."""

from __future__ import annotations

import sqlalchemy as sa

__all__ = [
    "ENDED",
    "FAILURE",
    "LOOKUP",
    "PENDING",
    "RUNNING",
    "SUCCESS",
    "dataset_files",
    "datasets",
    "files",
    "metadata",
    "requests",
    "users",
]

LOOKUP, RUNNING = "Lookup", "Running"
"""The states of a request before its end: before its files are known, and after."""
ENDED = ("Complete", "Fatal", "Canceled", "Bad Dataset")
PENDING, SUCCESS, FAILURE = "pending", "success", "failure"
"""The states of a file."""

metadata = sa.MetaData()
_id = sa.BigInteger().with_variant(sa.Integer, "sqlite")

users = sa.Table(
    "dosna_delivery_users",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("token", sa.Text, nullable=False),
    sa.Column("created", sa.Double, nullable=False),
)

requests = sa.Table(
    "dosna_delivery_requests",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("owner", sa.Text, nullable=False, index=True),
    sa.Column("answered", sa.Boolean, nullable=False),
    sa.Column("title", sa.Text),
    sa.Column("did", sa.Text, nullable=False),
    sa.Column("given", sa.Text),
    sa.Column("dataset", sa.BigInteger, nullable=False),
    sa.Column("selection", sa.Text, nullable=False),
    sa.Column("codegen", sa.Text, nullable=False),
    sa.Column("format", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False, index=True),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("files", sa.Integer, nullable=False),
    sa.Column("completed", sa.Integer, nullable=False),
    sa.Column("failed", sa.Integer, nullable=False),
    sa.Column("nbytes", sa.BigInteger, nullable=False),
    sa.Column("entries", sa.BigInteger, nullable=False),
    sa.Column("submitted", sa.Double, nullable=False),
    sa.Column("finished", sa.Double),
    sa.Column("newest", sa.BigInteger, nullable=False),
    sa.Column("access_key", sa.Text, nullable=False),
    sa.Column("secret_key", sa.Text, nullable=False),
    sa.Column("destination", sa.Text),
)

files = sa.Table(
    "dosna_delivery_files",
    metadata,
    sa.Column("request", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("object", sa.Text),
    sa.Column("nbytes", sa.BigInteger, nullable=False, default=0),
    sa.Column("entries", sa.BigInteger, nullable=False, default=0),
    sa.Column("seconds", sa.Double, nullable=False, default=0.0),
    sa.Column("message", sa.Text, nullable=False, default=""),
    sa.Column("log", sa.Text, nullable=False, default=""),
    sa.Column("created", sa.BigInteger),
    sa.Index("dosna_delivery_results", "request", "created"),
)

datasets = sa.Table(
    "dosna_delivery_datasets",
    metadata,
    sa.Column("id", _id, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("finder", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("stale", sa.Boolean, nullable=False),
    sa.Column("files", sa.Integer, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("events", sa.BigInteger, nullable=False),
    sa.Column("used", sa.Double, nullable=False),
    sa.Column("updated", sa.Double, nullable=False),
)

dataset_files = sa.Table(
    "dosna_delivery_dataset_files",
    metadata,
    sa.Column("dataset", sa.BigInteger, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("events", sa.BigInteger, nullable=False),
)
