"""A TTree or RNTuple of one file: its branches, their pieces, and the reading of entries."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import awkward as ak
import numpy as np
import uproot
from uproot.interpretation.grouped import AsGrouped
from uproot.interpretation.identify import UnknownInterpretation
from uproot.interpretation.jagged import AsJagged
from uproot.interpretation.numerical import AsDtype
from uproot.interpretation.objects import AsStridedObjects
from uproot.models.TBasket import Model_TBasket

from dosna.columns.layout import columns, counted_contents, form_of, plain_form
from dosna.core.types import Array
from dosna.errors import DosnaError, RefusedError
from dosna.sources.root.checks import checked, misread
from dosna.sources.root.file import reading

__all__ = ["BranchHere", "TreePart", "open_part", "part_of"]


_BASKET_HEADER = 512


@dataclass(frozen=True)
class BranchHere:
    """A branch of one file.

    Parameters
    ----------
    name, typename, title : str
    form : dict or str
        The awkward form, in JSON.
    refused : str
        The reason why the branch cannot be represented. It has no form then.
    """

    name: str
    typename: str
    title: str
    form: Any = None
    refused: str = ""


class TreePart(ABC):
    """A tree of one file.

    Parameters
    ----------
    tree : uproot's TTree or RNTuple
    """

    kind: str
    title: str

    def __init__(self, tree: Any) -> None:
        self.tree = tree
        self.name = str(tree.name)
        self.entries = int(tree.num_entries)
        self._found: dict[str, Any] = {}
        self._again: list[str] = []

    def _add(self, name: str, found: Any) -> None:
        count = 1
        while name in self._found or name in self._again:
            count += 1
            name = f"{name.removesuffix(f' ({count - 1})')} ({count})"
        if count == 1:
            self._found[name] = found
        else:
            self._again.append(name)

    def has(self, name: str) -> bool:
        """Return True if there is a branch of this name, and not only a group of branches."""
        return name in self._found

    @property
    def width(self) -> int:
        """Number of branches for which uproot has made objects."""
        return 1 + len(self._found)

    @property
    def cycle(self) -> int:
        """Number of the tree among those of the same name."""
        return int(str(self.tree.object_path).rpartition(";")[2] or 1)

    def branches(self) -> list[BranchHere]:
        """Return descriptions of the branches, in the tree's order."""
        return [self._describe(name) for name in (*self._found, *self._again)]

    def _describe(self, name: str) -> BranchHere:
        if name in self._again:
            return BranchHere(name, "", "", refused="an earlier branch has the same name")
        form, typename, refused = None, "", ""
        try:
            typename = str(self._found[name].typename)
            form = self.form(name)
            columns(form_of(form))
        except RefusedError as error:
            refused = str(error)
        except Exception as error:
            if isinstance(error, DosnaError):
                raise
            refused = f"uproot has no awkward form of it ({type(error).__name__}: {error})"
        return BranchHere(name, typename, self.title_of(name), form, " ".join(refused.split()))

    def joins(self, name: str) -> bool:
        """Return True if several pieces of a branch may be read together."""
        return True

    @abstractmethod
    def form(self, name: str) -> Any:
        """Return the form of a branch in JSON. Raise RefusedError if there is none."""

    @abstractmethod
    def title_of(self, name: str) -> str:
        """Return the title of a branch."""

    @abstractmethod
    def edges(self, name: str) -> list[int]:
        """Return the entries at which pieces of a branch begin and end, starting with 0."""

    @abstractmethod
    def nbytes(self, name: str) -> int:
        """Return the approximate number of bytes of a branch, decompressed."""

    @abstractmethod
    def counts(self, name: str) -> dict[str, Array] | None:
        """Return, for each piece, how much each offsets column counts; None if unknown.

        If it is unknown, the pieces must be decoded to find out.
        """

    @abstractmethod
    def read(self, name: str, start: int, stop: int) -> Any:
        """Decode entries, which begin and end where pieces do, into an awkward layout."""

    @abstractmethod
    def cluster(self) -> int | None:
        """Return the usual number of entries that are kept together in all branches."""


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
        for number in range(branch.num_baskets):
            basket = self._basket_header(branch, number)
            size = basket.border - interpretation.header_bytes * basket.num_entries
            counted[number], rest = divmod(size, itemsize)
            if rest or size < 0:
                return None
        return {"offsets": counted}

    def _basket_header(self, branch: Any, number: int) -> Any:
        """Read the header of a basket, before its compressed data."""
        seeks = branch.member("fBasketSeek")
        if number >= len(branch.entry_offsets) - 1 - len(branch.embedded_baskets):
            return branch.basket(number)
        start = int(seeks[number])
        size = min(_BASKET_HEADER, branch.basket_compressed_bytes(number))
        for most in (size, branch.basket_compressed_bytes(number)):
            chunk = branch.file.source.chunk(start, start + most)
            try:
                return Model_TBasket.read(
                    chunk,
                    uproot.source.cursor.Cursor(start),
                    {"basket_num": number, "read_basket": False},
                    branch.file,
                    branch.file,
                    branch,
                )
            except uproot.deserialization.DeserializationError:
                if most == branch.basket_compressed_bytes(number):
                    raise
        raise AssertionError("unreachable")

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


def open_part(directory: Any, path: str) -> TreePart:
    """Open a tree of a file.

    Parameters
    ----------
    directory : uproot.ReadOnlyDirectory
    path : str
        The path with the cycle.
    """
    with reading(f"tree {path!r} of {directory.file.file_path}"):
        return part_of(directory[path])


def part_of(tree: Any) -> TreePart:
    """Return a `TreePart` around a tree of uproot.

    Raises
    ------
    RefusedError
        If uproot reads no trees of this kind.
    """
    if isinstance(tree, uproot.TTree):
        return TTreePart(tree)
    if isinstance(tree, uproot.behaviors.RNTuple.RNTuple):
        return RNTuplePart(tree)
    kind = str(tree.classname)
    if "RNTuple" not in kind:
        raise RefusedError(f"a {kind} is no tree")
    raise RefusedError(
        f"it is a {kind} from before version 1.0 of RNTuple's format, and uproot reads none of "
        "these: write it anew by ROOT 6.34 or later"
    )
