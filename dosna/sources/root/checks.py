"""Checks before uproot decodes a basket: that its bytes are of the assumed type."""

from __future__ import annotations

from typing import Any

import numpy as np
from uproot import containers
from uproot.interpretation.jagged import AsJagged
from uproot.interpretation.known_forth import known_forth_of
from uproot.interpretation.numerical import TruncatedNumerical
from uproot.interpretation.objects import AsObjects
from uproot.source.cursor import Cursor

from dosna.errors import RefusedError
from dosna.sources.root.baskets import VECTOR_HEADER

__all__ = ["checked", "misread"]

_COUNT = containers._stl_container_size


def misread(interpretation: Any) -> str:
    """Return why uproot misreads all branches of a kind; empty if it does not."""
    if type(interpretation) is not AsJagged:
        return ""
    content = interpretation.content
    if isinstance(content, TruncatedNumerical) and content.to_dims:
        extents = "".join(f"[{n}]" for n in content.to_dims)
        return (
            f"uproot misreads lists of {content.typename}: it takes each number of their extents "
            f"{extents} for an element"
        )
    return ""


def checked(interpretation: Any) -> Any:
    """Return an interpretation that reads the same, and refuses bytes that cannot be of its type.

    Parameters
    ----------
    interpretation : uproot.interpretation.Interpretation
        The interpretation of a branch.
    """
    if type(interpretation) is AsJagged:
        return _Lists(
            interpretation.content,
            interpretation.header_bytes,
            interpretation.typename,
            interpretation.original,
        )
    if type(interpretation) is AsObjects and known_forth_of(interpretation.model) is None:
        return AsObjects(_Bounded(interpretation), interpretation.branch)
    return interpretation


class _Lists(AsJagged):  # type: ignore[misc]
    """Lists whose bytes must be exactly their elements, as their headers count them.

    uproot ignores a remainder. It would read elements that ROOT has written member by member as if
    they were written object by object.
    """

    def hook_before_basket_array(self, **given: Any) -> None:
        ends = given["byte_offsets"]
        if ends is None or len(ends) < 2:
            return
        sizes, itemsize = np.diff(ends), int(self.content.itemsize)
        if self.header_bytes:
            sizes -= self.header_bytes
        # For powers of two, this is several times as fast as division.
        even = itemsize & (itemsize - 1) == 0
        wrong = (sizes & (itemsize - 1)) if even else (sizes % itemsize)
        if sizes.min() < 0:
            wrong = sizes < 0
        elif self.header_bytes == VECTOR_HEADER and not wrong.any():
            counts = given["data"][ends[:-1, np.newaxis] + np.arange(6, 10)]
            wrong = np.ascontiguousarray(counts).view(">u4")[:, 0] != sizes // itemsize
        if wrong.any():
            at = int((wrong != 0).argmax())
            raise RefusedError(
                f"uproot would misread it: entry {at} of basket {given['basket'].basket_num} has "
                f"{sizes[at]} bytes, which are not its elements of {itemsize} bytes one after "
                "the other; ROOT may have written them member by member"
            )


class _Bounded(containers.AsContainer):  # type: ignore[misc]
    """A model whose counts of elements must fit the bytes of their entry."""

    def __init__(self, objects: Any) -> None:
        self._objects = objects

    @property
    def cache_key(self) -> str:
        return str(self._objects.cache_key)

    @property
    def typename(self) -> str:
        return str(self._objects.typename)

    def awkward_form(self, file: Any, context: Any) -> Any:
        return self._objects.model.awkward_form(file, context)

    def read(self, chunk: Any, cursor: Any, *rest: Any, **options: Any) -> Any:
        bounded = _BoundedCursor(cursor.index, cursor.origin)
        found = self._objects.model.read(chunk, bounded, *rest, **options)
        cursor.move_to(bounded.index)
        return found


class _BoundedCursor(Cursor):  # type: ignore[misc]
    """A cursor that refuses a count of elements before memory is allocated for them.

    Each element has at least one byte.
    """

    def field(self, chunk: Any, format: Any, context: Any, move: bool = True) -> Any:
        found = super().field(chunk, format, context, move)
        if format is _COUNT and found > (left := chunk.stop - self.index):
            raise RefusedError(
                f"uproot would misread it: its header counts {found} elements, where the entry "
                f"has {left} more bytes"
            )
        return found
