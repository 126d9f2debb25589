"""The description of a tree, and its form in the attributes of the tree's group."""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dosna.array.pictures import html_table
from dosna.core.names import check_name, parents
from dosna.core.patterns import suggested
from dosna.errors import DatasetNotFoundError, FormatError

if TYPE_CHECKING:
    from dosna.array.connection import EngineConnection

__all__ = ["Branch", "FileRange", "Tree", "escape", "find_trees", "get_tree", "unescape"]

_MOST_SHOWN = 200

TREE_VERSION = 1
"""Version of the description. A reader refuses a newer one."""

_TREE = "tree"
_BRANCH = "branch "
_ESCAPED = re.compile(r"^\.|[%/\\\x00-\x1f\x7f\ud800-\udfff]")


def escape(name: str) -> str:
    """Return the part of a dataset's name that stands for the name of a branch or a field.

    Characters that can be in such a part stay. Others become ``%`` and two hexadecimal digits for
    each byte of UTF-8, as in URLs. `unescape` reverses this.
    """
    if not name:
        return "%"
    return _ESCAPED.sub(
        lambda m: "".join(f"%{b:02X}" for b in m[0].encode("utf-8", "surrogatepass")), name
    )


def unescape(part: str) -> str:
    """Return the name from which `escape` made a part."""
    if part == "%":
        return ""
    raw = re.sub(
        rb"%([0-9A-F]{2})", lambda m: bytes.fromhex(m[1].decode()), part.encode(errors="strict")
    )
    return raw.decode("utf-8", "surrogatepass")


@dataclass(frozen=True)
class Branch:
    """A column of a tree.

    Parameters
    ----------
    name : str
        The name in the tree's source, with any characters.
    form : mapping or str
        The form of the elements: awkward's, as JSON without the keys of its nodes.
    typename : str
        The type of the elements in the source, such as ``std::vector<float>``.
    title : str
        The title in the source.
    index : int
        The place among the branches of the source.
    """

    name: str
    form: Mapping[str, Any] | str
    typename: str = ""
    title: str = ""
    index: int = 0

    @property
    def path(self) -> str:
        """Name of the branch's dataset, or of the group of its datasets, in the tree's group."""
        return escape(self.name)

    @property
    def type(self) -> str:
        """Type of the elements in awkward's notation: ``var * float32``."""
        return _type(self.form)


def _type(form: Mapping[str, Any] | str) -> str:
    if isinstance(form, str):
        return form
    kind, name = form["class"], (form.get("parameters") or {}).get("__array__")
    if name in ("string", "bytestring"):
        return "bytes" if name == "bytestring" else "string"
    if kind == "NumpyArray":
        return "".join(f"{n} * " for n in form.get("inner_shape", ())) + str(form["primitive"])
    if kind == "RecordArray":
        inside = [_type(content) for content in form["contents"]]
        if form["fields"] is None:
            return f"({', '.join(inside)})"
        pairs = zip(form["fields"], inside, strict=True)
        return "{" + ", ".join(f"{field}: {of}" for field, of in pairs) + "}"
    if kind == "UnionArray":
        return f"union[{', '.join(_type(content) for content in form['contents'])}]"
    if kind == "EmptyArray":
        return "unknown"
    inside_one = _type(form["content"])
    if kind == "RegularArray":
        return f"{form['size']} * {inside_one}"
    if kind == "ListOffsetArray":
        return f"var * {inside_one}"
    return f"?{inside_one}"


@dataclass(frozen=True)
class FileRange:
    """The entries of a tree that are from one file: ``start <= entry < stop``."""

    url: str
    start: int
    stop: int


