"""Datasets on a store of bytes, which can get, put, delete and list objects."""

from dosna.backends.stores.connection import StoreConnection
from dosna.backends.stores.store import ABSENT, Blob, ByteRange, Stat, Store, VersionConflict

__all__ = ["ABSENT", "Blob", "ByteRange", "Stat", "Store", "StoreConnection", "VersionConflict"]
