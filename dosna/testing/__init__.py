"""Conformance tests for backends, engines and stores, to be subclassed by whoever writes one.

`BackendTests` (one fixture, ``make_connection``), `EngineTests` (one fixture, ``engine``),
`StoreTests` (one fixture, ``store``) and `SourceTests` (two, ``arrays`` and ``make_source``);
and `dosna.testing.doubles`, stores that count, fail or take their time. Needs pytest and
hypothesis (``pip install 'dosna[test]'``), and is imported by nothing else.
"""

import pytest

_PARTS = (
    *("arrays", "connections", "engine", "machine", "operations"),
    *("samples", "sharing", "source", "store"),
)
pytest.register_assert_rewrite(*(f"dosna.testing.{part}" for part in _PARTS))

from dosna.testing.backend import BackendTests  # noqa: E402
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
