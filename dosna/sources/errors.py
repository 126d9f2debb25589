"""Errors of the libraries that sources read by, converted to those of dosna."""

from __future__ import annotations

from collections.abc import Callable

from dosna.errors import ConnectionError, DosnaError, SourceChangedError, StorageError

__all__ = ["OF_READING", "Converting"]

OF_READING = (SourceChangedError, StorageError, ConnectionError)
"""Errors of reading a file, which are no damage of it. libhdf5 passes them on."""


class Converting:
    """A context that converts what a library raises. Errors of dosna stay as they are.

    Parameters
    ----------
    convert : callable
        A function of an error that returns the error to raise instead, or None to leave it.
    """

    def __init__(self, convert: Callable[[Exception], DosnaError | None]) -> None:
        self._convert = convert

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, DosnaError):
            converted = self._convert(error)
            if converted is not None:
                raise converted from error
