"""Requests to HSDS, and their failures."""

from __future__ import annotations

from typing import ClassVar

from dosna.io import failure, http

__all__ = ["Failure", "Http"]


class Failure(failure.Failure):
    """The reason why one request to HSDS failed."""

    @property
    def absent(self) -> bool:
        """True if the domain or object does not exist (any more)."""
        # "not a member": the domain was deleted, and another one was created under its name.
        return self.status in (404, 410) or "not a member" in self.detail


class Http(http.Http):
    """Requests of any number of threads to one HSDS."""

    failure: ClassVar[type[Failure]] = Failure
