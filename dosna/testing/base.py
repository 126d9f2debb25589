"""What the parts of the conformance kit share."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest

import dosna as dn
from dosna.testing.samples import DTYPES

MakeConnection = Callable[[], dn.Connection]


class Kit:
    """Fixtures and settings of `dosna.testing.BackendTests`.

    Every dataset has a name of its own, and is deleted after its test: a store that holds
    other datasets keeps them.
    """

    pytestmark = pytest.mark.filterwarnings("ignore:the store of connection .* has no conditional")

    dtypes: ClassVar[tuple[Any, ...]] = DTYPES
    """Element types that the store takes."""

    create_options: ClassVar[dict[str, Any]] = {}
    """Keywords for each `create_dataset`, such as ``{'compression': 'gzip'}``."""

    least_axes: ClassVar[int] = 0
    """1 where the `create_options` exclude datasets without axes."""

    examples: ClassVar[int] = 20
    """How many random cases each property is tried on."""

    @pytest.fixture
    def make_connection(self) -> MakeConnection:
        """Give a callable that makes a connection, not yet connected, to the same store."""
        raise NotImplementedError("a subclass of BackendTests has a fixture make_connection")

    @pytest.fixture
    def name(self, make_connection: MakeConnection) -> Iterator[str]:
        """Give a dataset name of this test alone; names that begin with it may be used too."""
        name = f"test-{secrets.token_hex(6)}"
        yield name
        with make_connection() as con:
            for made in [n for n in con if n.startswith(name)]:
                con.del_dataset(made)

    @pytest.fixture
    def con(self, make_connection: MakeConnection) -> Iterator[dn.Connection]:
        """Give a connection that is connected."""
        with make_connection() as con:
            yield con

    def create(self, con: dn.Connection, name: str, *args: Any, **kwargs: Any) -> dn.Dataset:
        """Make a dataset with the `create_options`."""
        return con.create_dataset(name, *args, **{**self.create_options, **kwargs})