@dataclass(frozen=True)
class Tree:
    """A tree of columns.

    Parameters
    ----------
    kind : str
        The kind of the tree in its source: ``TTree``, ``RNTuple``, ….
    name : str
        The name in the source. The group may have another name.
    entries : int
        The number of entries of each branch. While a tree grows, datasets may already have more:
        they are extended before this number is.
    branches : tuple of Branch
        The branches in the source's order.
    cycle : int
        The cycle (version) of a TTree in its file.
    title : str
        The title in the source.
    files : tuple of FileRange
        The files, in the order of entries.
    chunk_entries : int
        The number of entries of a chunk, for the datasets that have a row for each entry.
    fingerprint : str
        The fingerprint of the source, as in the `origin` of the datasets; empty if there is none.
    """

    kind: str
    name: str
    entries: int
    branches: tuple[Branch, ...] = ()
    cycle: int = 1
    title: str = ""
    files: tuple[FileRange, ...] = ()
    chunk_entries: int = 1
    fingerprint: str = ""
    by_name: Mapping[str, Branch] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {b.name: b for b in self.branches})

    def _repr_html_(self) -> str:
        rows = {branch.name: branch.type for branch in self.branches[:_MOST_SHOWN]}
        if len(self.branches) > _MOST_SHOWN:
            rows["…"] = f"{len(self.branches) - _MOST_SHOWN} more branches"
        return html_table(rows, title=f"{self.kind} {self.name}: {self.entries} entries")

    def to_attrs(self) -> dict[str, Any]:
        """Return the attributes of the tree's group.

        Each branch is an attribute of its own, so that branches which are added later join those
        that exist.
        """
        own = {
            "version": TREE_VERSION,
            "kind": self.kind,
            "name": self.name,
            "entries": self.entries,
            "cycle": self.cycle,
            "title": self.title,
            "files": [[f.url, f.start, f.stop] for f in self.files],
            "chunk_entries": self.chunk_entries,
            "fingerprint": self.fingerprint,
        }
        return {_TREE: own} | {
            f"{_BRANCH}{b.name}": {
                "index": b.index,
                "typename": b.typename,
                "title": b.title,
                "form": b.form,
            }
            for b in self.branches
        }

    @classmethod
    def from_attrs(cls, attrs: Mapping[str, Any], where: str = "group") -> Tree | None:
        """Create a tree from attributes that `to_attrs` returned; None for those of another group.

        Raises
        ------
        FormatError
            If the description is of another version, or is broken. The message names `where`.
        """
        own = attrs.get(_TREE)
        if not isinstance(own, Mapping) or not {"version", "entries"} <= own.keys():
            return None
        if own["version"] != TREE_VERSION:
            raise FormatError(
                f"{where} is a tree of version {own['version']!r}, and this dosna reads "
                f"{TREE_VERSION}: update dosna to read it"
            )
        try:
            branches = [
                Branch(key[len(_BRANCH) :], b["form"], b["typename"], b["title"], b["index"])
                for key, b in attrs.items()
                if key.startswith(_BRANCH)
            ]
            return cls(
                own["kind"],
                own["name"],
                int(own["entries"]),
                tuple(sorted(branches, key=lambda b: b.index)),
                own["cycle"],
                own["title"],
                tuple(FileRange(*f) for f in own["files"]),
                own["chunk_entries"],
                own["fingerprint"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"{where} has a broken description of a tree: {error!r}") from error

    def chosen(self, patterns: str | Iterable[str] | None, where: str = "tree") -> list[Branch]:
        """Choose branches by names or patterns, in the order in which they are asked for.

        Parameters
        ----------
        patterns : str, iterable of str or None
            Names, or patterns with ``*``, ``?`` and ``[…]``, whose matches are in the tree's
            order. None chooses all.
        where : str
            The name of the tree for error messages.

        Raises
        ------
        DatasetNotFoundError
            If no branch matches a name or a pattern.
        """
        if patterns is None:
            return list(self.branches)
        found: dict[str, Branch] = {}
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            if pattern in self.by_name:
                found[pattern] = self.by_name[pattern]
                continue
            alike = {b.name: b for b in self.branches if fnmatch.fnmatchcase(b.name, pattern)}
            if not alike:
                some = ", ".join([b.name for b in self.branches[:10]])
                more = ", …" if len(self.branches) > 10 else ""
                raise DatasetNotFoundError(
                    f"{where} has no branch like {pattern!r}: "
                    f"{suggested(pattern, self.by_name)}it has {some}{more}"
                )
            found |= {name: branch for name, branch in alike.items() if name not in found}
        return list(found.values())


def without_branches(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a tree's group without those that describe branches."""
    return {key: value for key, value in attrs.items() if not key.startswith(_BRANCH)}


def from_texts(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a group from a file that keeps those of a tree as texts of JSON.

    Attributes of a group that is no tree are returned as they are.
    """
    texts = {k: v for k, v in attrs.items() if k == _TREE or k.startswith(_BRANCH)}
    try:
        found = {**attrs, **{key: json.loads(text) for key, text in texts.items()}}
        return dict(attrs if Tree.from_attrs(found) is None else found)
    except (TypeError, ValueError, RecursionError):
        return dict(attrs)


def without_source(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a group for a copy of it, whose datasets are of another source.

    The tree of the copy, if the group is one, has no fingerprint, because its datasets have that
    of what they were copied from.
    """
    own = attrs.get(_TREE)
    if not isinstance(own, Mapping) or not own.get("fingerprint"):
        return dict(attrs)
    return {**attrs, _TREE: {**own, "fingerprint": ""}}


def get_tree(con: EngineConnection, name: str) -> Tree:
    """Read the description of a tree.

    Parameters
    ----------
    con : Connection
    name : str
        The name of the tree's group, such as ``Events``.

    Raises
    ------
    DatasetNotFoundError
        If there is no tree of that name.
    """
    found = _tree_at(con, name)
    if found is None:
        trees = ", ".join(find_trees(con))
        raise DatasetNotFoundError(
            f"connection {con.name!r} has no tree {name!r}: it has {trees or 'none'}"
        )
    return found


def find_trees(con: EngineConnection, group: str = "") -> dict[str, Tree]:
    """Return the trees of a connection, or those in a group or above it, by their names."""
    found: dict[str, Tree] = {}
    if not con.instance.keeps_groups:
        return found
    seen: set[str] = set()
    for dataset in con.names_in(group):
        for above in ["", *parents(dataset)]:
            if above not in seen:
                seen.add(above)
                tree = _tree_at(con, above)
                if tree is not None:
                    found[above] = tree
            if above in found:
                break
    return found


def _tree_at(con: EngineConnection, name: str) -> Tree | None:
    if not con.instance.keeps_groups:
        return None
    if name:
        check_name(name)
    return Tree.from_attrs(con.get_group_attrs(name), f"{name!r} of connection {con.name!r}")
