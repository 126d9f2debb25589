"""Conformance tests for backends, engines, stores, sources and codecs, for their authors.

Subclass `BackendTests` (one fixture, ``make_connection``), `EngineTests` (one fixture,
``engine``), `StoreTests` (one fixture, ``store``), `SourceTests` (two fixtures, ``arrays`` and
``make_source``) or `CodecTests` (one fixture, ``compression``). `dosna.testing.doubles` has stores
that count, fail or are slow. The package needs pytest and hypothesis
(``pip install 'dosna[test]'``); no other module imports it.
"""

import pytest

_PARTS = (
    *("arrays", "codec", "connections", "engine", "machine", "operations"),
    *("samples", "sharing", "source", "store"),
)
pytest.register_assert_rewrite(*(f"dosna.testing.{part}" for part in _PARTS))

from dosna.testing.backend import BackendTests  # noqa: E402
from dosna.testing.codec import CodecTests  # noqa: E402
from dosna.testing.doubles import (  # noqa: E402
    CountingStore,
    FaultyStore,
    FolderStore,
    MemoryStore,
    SlowStore,
    use_store,
)
from dosna.testing.engine import EngineTests  # noqa: E402
from dosna.testing.source import SourceTests  # noqa: E402
from dosna.testing.store import StoreTests  # noqa: E402

__all__ = [
    "BackendTests",
    "CodecTests",
    "CountingStore",
    "EngineTests",
    "FaultyStore",
    "FolderStore",
    "MemoryStore",
    "SlowStore",
    "SourceTests",
    "StoreTests",
    "use_store",
]
