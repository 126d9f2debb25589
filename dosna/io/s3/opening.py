"""Opening a client of S3, whose libraries are imported when they are first needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dosna.io.s3.options import S3Options
from dosna.registry import needing

if TYPE_CHECKING:
    from dosna.io.s3.client import S3Client

__all__ = ["open_client"]


def open_client(options: S3Options, what: str) -> S3Client:
    """Return a new client of a server. `what` names the object to read in errors.

    Raises
    ------
    MissingDependencyError
        A package that S3 needs is not installed.
    """
    with needing(f"reading {what} needs", "s3"):
        from dosna.io.s3.client import S3Client
    return S3Client(options)
