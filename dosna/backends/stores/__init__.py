"""Datasets on a store of bytes, whose objects can be got, put, deleted and listed."""

from dosna.backends.stores.connection import StoreConnection
from dosna.backends.stores.store import ABSENT, Blob, ByteRange, Store, VersionConflict

__all__ = ["ABSENT", "Blob", "ByteRange", "Store", "StoreConnection", "VersionConflict"]
