"""The branches of a tree of one file, whatever the kind of the tree."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from dosna.columns.layout import columns, form_of
from dosna.core.types import Array
from dosna.errors import DosnaError, RefusedError

__all__ = ["BranchHere", "TreePart"]


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

    def rows(self, name: str, start: int, stop: int) -> dict[str, Array] | None:
        """Decode entries, as `read` does, into the rows of the columns by their paths.

        Offsets count from `start`. None is returned if only `read` can decode them.
        """
        return None

    @abstractmethod
    def cluster(self) -> int | None:
        """Return the usual number of entries that are kept together in all branches."""
