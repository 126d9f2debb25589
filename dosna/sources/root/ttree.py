"""TTrees: their branches are read by baskets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from uproot.interpretation.grouped import AsGrouped
from uproot.interpretation.identify import UnknownInterpretation
from uproot.interpretation.jagged import AsJagged
from uproot.interpretation.numerical import AsDtype
from uproot.interpretation.objects import AsStridedObjects

from dosna.columns.layout import columns, form_of, plain_form
from dosna.core.types import Array
from dosna.errors import RefusedError, SourceError
from dosna.sources.root.baskets import Header, basket_place, plain_rows
from dosna.sources.root.checks import checked, misread
from dosna.sources.root.part import TreePart

__all__ = ["TTreePart"]


_BASKET_HEADER = 512


class TTreePart(TreePart):
    """A TTree. Its pieces are baskets."""

    kind = "TTree"

    def __init__(self, tree: Any) -> None:
        super().__init__(tree)
        self.title = str(tree.title)
        self._checked: dict[str, Any] = {}
        for name, branch in tree.iteritems(recursive=True, full_paths=True):
            if not _is_group(branch):
                self._add(name, branch)

    def form(self, name: str) -> Any:
        branch = self._found[name]
        interpretation = branch.interpretation
        if why := misread(interpretation):
            raise RefusedError(why)
        if isinstance(interpretation, UnknownInterpretation):
            raise RefusedError(f"uproot cannot interpret it: {interpretation.reason}")
        if int(branch.num_entries) != self.entries:
            raise RefusedError(
                f"it has {int(branch.num_entries)} entries, and the tree has {self.entries}"
            )
        branch.entry_offsets  # noqa: B018  raises where baskets are missing
        form = plain_form(_form_of(branch, interpretation))
        content = interpretation.content if type(interpretation) is AsJagged else interpretation
        return _shown(form) if isinstance(content, AsStridedObjects) else form

    def title_of(self, name: str) -> str:
        return str(self._found[name].title)

    def edges(self, name: str) -> list[int]:
        return [int(edge) for edge in self._found[name].entry_offsets]

    def nbytes(self, name: str) -> int:
        return int(self._found[name].member("fTotBytes"))

    def counts(self, name: str) -> dict[str, Array] | None:
        branch = self._found[name]
        form = form_of(self.form(name))
        offsets = [column.path for column in columns(form) if column.is_offsets]
        if not offsets:
            return {}
        interpretation = branch.interpretation
        if type(interpretation) is not AsJagged or offsets != ["offsets"]:
            return None
        if isinstance(interpretation.content, AsStridedObjects) and branch.num_baskets:
            # Raises if ROOT has written the elements member by member.
            self.read(name, 0, self.edges(name)[1])
        itemsize = interpretation.content.itemsize
        counted = np.zeros(branch.num_baskets, np.int64)
        for number, (entries, border) in enumerate(self._sizes(branch)):
            size = border - interpretation.header_bytes * entries
            counted[number], rest = divmod(size, itemsize)
            if rest or size < 0:
                return None
        return {"offsets": counted}

    def _sizes(self, branch: Any) -> Iterator[tuple[int, int]]:
        """Yield the number of entries of each basket, and their bytes, which its header says."""
        embedded = branch.embedded_baskets
        for number in range(branch.num_baskets - len(embedded)):
            start, nbytes = basket_place(branch, number)
            for most in (min(_BASKET_HEADER, nbytes), nbytes):
                chunk = branch.file.source.chunk(start, start + most)
                if (header := Header.parsed(chunk.raw_data)) is not None:
                    break
            else:
                raise SourceError(f"basket {number} of branch {branch.name!r} has no header")
            yield header.entries, header.border
        for basket in embedded:
            yield basket.num_entries, basket.border

    def read(self, name: str, start: int, stop: int) -> Any:
        branch = self._found[name]
        most = stop
        if isinstance(branch.interpretation, AsStridedObjects):
            # uproot 5.7 looks for one more basket if the entries end where a basket does.
            most = min(stop + 1, self.entries)
        if name not in self._checked:
            self._checked[name] = checked(branch.interpretation)
        found = branch.array(self._checked[name], entry_start=start, entry_stop=most, library="ak")
        return found.layout[: stop - start]

    def rows(self, name: str, start: int, stop: int) -> dict[str, Array] | None:
        branch = self._found[name]
        return plain_rows(branch, branch.interpretation, start, stop)

    def cluster(self) -> int | None:
        lengths: Counter[int] = Counter()
        try:
            edges = self.tree.common_entry_offsets()
        except Exception:
            return None
        for start, stop in pairwise(edges):
            lengths[int(stop - start)] += 1
        return max(lengths, key=lambda n: (lengths[n] * n, n)) if lengths else None


def _is_group(branch: Any) -> bool:
    """Return True if a branch only contains other branches."""
    try:
        return isinstance(branch.interpretation, AsGrouped)
    except Exception:
        return False  # It is refused when it is described. Others stay usable.


def _form_of(branch: Any, interpretation: Any) -> Any:
    try:
        return interpretation.awkward_form(branch.file)
    except AssertionError:
        if not isinstance(interpretation, AsDtype):
            raise
        # uproot 5.7 reads array leaves beside other leaves, but has no form for them.
        return branch.array(entry_start=0, entry_stop=0, library="ak").layout.form


def _shown(form: Any) -> Any:
    """Remove the fields that uproot has in forms of strided objects, but not in their arrays."""
    if not isinstance(form, dict):
        return form
    form = {key: _shown(value) if key == "content" else value for key, value in form.items()}
    if form.get("fields"):
        pairs = zip(form["fields"], form["contents"], strict=True)
        kept = [(name, _shown(content)) for name, content in pairs if not name.startswith("@")]
        form |= {"fields": [n for n, _ in kept], "contents": [c for _, c in kept]}
    return form
