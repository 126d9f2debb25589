"""RNTuples: their fields are read by clusters."""

from __future__ import annotations

from collections import Counter
from typing import Any

import awkward as ak
import numpy as np

from dosna.columns.layout import counted_contents, plain_form
from dosna.core.types import Array
from dosna.sources.root.part import TreePart

__all__ = ["RNTuplePart"]


class RNTuplePart(TreePart):
    """An RNTuple. Its branches are the outermost fields, and their pieces are clusters."""

    kind = "RNTuple"

    def __init__(self, tree: Any) -> None:
        super().__init__(tree)
        self.title = str(tree.description)
        for field in tree.fields:
            # Skip fields without a type, in which ROOT's importer keeps the offsets of others.
            if not (field.name.startswith("_") and not field.typename):
                self._add(field.name, field)
        self._clusters = tree.cluster_summaries
        self._edges = [0]
        for cluster in self._clusters:
            self._edges.append(int(cluster.num_first_entry + cluster.num_entries))

    def form(self, name: str) -> Any:
        return plain_form(self._keyed(name))

    def _keyed(self, name: str) -> Any:
        field = self._found[name]
        if "." not in field.name:
            return field.to_akform()[0].contents[0]
        # uproot takes the name for a path, and finds nothing at it.
        own = (field.name, f"{field.name}.")
        form, _ = self.tree.to_akform(
            filter_field=lambda f: (
                f.path is not None and (f.path == own[0] or f.path.startswith(own[1]))
            )
        )
        return form.contents[form.fields.index(field.name)]

    def joins(self, name: str) -> bool:
        # Elements of a variant are counted from the beginning of their cluster.
        return not _has_union(self._keyed(name))

    def title_of(self, name: str) -> str:
        return str(self._found[name].description)

    def edges(self, name: str) -> list[int]:
        return self._edges

    def nbytes(self, name: str) -> int:
        total = 0
        for number in _numbers(self._keyed(name)):
            size = max(8, int(self.tree.column_records[number].nbits)) // 8
            for cluster in range(len(self._clusters)):
                total += size * self._elements(number, cluster)
        return total

    def counts(self, name: str) -> dict[str, Array] | None:
        form = self._keyed(name)
        if any(self.tree.column_records[n].first_element_index for n in _numbers(form)):
            return None
        found: dict[str, Array] = {}
        for path, content in counted_contents(form):
            rows = [self._rows(content, cluster) for cluster in range(len(self._clusters))]
            if any(n is None for n in rows):
                return None
            found[path] = np.array(rows, np.int64)
        return found

    def _rows(self, form: Any, cluster: int) -> int | None:
        """Return the number of elements of a node in a cluster, from the list of pages."""
        number = _number(form)
        if number is not None:
            return self._elements(number, cluster)
        if form.is_regular and form.size:
            rows = self._rows(form.content, cluster)
            return None if rows is None else rows // form.size
        if form.is_record:
            rest = (self._rows(content, cluster) for content in form.contents)
            return next((rows for rows in rest if rows is not None), None)
        return None

    def _elements(self, number: int, cluster: int) -> int:
        pages = self.tree.page_link_list[cluster]
        if number < len(pages) and pages[number].suppressed:
            field = self.tree.column_records[number].field_id
            same = [c.idx for c in self.tree.column_records if c.field_id == field]
            number = next(n for n in same if not pages[n].suppressed)
        if number >= len(pages):
            return 0
        return sum(int(page.num_elements) for page in pages[number].pages)

    def read(self, name: str, start: int, stop: int) -> Any:
        first, last = self._edges.index(start), len(self._edges) - self._edges[::-1].index(stop)
        form = self._keyed(name)
        buffers: dict[str, Array] = {}
        for key in _keys(form):
            number = int(key.split("-")[1])
            before = self.tree.column_records[number].first_element_index
            data = self.tree.read_cluster_range(
                number, first, last - 1, missing_element_padding=max(before - start, 0)
            )
            _fill(buffers, key, data)
        found = ak.from_buffers(form, stop - start, buffers, highlevel=False)
        return found[: stop - start]

    def cluster(self) -> int | None:
        lengths = Counter(int(cluster.num_entries) for cluster in self._clusters)
        return max(lengths, key=lambda n: (lengths[n] * n, n)) if lengths else None


def _keys(form: Any) -> list[str]:
    """Return the keys of the nodes of a form that are columns."""
    own = [form.form_key] if (form.form_key or "").startswith("column-") else []
    for content in _contents(form):
        own += _keys(content)
    return list(dict.fromkeys(own))


def _numbers(form: Any) -> list[int]:
    return sorted({int(key.split("-")[1]) for key in _keys(form)})


def _has_union(form: Any) -> bool:
    return bool(form.is_union) or any(map(_has_union, _contents(form)))


def _number(form: Any) -> int | None:
    key = form.form_key or ""
    return int(key.split("-")[1]) if key.startswith("column-") else None


def _contents(form: Any) -> list[Any]:
    if form.is_record or form.is_union:
        return list(form.contents)
    return [form.content] if hasattr(form, "content") else []


def _fill(buffers: dict[str, Array], key: str, data: Array) -> None:
    """Add a column's elements under the names that awkward uses for a node's buffers."""
    if "cardinality" in key:
        buffers[f"{key}-data"] = np.diff(data)
    elif "optional" in key:
        there = np.diff(data) > 0
        buffers[f"{key}-index"] = np.where(there, np.cumsum(there) - 1, -1).astype(data.dtype)
    elif data.dtype.names is not None:
        tags = data["tag"].astype(np.int8)
        buffers[f"{key}-tags"] = tags
        buffers[f"{key}-index"] = np.where(tags == 0, 0, data["index"]).astype(np.int64)
        buffers["nones-index"] = np.array([-1], np.int64)
    else:
        buffers[f"{key}-data"] = buffers[f"{key}-offsets"] = data
