"""What the processes of a program call the same thing."""

from __future__ import annotations

from typing import Any

__all__ = ["Identified"]


class Identified:
    """A thing that is told from others by its `identity`, in every process alike."""

    @property
    def identity(self) -> Any:
        """Return a value that is equal in all processes, and for nothing else."""
        raise NotImplementedError(type(self).__name__)
