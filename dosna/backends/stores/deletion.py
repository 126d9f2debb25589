"""Deletion of a dataset from a store of bytes, object by object.

Readers must not see chunks vanish one by one as fill, and a dataset that is created again must
not lose its chunks to the deletion. So a mark replaces the dataset's document first, and is
itself removed last. The deleting process renews the mark. A process that finds a mark whose
process is dead finishes the deletion.
"""

from __future__ import annotations

import json
import os
import secrets
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any

from dosna.backends.stores.store import Blob, Store
from dosna.errors import StorageError
from dosna.io.processes import describe, has_ended, machine

__all__ = ["DELETED", "Deletion"]

DELETED = "dosna.deleted"
"""Value of ``node_type`` in a mark."""

_SILENT = 2.0
"""Seconds to wait before a warning is given."""

_under_way: set[str] = set()
"""Tokens of the deletions that this process is carrying out."""


class Deletion:
    """The deletion of one dataset, by this process or by another.

    Parameters
    ----------
    store : Store
        The store that holds the dataset.
    document : str
        The key of the dataset's document.
    what : str
        The name of the dataset in error messages.
    lease : float
        The seconds without a sign of life after which a deleting process is taken for dead. No
        request is started later than a quarter of it after a sign of life.
    settle : float
        The seconds that the store may take to carry out what a process requested before it died.
    keys : callable
        A function that returns the keys of all objects that the dataset has, or may have.
    forget : callable
        A function that is called when only the mark is left of the dataset.
    """

    def __init__(
        self,
        store: Store,
        document: str,
        what: str,
        lease: float,
        settle: float,
        *,
        keys: Callable[[], Iterable[str]],
        forget: Callable[[], object],
    ) -> None:
        self._store, self._document, self._what = store, document, what
        self._lease, self._settle = lease, settle
        self._keys, self._forget = keys, forget
        self._token = secrets.token_hex(8)

    def run(self, version: str) -> None:
        """Delete the dataset if its document is still of this version.

        Raises
        ------
        VersionConflict
            The document is of another version, and nothing was deleted.
        """
        _under_way.add(self._token)
        try:
            self._run(version)
        finally:
            _under_way.discard(self._token)

    def _run(self, version: str) -> None:
        renewed = time.monotonic()
        self._put(version)
        try:
            for page in self._pages(self._keys()):
                if time.monotonic() - renewed > self._lease / 8:
                    renewed = time.monotonic()
                    self._renew()
                self._store.delete_many(page, until=renewed + self._lease / 4)
            renewed = time.monotonic()
            self._renew()
            self._forget()
            self._store.delete_many([self._document], until=renewed + self._lease / 4)
        except BaseException:
            with suppress(Exception):  # so that no other process has to wait for this one
                self._renew(abandoned=True)
            raise

    def _pages(self, keys: Iterable[str]) -> Iterator[list[str]]:
        others = (key for key in keys if key != self._document)
        while page := list(islice(others, self._store.deletes_at_once)):
            yield page

    def _put(self, version: str, abandoned: bool = False) -> None:
        mark = {
            "zarr_format": 3,
            "node_type": DELETED,
            "token": self._token,
            "process": describe(os.getpid()),
            "abandoned": abandoned,
            "sign_of_life": secrets.token_hex(8),
        }
        self._store.put(self._document, json.dumps(mark).encode(), version)

    def _renew(self, abandoned: bool = False) -> None:
        found = self._store.get(self._document)
        if found is None or _read(found).get("token") != self._token:
            raise StorageError(
                f"{self._what} was deleted by another process, because this one gave no sign of "
                f"life for {self._lease:g} seconds"
            )
        self._put(found.version, abandoned)

    def outlived(self, found: Blob) -> bool:
        """Wait until the deletion that has left a mark has stopped.

        Return False if its process is alive.
        """
        mark, begin, warned = _read(found), time.monotonic(), False
        while True:
            ended = mark.get("abandoned") or _has_ended(mark)
            longest = min(self._settle, self._lease) if ended else self._lease
            waited = time.monotonic() - begin
            if waited >= longest:
                return True
            if waited > _SILENT and not ended and not warned:
                warned = True
                warnings.warn(
                    f"{self._what} is being deleted by {_named(mark)}, which gives no sign of "
                    f"life: waiting {longest:g} seconds for one before finishing its work",
                    stacklevel=2,
                )
            time.sleep(min(0.05, self._lease / 10))
            now = self._store.get(self._document)
            if now is None or now.version != found.version:
                if now is None:
                    return True
                changed = _read(now)
                return changed.get("token") != mark.get("token") or bool(changed.get("abandoned"))


def _read(found: Blob) -> dict[str, Any]:
    """Return the content of a mark; an empty dict if the document is not a JSON object."""
    try:
        mark = json.loads(bytes(found.data))
    except ValueError:
        return {}
    return mark if isinstance(mark, dict) else {}


def _process(mark: dict[str, Any]) -> dict[str, Any]:
    """Return the description of the process in a mark; an empty dict if it has none."""
    process = mark.get("process")
    return process if isinstance(process, dict) else {}


def _named(mark: dict[str, Any]) -> str:
    process = _process(mark)
    return f"process {process.get('pid')} on {process.get('host')}"


# -- processes of this machine ----------------------------------------------------------------


def _has_ended(mark: dict[str, Any]) -> bool:
    """Return True if the process of a deletion has ended. Other machines' are not known."""
    process = _process(mark)
    pid = process.get("pid")
    if process.get("machine") is None or process["machine"] != machine() or type(pid) is not int:
        return False
    if pid == os.getpid():
        return mark.get("token") not in _under_way
    return has_ended(pid, process.get("began", ""))
