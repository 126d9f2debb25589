"""Finding the values that a conversion to another dtype would change."""

from __future__ import annotations

from typing import Any

import numpy as np

from dosna.core.types import Array

__all__ = ["check_values", "lost", "times_for_arrow"]


def check_values(values: Array, dtype: np.dtype[Any], what: str) -> Array:
    """Return values that can be assigned to `dtype` unchanged; see `lost`.

    Parameters
    ----------
    values : ndarray
        The values to convert.
    dtype : dtype
        The dtype to convert to.
    what : str
        The name of the values in errors, such as ``data to append``.

    Returns
    -------
    ndarray
        `values`, or their real part if they are complex and `dtype` is not.

    Raises
    ------
    ValueError
        A conversion would change some of the values.
    """
    if values.dtype == dtype:
        return values
    changed = lost(values, dtype)
    if changed.any():
        at = tuple(map(int, np.unravel_index(int(np.argmax(changed)), changed.shape)))
        raise ValueError(
            f"{what} of dtype {values.dtype} do not fit dtype {dtype}: {values[at]!r} would be "
            "changed. Convert them first, data.astype(dtype), or assign them, ds[...] = data, "
            "which converts as NumPy does"
        )
    # NumPy warns about imaginary parts even if they are all zero.
    return values.real if values.dtype.kind == "c" and dtype.kind in "biuf" else values


def times_for_arrow(times: Array) -> Array:
    """Return dates or time spans in a unit that Arrow has, where only their factor prevents it.

    pyarrow reads counts of 25 s as seconds, and keeps the lower 32 bits of a number of days.

    Raises
    ------
    ValueError
        A value has no number of 64 bits in the unit, or a date no number of 32 bits in days.
    """
    unit, factor = np.datetime_data(times.dtype)
    if factor != 1:
        single = np.dtype(f"{times.dtype.kind}8[{unit}]")
        times = check_values(times, single, "dates or time spans").astype(single)
    if times.dtype == "M8[D]":
        check_values(times.view("i8")[~np.isnat(times)], np.dtype("i4"), "days of dates")
    return times


def lost(values: Array, dtype: np.dtype[Any]) -> Array:
    """Return, for each value, whether a conversion to `dtype` changes it.

    Rounding to the precision of a float does not count as a change, even if digits are lost;
    becoming infinite does. Values that NumPy refuses to convert are not checked.
    """
    source = values.dtype
    none = np.zeros(values.shape, bool)
    if source == dtype:
        return none
    if source.names is not None or dtype.names is not None:
        return _lost_of_fields(values, dtype, none)
    if source.kind == "O":
        plain = np.array(values.tolist())
        return none if plain.dtype == object or plain.shape != values.shape else lost(plain, dtype)
    if source.kind in "biufc" and dtype.kind in "biufc":
        return _lost_numbers(values, dtype)
    if source.kind in "mM" and dtype.kind in "biufc":
        return lost(values.view(source.str[0] + "i8"), dtype)
    if source.kind in "biufc" and dtype.kind in "mM":
        return np.asarray(lost(values, np.dtype("i8")) & (values == values))  # NaN becomes NaT
    if source.kind in "mM" and dtype.kind in "mM":
        if source.kind != dtype.kind:
            return ~np.isnat(values)
        return _lost_times(values, dtype)
    if dtype.kind in "SU" and source.kind not in "V":
        return _lost_text(values, dtype, none)
    if dtype.kind == "V" and source.kind in "SUV":
        return np.full(values.shape, source.itemsize > dtype.itemsize)
    return none


def _lost_times(values: Array, dtype: np.dtype[Any]) -> Array:
    try:
        back = values.astype(dtype).astype(values.dtype)
    except OverflowError:  # of NumPy from 2.5 on, where others wrap around
        if values.size == 1:
            return np.ones(values.shape, bool)
        halves = np.array_split(values.ravel(), 2)
        return np.concatenate([_lost_times(half, dtype) for half in halves]).reshape(values.shape)
    return np.asarray((back != values) & ~(np.isnat(back) & np.isnat(values)))


def _lost_of_fields(values: Array, dtype: np.dtype[Any], none: Array) -> Array:
    ours, theirs = values.dtype.names, dtype.names
    if ours is None or theirs is None or len(ours) != len(theirs):
        return none
    changed = none.copy()
    for mine, other in zip(ours, theirs, strict=True):  # as NumPy assigns them, by position
        within = lost(values[mine], dtype[other].base)
        changed |= within.any(axis=tuple(range(values.ndim, within.ndim)))
    return changed


def _lost_numbers(values: Array, dtype: np.dtype[Any]) -> Array:
    changed = np.zeros(values.shape, bool)
    if values.dtype.kind == "c" and dtype.kind != "c":
        changed |= values.imag != 0
        values = values.real
    if dtype.kind == "b":
        return np.asarray(changed | ((values != 0) & (values != 1)))
    if np.can_cast(values.dtype, dtype, "safe"):
        return changed
    if dtype.kind in "fc":
        with np.errstate(all="ignore"):
            infinite = np.isfinite(values) & ~np.isfinite(values.astype(dtype))
        return np.asarray(changed | infinite)
    limits = np.iinfo(dtype)
    if values.dtype.kind in "iu":
        return np.asarray(changed | (values < limits.min) | (values > limits.max))
    wide = values.astype(np.result_type(values.dtype, np.float64))
    # The largest integer may have no exact float, but the number after it has one.
    inside = (wide >= float(limits.min)) & (wide < float(limits.max // 2 + 1) * 2)
    return np.asarray(changed | ~inside | (np.trunc(wide) != wide))


def _lost_text(values: Array, dtype: np.dtype[Any], none: Array) -> Array:
    source = values.dtype
    if source.kind == dtype.kind and source.itemsize <= dtype.itemsize:
        return none
    wide = np.array([str(v) for v in values.flat]) if values.dtype.kind == "T" else values
    try:
        full = wide.reshape(values.shape).astype(dtype.kind)
        return np.asarray(full != full.astype(dtype))
    except (UnicodeError, TypeError, ValueError):
        return none
