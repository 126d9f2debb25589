"""Descriptions of arguments, equal in every process that was given the same arguments.

The ranks of an MPI program compare what they are about to do by these descriptions, see
`dosna.engines.base.Runner.agree`. Addresses, the order of sets and mappings and the spelling of a
dtype are left out; numbers, names and bytes are included.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Mapping, Set
from enum import Enum
from functools import partial
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np

from dosna.core.compare import value_bytes
from dosna.core.identity import Identified

__all__ = ["meaning"]

_COMPARED_BYTES, _COMPARED_ELEMENTS = 1 << 16, 256
"""Arrays of more bytes than the first are compared by as many elements as the second."""

_MOST_PARTS, _MOST_LEVELS = 1_000_000, 50
"""The limits of the search: objects may be large, or contain themselves."""

_PLAIN = (type(None), bool, int, float, complex, str, bytes)
_FIXED = (*_PLAIN, slice, range, type, np.dtype, np.generic, np.ndarray, Enum, os.PathLike)


def meaning(value: Any) -> Any:
    """Describe a value by its meaning.

    Parameters
    ----------
    value : object
        The value. Containers, dataclasses and objects that pickle by their state are looked into;
        files and locks are not. A function is described by its code, its defaults and what it
        closes over, as far as these are arrays or values that do not change. An object that is
        called like a function, or whose method is, is described by its type alone: it may rightly
        hold something that differs between processes.

    Returns
    -------
    object
        The description, made of tuples, numbers, texts and bytes; its ``repr`` is to be compared.
    """
    return _Meaning().of(value)


class _Meaning:
    def __init__(self) -> None:
        self.parts = 0
        self.functions: set[int] = set()

    def of(self, value: Any, level: int = 0) -> Any:
        self.parts += 1
        if self.parts > _MOST_PARTS or level > _MOST_LEVELS:
            return "...", _type(type(value))
        for kinds, describe in _KINDS:
            if isinstance(value, kinds):
                return describe(self, value, level + 1)
        if isinstance(value, type):
            return "type", _type(value)
        if dataclasses.is_dataclass(value):
            parts = ((f.name, getattr(value, f.name, None)) for f in dataclasses.fields(value))
            return _type(type(value)), *((k, self.of(v, level + 1)) for k, v in parts)
        if hasattr(value, "shape") and hasattr(value, "dtype"):
            return self._source(value, level + 1)
        if callable(value):
            # Also ufuncs and other callables that are not Python functions.
            name = getattr(value, "__qualname__", None) or getattr(value, "__name__", "")
            return "callable", _type(type(value)), name
        if hasattr(type(value), "identity"):  # a source
            return self.of(value.identity, level + 1)
        return self._state(value, level + 1)

    def _several(self, values: Any, level: int) -> tuple[Any, ...]:
        return tuple([self.of(v, level) for v in values])

    def _set(self, values: Set[Any], level: int) -> Any:
        return "set", *sorted(self._several(values, level), key=repr)

    def _mapping(self, values: Mapping[Any, Any], level: int) -> Any:
        pairs = [(self.of(k, level), self.of(v, level)) for k, v in values.items()]
        return "mapping", *sorted(pairs, key=lambda pair: repr(pair[0]))

    def _dtype(self, dtype: np.dtype[Any], level: int) -> Any:
        extra: tuple[Any, ...] = ()
        if dtype.metadata:
            extra = ("metadata", self.of(dict(dtype.metadata), level))
        if dtype.subdtype is not None:
            base, shape = dtype.subdtype
            return "dtype", self.of(base, level), shape, *extra
        if dtype.names is not None:
            described: Any = dtype.fields
            parts = [(name, self.of(described[name], level)) for name in dtype.names]
            return "dtype", dtype.itemsize, *parts, *extra
        if dtype.kind == "T":
            # Its text would contain the address of the object for missing values.
            for name in ("coerce", "na_object"):
                if hasattr(dtype, name):
                    extra = (*extra, name, self.of(getattr(dtype, name), level))
            return "dtype", "StringDType", *extra
        return "dtype", dtype.str, dtype.name, *extra

    def _scalar(self, value: np.generic, level: int) -> Any:
        if value.dtype.kind == "V":
            return self._array(np.asarray(value), level)
        digest = _digest(value_bytes(np.asarray(value)).tobytes())
        return self.of(value.dtype, level), str(value), digest

    def _array(self, array: np.ndarray[Any, Any], level: int) -> Any:
        described = "array", array.shape, self.of(array.dtype, level)
        if isinstance(array, np.ma.MaskedArray):
            described = "masked", self.of(np.ma.getmask(array), level), *described  # type: ignore[assignment]
            array = array.data
        if array.dtype.names is not None:
            # The bytes between the fields are arbitrary.
            fields = ((name, self.of(array[name], level)) for name in array.dtype.names)
            return *described, *fields
        elements = array
        if array.ndim and (array.nbytes > _COMPARED_BYTES or array.dtype.hasobject):
            # `flat` is not used: of an array of StringDType it returns elements that are not text.
            some = np.arange(0, array.size, -(-array.size // _COMPARED_ELEMENTS) or 1)
            elements = array[np.unravel_index(some, array.shape)]
        if array.dtype.hasobject:
            return *described, self.of(elements.tolist(), level)
        return *described, _digest(value_bytes(elements).tobytes())

    def _source(self, value: Any, level: int) -> Any:
        """Describe an object read by slicing without reading it: it may be a large file."""
        place: list[str] = []
        filename = getattr(getattr(value, "file", None), "filename", None)
        if isinstance(filename, str) and os.path.exists(filename):  # h5py
            place = [os.path.abspath(filename), str(getattr(value, "name", ""))]
        shape, dtype = tuple(value.shape), self.of(value.dtype, level)
        return _type(type(value)), shape, dtype, *place

    def _state(self, value: Any, level: int) -> Any:
        """Describe an object as it would be pickled; by its type alone if it cannot be."""
        try:
            reduced = value.__reduce_ex__(4)
        except Exception:
            return (_type(type(value)),)
        if isinstance(reduced, str):
            return _type(type(value)), reduced
        parts = [list(part) if n in (3, 4) and part else part for n, part in enumerate(reduced)]
        return _type(type(value)), *self._several(parts, level)

    def _function(self, func: FunctionType, level: int) -> Any:
        if id(func) in self.functions:  # they may close over each other
            return "function", func.__module__, func.__qualname__
        self.functions.add(id(func))
        cells = zip(func.__code__.co_freevars, func.__closure__ or (), strict=True)
        closed = ((name, self._cell(cell, level)) for name, cell in cells)
        defaults = self._fixed(func.__defaults__, level)
        named = [
            (k, self._fixed(v, level)) for k, v in sorted((func.__kwdefaults__ or {}).items())
        ]
        return (
            "function",
            func.__module__,
            func.__qualname__,
            *self._code(func.__code__, level),
            *(("defaults", defaults) if defaults else ()),
            *named,
            *closed,
        )

    def _cell(self, cell: Any, level: int) -> Any:
        try:
            return self._fixed(cell.cell_contents, level)
        except ValueError:  # it is not bound yet
            return None

    def _fixed(self, value: Any, level: int) -> Any:
        """Describe a value that a function holds, if it cannot change; otherwise its type.

        A value that can change may be one that this process alone has noted.
        """
        if type(value) in (tuple, frozenset):
            parts = [self._fixed(v, level + 1) for v in value] if level < _MOST_LEVELS else []
            return tuple(sorted(parts, key=repr) if isinstance(value, frozenset) else parts)
        if isinstance(value, (*_FIXED, *_FUNCTIONS, Identified)):
            return self.of(value, level)
        return (_type(type(value)),)

    def _code(self, code: CodeType, level: int) -> tuple[Any, ...]:
        """Describe code, so that lambdas are told apart."""
        constants = [
            self._code(c, level + 1) if isinstance(c, CodeType) else self.of(c, level)
            for c in code.co_consts
        ]
        return _digest(code.co_code), code.co_names, *constants

    def _method(self, method: MethodType, level: int) -> Any:
        return "method", self.of(method.__func__, level), self._fixed(method.__self__, level)

    def _partial(self, value: partial[Any], level: int) -> Any:
        return "partial", self._several((value.func, value.args, value.keywords), level)


_FUNCTIONS = (FunctionType, MethodType, partial, np.ufunc)

# The first entry that fits counts: an IntEnum is an int, and a NumPy float is a float.
_KINDS: tuple[tuple[Any, Callable[[_Meaning, Any, int], Any]], ...] = (
    (Enum, lambda m, v, level: ("enum", _type(type(v)), v.name)),
    (np.generic, _Meaning._scalar),
    (_PLAIN, lambda m, v, level: v),
    (type(...), lambda m, v, level: "..."),
    ((list, tuple), _Meaning._several),
    (Mapping, _Meaning._mapping),
    (Set, _Meaning._set),
    (Identified, lambda m, v, level: m.of(v.identity, level)),
    (np.dtype, _Meaning._dtype),
    (np.ndarray, _Meaning._array),
    (slice, lambda m, v, level: ("slice", *m._several((v.start, v.stop, v.step), level))),
    (range, lambda m, v, level: ("range", v.start, v.stop, v.step)),
    ((bytearray, memoryview), lambda m, v, level: ("bytes", _digest(bytes(v)))),
    # Absolute, because a relative path depends on the folder of the process.
    (os.PathLike, lambda m, v, level: ("path", os.path.abspath(os.fspath(v)))),
    (FunctionType, _Meaning._function),
    (MethodType, _Meaning._method),
    (partial, _Meaning._partial),
)


def _type(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _digest(data: bytes) -> str:
    return data.hex() if len(data) <= 16 else hashlib.sha256(data).hexdigest()[:32]
