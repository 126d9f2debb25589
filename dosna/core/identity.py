"""Identities of objects that are the same in all processes of a program."""

from __future__ import annotations

from typing import Any

__all__ = ["Identified"]


class Identified:
    """An object whose `identity` distinguishes it from others in every process."""

    @property
    def identity(self) -> Any:
        """Return a value that is equal in all processes, and different for any other object."""
        raise NotImplementedError(type(self).__name__)
