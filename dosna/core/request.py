"""Requests to ingest or to link a source, and to export datasets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from dosna.core.metadata import DatasetMetadata
from dosna.core.options import check_choice
from dosna.core.progress import Progress
from dosna.core.sizes import parse_size

__all__ = ["ExportRequest", "IngestRequest", "Renewal"]


class Renewal(Protocol):
    """A rule that tells which existing datasets are outdated."""

    @property
    def note(self) -> Mapping[str, Any]:
        """Additional entries for the origins of new datasets."""

    def is_outdated(self, there: DatasetMetadata) -> bool:
        """Return True if an existing dataset must be made again."""


@dataclass(frozen=True)
class IngestRequest:
    """The arguments of `Connection.ingest` or `Connection.link`, apart from the source.

    Parameters
    ----------
    name : str, optional
        The name of the dataset, if the source is one array; otherwise a prefix of names.
    select : str or iterable of str, optional
        Patterns of the names of arrays; all by default.
    chunk_size : int, str or sequence of int, optional
        A size in bytes, or an extent for each axis of the arrays that have so many axes.
    on_error : {'raise', 'skip'}
        The action for an array that cannot be represented or read.
    overwrite : bool
        Whether to replace datasets that exist.
    kind : str, optional
        The kind of source.
    progress : bool or callable, optional
        True for a bar, or a callback ``(done, total)`` in bytes.
    memory_limit : int or str, optional
        The most bytes of elements held at a time.
    options : mapping
        The options of the source and of the backend's `create_dataset`.
    unlinkable : {'raise', 'ingest'}, optional
        The action for an array that cannot be linked; None if arrays are not to be linked.
    renewal : Renewal, optional
        A rule by which existing datasets are replaced although `overwrite` is False.

    Raises
    ------
    ConfigurationError
        `on_error` or `unlinkable` is none of the values above.
    ValueError
        `chunk_size` or `memory_limit` is not a size.
    """

    name: str | None = None
    select: str | Iterable[str] | None = None
    chunk_size: int | str | Sequence[int] | None = None
    on_error: Literal["raise", "skip"] = "raise"
    overwrite: bool = False
    kind: str | None = None
    progress: Progress = None
    memory_limit: int | str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    unlinkable: Literal["raise", "ingest"] | None = None
    renewal: Renewal | None = None

    def __post_init__(self) -> None:
        check_choice("on_error", self.on_error, ("raise", "skip"))
        if self.unlinkable is not None:
            check_choice("unlinkable", self.unlinkable, ("raise", "ingest"))
        if self.select is not None:
            select = (self.select,) if isinstance(self.select, str) else tuple(self.select)
            object.__setattr__(self, "select", select)
        _ = self.chunk_bytes, self.memory_bytes  # raises for what is not a size

    @property
    def skips(self) -> bool:
        """True if arrays that cannot be represented or read are left out."""
        return self.on_error == "skip"

    @property
    def links(self) -> bool:
        """True if arrays are linked, and not ingested."""
        return self.unlinkable is not None

    @property
    def prefix(self) -> str:
        """The part of datasets' names above those of several arrays; may be empty."""
        return (self.name or "").rstrip("/")

    @property
    def chunk_bytes(self) -> int | None:
        """The approximate size of chunks; None for the default, or if extents were given."""
        sized = isinstance(self.chunk_size, (int, str))
        return parse_size(self.chunk_size) if sized else None  # type: ignore[arg-type]

    @property
    def memory_bytes(self) -> int | None:
        """The most bytes of elements held at a time; None for no limit."""
        return None if self.memory_limit is None else parse_size(self.memory_limit)


@dataclass(frozen=True)
class ExportRequest:
    """The arguments of `Connection.export`, apart from the datasets and the path.

    Parameters
    ----------
    chunk_size : int or sequence of int, optional
        The extent of chunks in the file; None keeps each dataset's own.
    compression : str, optional
        The name of a compression; None for none.
    on_error : {'raise', 'skip'}
        The action for a dataset that is incomplete or cannot be read.
    overwrite : bool
        Whether to replace what exists at the path.
    progress : bool or callable, optional
        True for a bar, or a callback ``(done, total)`` in chunks.
    memory_limit : int or str, optional
        The most bytes of blocks held at a time.

    Raises
    ------
    ConfigurationError
        `on_error` is none of the values above.
    """

    chunk_size: int | Sequence[int] | None = None
    compression: str | None = None
    on_error: Literal["raise", "skip"] = "raise"
    overwrite: bool = False
    progress: Progress = None
    memory_limit: int | str | None = None

    def __post_init__(self) -> None:
        check_choice("on_error", self.on_error, ("raise", "skip"))
