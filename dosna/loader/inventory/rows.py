"""Rows of an inventory, and counts of them, as values."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Claim", "Counts", "Row"]


@dataclass(frozen=True)
class Claim:
    """A file that a worker has taken.

    Parameters
    ----------
    token : str
        A token that only this claim has.
    key, size, etag
        The key, size and ETag of the file, as it was listed.
    attempts : int
        The number of times that the file was taken, including this one, since it was new or
        was reset.
    loads : int
        The number of times that the file was loaded to its end before.
    """

    token: str
    key: str
    size: int
    etag: str
    attempts: int
    loads: int


@dataclass(frozen=True)
class Row:
    """The inventory's row of a file; times are in seconds since 1970, by the database's clock."""

    key: str
    size: int
    etag: str
    loads: int
    message: str
    load_status: str
    load_attempts: int
    load_worker: str | None
    load_start: float | None
    load_finish: float | None
    diff_status: str
    diff_attempts: int
    diff_worker: str | None
    diff_start: float | None
    diff_finish: float | None


@dataclass(frozen=True)
class Counts:
    """The numbers of files by state, and the rates of loading and verifying.

    Parameters
    ----------
    files, nbytes : int
        The number of files of the inventory, and their size in bytes.
    load, diff : dict of str to int
        The number of files by state of loading, and of verifying.
    rate, diff_rate : float
        The files per second that were loaded, or verified, in the last minute.
    nbytes_loaded : int
        The size of the loaded files in bytes.
    """

    files: int
    nbytes: int
    load: dict[str, int]
    diff: dict[str, int]
    rate: float
    diff_rate: float
    nbytes_loaded: int
