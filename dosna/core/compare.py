"""Comparing arrays, and the results of comparisons and checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np

from dosna.core.casting import lost
from dosna.core.text import TEXT, converted, is_text
from dosna.core.types import Array, Shape

__all__ = ["Comparison", "Verification", "other_bytes", "unequal", "value_bytes"]


def unequal(one: Array, other: Array) -> Array:
    """Return, for each element, whether it differs. NaN and NaT are equal to themselves."""
    if one.dtype.names is not None:
        if one.dtype.names != other.dtype.names:
            raise TypeError(f"cannot compare {one.dtype} with {other.dtype}: their fields differ")
        return _by_fields(unequal, one, other)
    if one.dtype.kind == other.dtype.kind == "V":
        return np.asarray(one != other)
    if {one.dtype.kind, other.dtype.kind} == {"T", "U"}:
        one, other = converted(one, TEXT), converted(other, TEXT)
    if one.dtype != other.dtype and one.dtype.kind == other.dtype.kind and one.dtype.kind in "mM":
        # NumPy compares them in the finer unit, which does not have all of them.
        finer = np.promote_types(one.dtype, other.dtype)
        beyond = np.asarray(lost(one, finer) | lost(other, finer))
        if beyond.any():
            kept = ~beyond
            beyond[kept] = unequal(one[kept], other[kept])
            return beyond
    # The operator would call a text and a number different; the function refuses to compare them.
    differ = np.asarray(np.not_equal(one, other))
    kinds = one.dtype.kind + other.dtype.kind
    if kinds in ("if", "uf", "ic", "uc", "fi", "fu", "ci", "cu"):
        # NumPy compares them as floats, to which large integers are rounded.
        integers, floats = (one, other) if kinds[0] in "iu" else (other, one)
        floats = floats.real  # an imaginary part differs in any case
        limits = np.iinfo(integers.dtype)
        inside = (floats >= float(limits.min)) & (floats < float(limits.max) + 1)
        differ |= ~inside | (np.where(inside, floats, 0).astype(integers.dtype) != integers)
    if one.dtype.kind in "fcmM" and differ.any():
        differ &= ~((one != one) & (other != other))
    return differ


def _by_fields(compare: Callable[[Array, Array], Array], one: Array, other: Array) -> Array:
    differ = np.zeros(one.shape, bool)
    for name in one.dtype.names or ():
        within = compare(one[name], other[name])
        differ |= within.any(axis=tuple(range(one.ndim, within.ndim)))
    return differ


def other_bytes(one: Array, other: Array) -> Array:
    """Return, for each element of two arrays of one dtype, whether any byte of it differs."""
    if one.dtype.names is not None:
        # Field by field, because the bytes between fields are not part of the value.
        return _by_fields(other_bytes, one, other)
    if is_text(one.dtype):
        return np.asarray(one != other)
    unlike = value_bytes(one) != value_bytes(other)
    return np.asarray(unlike.any(axis=1).reshape(one.shape))


def value_bytes(array: Array) -> Array:
    """Return the bytes of each element, without those that a long double leaves undefined."""
    dtype, size = array.dtype, array.size
    parts = 2 if dtype.kind == "c" else 1
    if not dtype.itemsize:
        return np.empty((size, 0), np.uint8)
    flat: Array = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    found = flat.reshape(size, parts, dtype.itemsize // parts)
    if dtype.char in "gG" and np.finfo(dtype).nmant == 63:
        found = found[..., :10] if dtype.isnative else found[..., -10:]  # x87's
    return found.reshape(size, parts * found.shape[2])


@dataclass(frozen=True)
class Verification:
    """The result of `EngineDataset.verify`: the chunk indices in each state, sorted."""

    ok: tuple[Shape, ...] = ()
    unchecked: tuple[Shape, ...] = ()
    never_written: tuple[Shape, ...] = ()
    missing: tuple[Shape, ...] = ()
    corrupt: tuple[Shape, ...] = ()
    unreadable: tuple[Shape, ...] = ()

    @property
    def good(self) -> bool:
        """True if no chunk is missing, corrupt or unreadable."""
        return not (self.missing or self.corrupt or self.unreadable)

    def __str__(self) -> str:
        counts = [(f.name.replace("_", " "), getattr(self, f.name)) for f in fields(self)]
        return ", ".join(f"{len(found)} {state}" for state, found in counts if found) or "empty"


@dataclass(frozen=True)
class Comparison:
    """The result of `EngineDataset.compare`.

    Parameters
    ----------
    chunks : int
        The number of chunks that were compared.
    different : tuple
        The indices of the chunks that differ, sorted.
    elements : int
        The number of elements that differ.
    first : tuple of int or None
        The index of the first element that differs, in C order.
    """

    chunks: int
    different: tuple[Shape, ...] = ()
    elements: int = 0
    first: Shape | None = None

    @property
    def equal(self) -> bool:
        """True if no element differs."""
        return not self.elements

    def __str__(self) -> str:
        if self.equal:
            return f"{self.chunks} of {self.chunks} chunks equal"
        return (
            f"{len(self.different)} of {self.chunks} chunks differ, in {self.elements} elements: "
            f"first at {self.first}"
        )
