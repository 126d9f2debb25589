"""The part of a connection that a server shows: everything at or below one name."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from dosna.array.connection import EngineConnection
from dosna.array.dataset import EngineDataset
from dosna.core.names import Children, check_name
from dosna.errors import (
    ChunkError,
    ConfigurationError,
    DatasetError,
    DatasetNameError,
    DatasetNotFoundError,
)
from dosna.io.cache import Cache
from dosna.web import Limits, Refusal

__all__ = ["MOST_PARTS", "Served"]

T = TypeVar("T")

MOST_PARTS = 64
"""Parts that a name may have: each may cost a request to a store."""

_MOST_HANDLES = 1000
_FRESH_SECONDS = 5.0


class Served:
    """The part of a connection that a server shows. All names are those of the connection.

    Parameters
    ----------
    con : Connection
        The open connection.
    below : str
        The name of the dataset or group to show; '' for all.
    limits : Limits, optional
        The limits of answers.

    Attributes
    ----------
    con : Connection
        The connection. Routes use it only with names that `check` has returned.
    below : str
        The name of the group or dataset that is shown.
    limits : Limits
        The limits of answers.
    """

    def __init__(
        self, con: EngineConnection, below: str = "", limits: Limits | None = None
    ) -> None:
        con.check_connected()
        self.con = con
        self.below = check_name(below) if below else ""
        self.limits = limits or Limits()
        # By name: the time when it was opened, and the handle.
        self._handles: Cache[tuple[float, EngineDataset]] = Cache(_MOST_HANDLES)

    def check(self, name: str) -> str:
        """Return a name from a request if it is legal and shown, before it reaches a store.

        Parameters
        ----------
        name : str
            The decoded name of a dataset or a group; '' is the outermost group.

        Raises
        ------
        Refusal
            The name is not legal (400), or is outside of what is shown (404).
        """
        if not name:
            return name
        try:
            check_name(name)
        except DatasetNameError:
            raise Refusal(
                400, "this is not a legal name", "use parts joined by '/', such as entry/data"
            ) from None
        if name.count("/") >= MOST_PARTS:
            raise Refusal(400, f"a name has at most {MOST_PARTS} parts")
        if not self.is_inside(name) and not self._is_above(name):
            raise Refusal(404, f"there is no {name!r} here")
        return name

    def dataset(self, name: str, *, fresh: bool = False) -> EngineDataset:
        """Return a dataset, whose handle is kept for a few seconds.

        Parameters
        ----------
        name : str
            The name from the request.
        fresh : bool
            Whether to reopen it, as for a description of it.

        Raises
        ------
        Refusal
            There is no such dataset (404), or the name is not legal (400).
        """
        checked = self.check(name)
        now = time.monotonic()
        kept = self._handles.find(checked)
        if not fresh and kept is not None and now - kept[0] < _FRESH_SECONDS:
            return kept[1]
        try:
            if not checked or self._is_above(checked):
                raise DatasetNotFoundError(checked)
            found = self.con.get_dataset(checked)
        except DatasetNotFoundError:
            self._handles.drop(checked)
            raise Refusal(404, f"there is no dataset {name!r}") from None
        self._handles.put(checked, (now, found))
        return found

    def keeps(self, name: str, dataset: EngineDataset) -> bool:
        """Return True if `dataset` would return this handle, without a request to the store.

        Parameters
        ----------
        name : str
            The name from the request.
        dataset : Dataset
            The handle.
        """
        kept = self._handles.peek(name)
        return (
            kept is not None and kept[1] is dataset and time.monotonic() - kept[0] < _FRESH_SECONDS
        )

    def is_open(self, name: str) -> bool:
        """Return True if the handle of a dataset is kept, however old it is."""
        return self._handles.peek(name) is not None

    def read(self, name: str, work: Callable[[EngineDataset], T]) -> T:
        """Return the result of a function of a dataset, which is reopened if its handle is stale.

        Parameters
        ----------
        name : str
            The name from the request.
        work : callable
            The function of the dataset. It is called a second time if the dataset was deleted,
            replaced or made smaller since it was opened.
        """
        try:
            return work(self.dataset(name))
        except (DatasetError, ChunkError):
            return work(self.dataset(name, fresh=True))

    def is_group(self, name: str) -> bool:
        """Return True if a name is that of a group, with members or attributes."""
        checked = self.check(name)
        if not checked or self._is_above(checked):
            return True
        return any(self.con.children(checked)) or bool(self.attrs_of_group(checked))

    def children(self, group: str) -> Children:
        """Return the shown members of a group.

        Parameters
        ----------
        group : str
            The name from the request.
        """
        checked = self.check(group)
        if not self._is_above(checked):
            return self.con.children(checked)
        inner = self.below[len(checked) + 1 if checked else 0 :].partition("/")[0]
        name = f"{checked}/{inner}" if checked else inner
        if name == self.below and self.con.has_dataset(name):
            return Children([], [name])
        return Children([name], [])

    def names_in(self, group: str) -> list[str]:
        """Return the names of all shown datasets in a group.

        Parameters
        ----------
        group : str
            The name from the request.
        """
        checked = self.check(group)
        if not self._is_above(checked):
            return self.con.names_in(checked)
        if self.con.has_dataset(self.below):
            return [self.below]
        return self.con.names_in(self.below)

    def attrs_of_group(self, group: str) -> dict[str, Any]:
        """Return the attributes of a group; none above what is shown, or if the backend has none.

        Parameters
        ----------
        group : str
            The name from the request.
        """
        checked = self.check(group)
        if self._is_above(checked):
            return {}
        try:
            return self.con.get_group_attrs(checked)
        except ConfigurationError:
            return {}

    def is_inside(self, name: str) -> bool:
        """Return True if what has a name is shown: it is not above or beside `below`."""
        return not self.below or name == self.below or name.startswith(self.below + "/")

    def _is_above(self, name: str) -> bool:
        """Return True for a group above what is shown."""
        return bool(self.below) and (not name or self.below.startswith(name + "/"))
