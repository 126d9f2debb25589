"""The backend `sage`: objects of Motr, the store of the SAGE platform."""

from dosna.backends.sage.connection import BACKEND, SageConnection

__all__ = ["BACKEND", "SageConnection"]
