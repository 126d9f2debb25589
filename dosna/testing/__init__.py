"""Conformance tests for backends, engines and stores, to be subclassed by whoever writes one.

Needs pytest and hypothesis (``pip install 'dosna[test]'``), and is imported by nothing else.
"""

import pytest

for _part in ("arrays", "connections", "machine", "operations", "samples", "sharing"):
    pytest.register_assert_rewrite(f"dosna.testing.{_part}")

from dosna.testing import doubles  # noqa: E402
from dosna.testing.backend import BackendTests  # noqa: E402

__all__ = ["BackendTests"]
