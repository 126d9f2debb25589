"""Datasets that exist before an ingest: it continues, keeps or replaces them, or raises."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dosna.columns.description import Tree
from dosna.core.metadata import DatasetMetadata
from dosna.core.request import IngestRequest
from dosna.core.text import is_text
from dosna.errors import DatasetExistsError, DatasetNotFoundError, SourceChangedError
from dosna.ingest.planned import PlannedArray, State
from dosna.sources.base import Source
from dosna.sources.chunking import chosen_for

if TYPE_CHECKING:
    from dosna.array.connection import EngineConnection

__all__ = ["Existing"]


class Existing:
    """The datasets and trees that exist where a source is ingested.

    Parameters
    ----------
    con : Connection
    source : Source
    request : IngestRequest
    """

    def __init__(self, con: EngineConnection, source: Source, request: IngestRequest) -> None:
        self.con, self.source, self.request = con, source, request
        self._trees: dict[str, Tree | None] = {}

    def state(self, array: PlannedArray, absent: bool = False) -> State:
        """Return the state of the dataset that an array becomes.

        Parameters
        ----------
        array : PlannedArray
        absent : bool
            True if there is known to be none.

        Raises
        ------
        DatasetExistsError
            The dataset is not from this array, or differs from what was asked for.
        SourceChangedError
            The dataset, or the tree around it, is from another state of the source.
        """
        renewal = self.request.renewal
        try:
            there = None if absent else self.con.instance.get_dataset(array.target).metadata
        except DatasetNotFoundError:
            there = None
        if there is None:
            self._check_tree(array)
            return "absent"
        if renewal is not None and renewal.is_outdated(there):
            return "replace"
        origin = there.origin or {}
        same = all(origin.get(k) == array.origin[k] for k in ("source", "name", "fingerprint"))
        known = self._known(array, there) if same else None
        if known is None and not self.request.overwrite:
            raise self._conflict(array, there, same)
        return known or "replace"

    def _known(self, array: PlannedArray, there: DatasetMetadata) -> State | None:
        """Return the state of a dataset of the same array; None if it would be another now."""
        if array.link is not None:
            if there.link != array.link.to_json():
                return None
            # Starting again takes no longer than resuming.
            return "replace" if there.incomplete else "complete"
        if there.link is not None:
            return None
        assert array.metadata is not None
        state: State = "resume" if there.incomplete else "complete"
        wanted = array.metadata
        # Earlier versions kept text as dtype U with the length of the longest string.
        older = is_text(wanted.dtype) and there.dtype.kind == "U"
        if older and there.shape == wanted.shape and not self.request.overwrite:
            return state
        if (there.shape, there.dtype) != (wanted.shape, wanted.dtype):
            return None
        asked = chosen_for(wanted.shape, self.request.chunk_size)
        if not asked or wanted.chunk_size == there.chunk_size:
            return state
        if not self.request.overwrite:
            raise DatasetExistsError(
                f"dataset {array.target!r} exists with chunks of {there.chunk_size}, and "
                f"chunk_size= asks for {wanted.chunk_size}: leave chunk_size= out, or make it "
                "anew by overwrite=True"
            )
        return None

    def _conflict(self, array: PlannedArray, there: DatasetMetadata, same: bool) -> Exception:
        """Return the error for a dataset that exists and is not what the array becomes."""
        mine, origin = array.origin, there.origin or {}
        dataset = f"dataset {array.target!r} of connection {self.con.name!r}"
        made = "begun" if there.incomplete else "made"
        if same and (there.link is None) != (array.link is None):
            return DatasetExistsError(
                f"{dataset} is {'ingested' if there.link is None else 'linked'} from "
                f"{mine['source']} already: give another name=, or overwrite=True"
            )
        held_to = None if there.link is None else there.link["fingerprint"]
        if same and held_to == (None if array.link is None else array.link.fingerprint):
            return DatasetExistsError(
                f"{dataset} was {made} from {mine['source']} and would be made differently now: "
                "its shape, its type or the way to what it links to is another; make it anew by "
                "overwrite=True"
            )
        if (origin.get("source"), origin.get("name")) == (mine["source"], mine["name"]):
            return SourceChangedError(
                f"{dataset} was {made} from {mine['source']} when its fingerprint was "
                f"{origin.get('fingerprint')}, and now it is {mine['fingerprint']}: make the "
                "dataset anew by overwrite=True"
            )
        return DatasetExistsError(
            f"dataset {array.target!r} exists in connection {self.con.name!r}, and is not from "
            f"{mine['source']}: give another name=, or overwrite=True"
        )

    def _check_tree(self, array: PlannedArray) -> None:
        """Raise if other branches of the array's tree come from another state of the source."""
        group = self.source.tree_of(array.origin["name"])
        if group is None or self.request.overwrite or self.request.renewal is not None:
            return
        group = "/".join(filter(None, [self.request.prefix, group]))
        if group not in self._trees:
            names = self.con.names_in(group) if self.con.instance.keeps_groups else []
            attrs = self.con.get_group_attrs(group) if names else {}
            self._trees[group] = Tree.from_attrs(attrs, f"group {group!r}")
        tree = self._trees[group]
        if tree is None or tree.fingerprint == array.origin["fingerprint"]:
            return
        if not tree.fingerprint:
            raise SourceChangedError(
                f"tree {group!r} of connection {self.con.name!r} is a copy, or has no source: "
                f"branches of {self.source.location} may not fit its own; give another name=, or "
                "make the tree anew by overwrite=True"
            )
        raise SourceChangedError(
            f"tree {group!r} of connection {self.con.name!r} was made from {tree.fingerprint}, "
            f"and {self.source.location} is now {array.origin['fingerprint']}: their branches do "
            "not fit together; make the tree anew by overwrite=True, or give another name="
        )
