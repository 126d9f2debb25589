"""The groups and datasets of a connection, as clients of h5grove see them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from dosna.core.stopping import current
from dosna.errors import ChunkError, DatasetError, DosnaError
from dosna.serve.h5grove.attributes import described, values_of
from dosna.serve.h5grove.lines import Line, LinePoints, Shortened, is_long, split_path
from dosna.serve.h5grove.values import type_of
from dosna.serve.served import Served
from dosna.web import Refusal

if TYPE_CHECKING:
    from dosna.array.dataset import EngineDataset

__all__ = ["Entities"]

T = TypeVar("T")

_MOST_CHILDREN = 20_000
_MOST_PATHS = 200_000
_AT_ONCE = 16
"""The datasets of a group that are opened at the same time."""


class Entities:
    """The served entities, by path.

    Parameters
    ----------
    served : Served
        The datasets that are served.
    """

    def __init__(self, served: Served) -> None:
        self.served = served

    def find(self, path: str, short: bool = False, *, fresh: bool = False) -> Any:
        """Return the entity at a path.

        Parameters
        ----------
        path : str
            The path, such as ``/entry/data``.
        short : bool
            Whether long lines are reduced to fewer points.
        fresh : bool
            Whether to reopen a dataset.

        Returns
        -------
        EngineDataset, Shortened, LinePoints, Line or str
            A dataset; points that replace one; a line shown as a group; or the name of a group.

        Raises
        ------
        Refusal
            There is no entity at this path.
        """
        found = self._dataset(path, short, fresh)
        if found is None:
            name = path.strip("/")
            if not self.served.is_group(name):
                raise _invalid(path)
            return name
        return found

    def read(self, path: str, short: bool, work: Callable[[Any], T]) -> T:
        """Return the result of a function of a dataset, or of the points that replace it.

        It is called a second time if the dataset was changed since it was opened.
        """
        try:
            return work(self._readable(path, short))
        except (DatasetError, ChunkError):
            return work(self._readable(path, short, fresh=True))

    def _readable(self, path: str, short: bool, *, fresh: bool = False) -> Any:
        found = self.find(path, short, fresh=fresh)
        if isinstance(found, (str, Line)):
            raise Refusal(422, f"{path} is not a dataset")
        return found

    def meta(self, path: str, short: bool = False) -> dict[str, Any]:
        """Return the description of an entity, and of the children of a group."""
        group, name = path.strip("/"), path.rstrip("/").rpartition("/")[2]
        found = self._dataset(path, short, fresh=True)
        if isinstance(found, Line):
            return found.meta(name, children=True)
        if found is not None:
            return _described(found, name)
        described_group = self._group(group, name)
        children = self._described_children(group, short)
        if not children and group and not described_group["attributes"]:
            raise _invalid(path)
        return {**described_group, "children": children}

    def attributes(
        self, path: str, names: Sequence[str] | None, short: bool = False
    ) -> dict[str, Any]:
        """Return the values of the attributes of an entity."""
        found = self.find(path, short)
        attrs: Mapping[str, Any]
        if isinstance(found, str):
            attrs = self.served.attrs_of_group(found)
        elif isinstance(found, (Line, LinePoints, Shortened)):
            attrs = found.attrs()
        else:
            attrs = found.attrs
        missing = sorted(set(names or ()) - set(attrs))
        if missing:
            raise Refusal(404, f"{path} has no attribute {missing[0]!r}")
        return values_of(attrs, names)

    def paths(self, path: str) -> list[str]:
        """Return the paths of a group and of everything below it."""
        found = self.find(path)
        if not isinstance(found, str):
            raise Refusal(422, f"{path} is not a group")
        names = self.served.names_in(found)
        if len(names) > _MOST_PATHS:
            raise Refusal(413, f"{len(names)} datasets are too many", "search in a smaller group")
        top = f"{found}/" if found else ""
        every: set[str] = set()
        for name in names:
            parts = name[len(top) :].split("/")
            every.update(top + "/".join(parts[:n]) for n in range(1, len(parts) + 1))
        return ["/" + found, *(f"/{name}" for name in sorted(every))]

    def _dataset(self, path: str, short: bool, fresh: bool) -> Any:
        """Return the dataset at a path, or its replacement; None for a group."""
        name = path.strip("/")
        if not name:
            return None
        try:
            return self._shown(self.served.dataset(name, fresh=fresh), short)
        except Refusal as refusal:
            if refusal.status == 400:
                raise _invalid(path) from None
            if refusal.status != 404:
                raise
        return self._of_line(name, fresh)

    def _shown(self, dataset: EngineDataset, short: bool) -> Any:
        if not short or not is_long(dataset):
            return dataset
        group = self.served.attrs_of_group(dataset.name.rpartition("/")[0])
        line = Line.of(dataset)
        return Shortened(line) if group.get("NX_class") == "NXdata" else line

    def _of_line(self, name: str, fresh: bool) -> Line | LinePoints | None:
        """Return a part of a long line, or its points."""
        parts = split_path(name)
        if parts is None:
            return None
        try:
            dataset = self.served.dataset(parts[0], fresh=fresh)
        except Refusal:
            return None
        if not is_long(dataset):
            return None
        line = Line.of(dataset, parts[1])
        return line if parts[2] is None else LinePoints(line, parts[2])

    def _group(self, group: str, name: str) -> dict[str, Any]:
        attributes = described(self.served.attrs_of_group(group))
        return {"name": name, "kind": "group", "attributes": attributes}

    def _described_children(self, group: str, short: bool) -> list[dict[str, Any]]:
        groups, datasets = self.served.children(group)
        every = sorted([(name, True) for name in groups] + [(name, False) for name in datasets])
        if len(every) > _MOST_CHILDREN:
            raise Refusal(413, f"{len(every)} members of a group are too many to show")

        stop = current.get()  # in this thread, and not in those below

        def described_child(child: tuple[str, bool]) -> dict[str, Any]:
            if stop is not None:
                stop.check()
            full, is_group = child
            name = full.rpartition("/")[2]
            try:
                if is_group:
                    return self._group(full, name)
                found = self._shown(self.served.dataset(full, fresh=True), short)
                if isinstance(found, Line):
                    return found.meta(name, children=False)
                return _described(found, name)
            except DosnaError:
                return {"name": name, "kind": "unreadable"}  # which clients display

        if len(every) < 3:
            return [described_child(child) for child in every]
        with ThreadPoolExecutor(min(_AT_ONCE, len(every))) as pool:
            return list(pool.map(described_child, every))


def _described(found: Any, name: str) -> dict[str, Any]:
    """Return the description of a dataset, or of the points that replace it."""
    if isinstance(found, (LinePoints, Shortened)):
        return found.meta(name)
    return {
        "name": name,
        "kind": "dataset",
        "shape": found.shape,
        "type": type_of(found.dtype),
        "chunks": found.chunk_size if found.ndim and found.size else None,
        "filters": None,
        "attributes": described(found.attrs),
    }


def _invalid(path: str) -> Refusal:
    # The words by which H5Web recognises the error.
    return Refusal(404, f"{path} is not a valid path")
