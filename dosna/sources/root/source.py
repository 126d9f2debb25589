"""ROOT files: TTrees and RNTuples, read by uproot."""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import uproot

from dosna.columns import Tree, read_columns, to_arrow
from dosna.columns.description import escape, without_branches
from dosna.core.names import check_name
from dosna.core.patterns import matching
from dosna.core.types import Array, Box
from dosna.core.values import check_dtype
from dosna.errors import DatasetNameError, SourceError, SourceNotFoundError
from dosna.io.s3.options import S3Options, takes_s3_options
from dosna.sources.base import ArrayDescription, Source
from dosna.sources.kinds import SourceKind, registry
from dosna.sources.root.chain import Chain, Decoded
from dosna.sources.root.file import RootFile, expand, reading, tree_paths
from dosna.sources.root.part import TreePart
from dosna.sources.root.tree import open_part, part_of

__all__ = ["KIND", "RootSource", "to_arrow", "to_awkward"]

to_awkward = read_columns


class RootSource(Source):
    """The trees of ROOT files. Trees of the same name in several files become one tree.

    A branch is one array, or the arrays of `dosna.columns.layout`: contents and offsets of lists.
    Baskets and clusters are decoded in the reading thread, and kept in at most 48 MiB. Each is
    decoded once, unless a thread returns to it later.

    Parameters
    ----------
    location : str, sequence of str or uproot's TTree, RNTuple or directory
        A path, a pattern of paths (``data/*.root``), a URL of S3, HTTP or XRootD, several of
        these, or an open object, which stays open.
    inner : str
        A tree (``Events``, or ``Events;1`` for one of its cycles), or a directory of trees; all
        trees by default.
    **options
        The server of an ``s3://`` URL, by the fields of `dosna.io.s3.options.S3Options`.
    """

    @takes_s3_options
    def __init__(self, location: Any, inner: str = "", **options: Any) -> None:
        self._options = S3Options(**options)
        self._given: Any = None
        self._asked: list[str] = []
        if isinstance(location, str):
            self._asked = [location]
        elif isinstance(location, Sequence) and location:
            self._asked = list(location)
            location = self._asked[0]
            if len(self._asked) > 1:
                location += f" … {self._asked[-1]} ({len(self._asked)} files)"
        elif hasattr(location, "file") and hasattr(location, "object_path"):
            self._given = location
            location = str(self._given.file.file_path)
        else:
            raise SourceError(
                f"{location!r} is not a ROOT file: give a path, a URL, a list of these, or a "
                "TTree, RNTuple or directory that uproot has opened"
            )
        super().__init__(location, inner.strip("/"))
        self._files: list[RootFile] | None = None
        self._chains: dict[str, Chain] | None = None
        self._places: dict[str, tuple[Chain, str, str]] | None = None
        self._decoded = Decoded()

    def unopened(self) -> dict[str, Any]:
        return {"_decoded": Decoded()}

    @property
    def picklable(self) -> bool:
        return self._given is None

    def close(self) -> None:
        with self._lock:
            for file in self._files or ():
                file.close()
            for chain in (self._chains or {}).values():
                chain.forget()
            self._files = self._chains = self._places = None
            self._decoded.clear()

    def fingerprint(self) -> str:
        if self._given is not None:
            file = self._given.file
            return f"open file {file.uuid} of {file.fEND} bytes"
        files = self._opened()
        if len(files) == 1:
            return files[0].fingerprint()
        digest = hashlib.sha256()
        for found in files:
            digest.update(f"{found.location} {found.fingerprint()}\n".encode())
        return digest.hexdigest()

    def names(self) -> list[str]:
        return list(self._arrays())

    def chosen(self, patterns: str | Iterable[str] | None) -> tuple[list[str], list[str]]:
        """Choose arrays by patterns of their names, of branches, or of trees and branches."""
        names = self.names()
        if patterns is None:
            return names, []
        places = self._arrays()
        found: set[str] = set()
        unmatched = []
        for pattern in [patterns] if isinstance(patterns, str) else patterns:
            known = {
                name
                for name, (chain, branch, _) in places.items()
                for whole in (branch, f"{chain.name}/{branch}")
                if whole == pattern or fnmatch.fnmatchcase(whole, pattern)
            }
            # A branch completely or not at all: its arrays are useless without each other.
            known |= _whole(places, matching(names, pattern)[0])
            found |= known
            if not known:
                unmatched.append(pattern)
        return [name for name in names if name in found], unmatched

    def describe(self, name: str) -> ArrayDescription:
        chain, branch, path = self._place(name)
        if chain.unreadable:
            return ArrayDescription(name, refused=str(chain.unreadable))
        outline = chain.branches[branch]
        if not outline.refused:
            outline = chain.measured(branch)
        if outline.refused:
            return ArrayDescription(name, refused=outline.refused)
        column = outline.columns[path]
        try:
            check_name(name)
            check_dtype(column.dtype)
        except (TypeError, DatasetNameError) as error:
            return ArrayDescription(name, refused=str(error))
        return ArrayDescription(
            name,
            chain.shape(branch, path),
            column.dtype,
            chunks=chain.chunks(branch, path),
            chunks_kept=True,
        )

    def groups(self) -> Mapping[str, Mapping[str, Any]]:
        return self.groups_of(self.names())

    def groups_of(self, names: Iterable[str]) -> Mapping[str, Mapping[str, Any]]:
        """Return the attributes of the trees, with the branches that the arrays belong to."""
        wanted: dict[str, set[str]] = {}
        given = set(names)
        for name in given:
            chain, branch, _ = self._place(name)
            if not chain.unreadable and _whole(self._arrays(), [name]) <= given:
                wanted.setdefault(chain.name, set()).add(branch)
        return {name: self.tree(name, branches).to_attrs() for name, branches in wanted.items()}

    def groups_without(self, names: Iterable[str]) -> Mapping[str, Mapping[str, Any]]:
        """Return the attributes of the trees, without the branches that the arrays belong to."""
        return self.groups_of(set(self.names()) - set(names))

    def tree_of(self, name: str) -> str | None:
        return self._place(name)[0].name

    def merged_group(
        self, there: Mapping[str, Any], attrs: Mapping[str, Any], every: bool
    ) -> dict[str, Any]:
        """Merge branches into those of the tree. If `every`, they replace them."""
        return {**(without_branches(there) if every else there), **attrs}

    def tree(self, name: str, branches: Iterable[str] | None = None) -> Tree:
        """Return the description of a tree.

        Parameters
        ----------
        name : str
            The name of the tree's group, such as ``Events``.
        branches : iterable of str, optional
            The branches to include; all that can be represented by default.
        """
        try:
            chain = self._found()[name]
        except KeyError:
            raise SourceNotFoundError(f"{self} has no tree {name!r}") from None
        chosen = None if branches is None else set(branches)
        kept = [
            outline.branch
            for branch, outline in chain.branches.items()
            if not outline.refused and (chosen is None or branch in chosen)
        ]
        return replace(chain.tree, branches=tuple(kept), fingerprint=self.fingerprint())

    def read(self, name: str, box: Box) -> Array:
        chain, branch, path = self._place(name)
        column = chain.branches[branch].columns[path]
        out = np.empty([s.stop - s.start for s in box], column.dtype)
        chain.read_into(branch, path, box, out)
        return out

    def read_into(self, name: str, box: Box, out: Array) -> None:
        chain, branch, path = self._place(name)
        chain.read_into(branch, path, box, out)

    def _opened(self) -> list[RootFile]:
        with self._lock:
            if self._files is None:
                self._files = [RootFile(found, self._options) for found in expand(self._asked)]
            return self._files

    def _found(self) -> dict[str, Chain]:
        """Return the trees by the names of their groups."""
        with self._lock:
            if self._chains is None:
                self._chains = self._given_trees() if self._given is not None else self._trees()
            return self._chains

    def _trees(self) -> dict[str, Chain]:
        files = self._opened()
        paths: list[dict[str, str]] = []
        for file in files:
            directory = file.open()
            with reading(file.location):
                paths.append(tree_paths(directory, self.inner))
        chains = {}
        for name in dict.fromkeys(name for found in paths for name in found):
            for file, found in zip(files, paths, strict=True):
                if name not in found:
                    raise SourceNotFoundError(
                        f"{file.location} has no tree {name!r}, and {files[0].location} or "
                        "another file has: leave it out, or name a tree that all have"
                    )
            opens = [
                partial(_open, file, found[name]) for file, found in zip(files, paths, strict=True)
            ]
            group = _group(name)
            chains[group] = Chain(group, [file.location for file in files], opens, self._decoded)
        return chains

    def _given_trees(self) -> dict[str, Chain]:
        given, location = self._given, self.location
        if isinstance(given, uproot.ReadOnlyDirectory):
            paths = tree_paths(given, self.inner)
            return {
                _group(name): Chain(
                    _group(name), [location], [partial(open_part, given, path)], self._decoded
                )
                for name, path in paths.items()
            }
        name = _group(str(given.name))
        return {name: Chain(name, [location], [partial(part_of, given)], self._decoded)}

    def _arrays(self) -> dict[str, tuple[Chain, str, str]]:
        """Return for each array its tree, its branch, and its path in the branch."""
        with self._lock:
            if self._places is None:
                places = {}
                chains = self._found()
                if all(chain.unreadable for chain in chains.values()):
                    raise next(c.unreadable for c in chains.values() if c.unreadable)
                for group, chain in chains.items():
                    if chain.unreadable:
                        places[group] = (chain, "", "")
                        continue
                    for branch, outline in chain.branches.items():
                        own = f"{group}/{escape(branch)}"
                        for path in outline.columns or ("",):
                            places[f"{own}/{path}" if path else own] = (chain, branch, path)
                self._places = places
            return self._places

    def _place(self, name: str) -> tuple[Chain, str, str]:
        try:
            return self._arrays()[name]
        except KeyError:
            raise SourceNotFoundError(f"{self} has no array {name!r}") from None


def _whole(places: Mapping[str, tuple[Chain, str, str]], names: Iterable[str]) -> set[str]:
    """Return all arrays of the branches that some arrays belong to."""
    found = set()
    for name in names:
        chain, branch, path = places[name]
        if chain.unreadable:
            found.add(name)
            continue
        own = name.removesuffix(f"/{path}") if path else name
        paths = chain.branches[branch].columns
        found |= {f"{own}/{path}" if path else own for path in paths} or {name}
    return found


def _group(path: str) -> str:
    """Return the name of a tree's group. Parts that names cannot have are escaped."""
    return "/".join(map(escape, path.split("/")))


def _open(file: RootFile, path: str) -> TreePart:
    return open_part(file.open(), path)


KIND = SourceKind(
    name="root",
    source=RootSource,
    claims=registry.known["root"].about,
    description="TTrees and RNTuples of ROOT files",
    url="https://uproot.readthedocs.io",
    many=True,
)
