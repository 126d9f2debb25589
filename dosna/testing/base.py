"""The base class of the conformance tests of a backend."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, TypeVar

import pytest

import dosna as dn
from dosna.testing.samples import DTYPES

T = TypeVar("T")
MakeConnection = Callable[[], dn.Connection]


class Kit:
    """Fixtures and settings of `dosna.testing.BackendTests`.

    Every dataset has a name of its own, and is deleted after its test. Other datasets of the
    store are kept.
    """

    pytestmark = pytest.mark.filterwarnings("ignore:the store of connection .* has no conditional")

    dtypes: ClassVar[tuple[Any, ...]] = DTYPES
    """The element types that the store can hold."""

    create_options: ClassVar[dict[str, Any]] = {}
    """The keywords for each `create_dataset`, such as ``{'compression': 'gzip'}``."""

    least_axes: ClassVar[int] = 0
    """The least number of axes: 1 if the `create_options` exclude datasets without axes."""

    examples: ClassVar[int] = 20
    """The number of random cases for each property."""

    thorough: ClassVar[bool] = True
    """True for all cases of long lists, False for a quarter of them.

    False is for a store that has slow requests and was tested on all cases under another engine.
    """

    @pytest.fixture
    def make_connection(self) -> MakeConnection:
        """Return a callable that makes a connection, not yet connected, to the same store."""
        raise NotImplementedError("a subclass of BackendTests has a fixture make_connection")

    @pytest.fixture
    def name(self, make_connection: MakeConnection) -> Iterator[str]:
        """Yield a dataset name for one test, which may also use names that begin with it."""
        name = f"test-{secrets.token_hex(6)}"
        yield name
        with make_connection() as con:
            for made in [n for n in con if n.startswith(name)]:
                con.del_dataset(made)

    @pytest.fixture
    def con(self, make_connection: MakeConnection) -> Iterator[dn.Connection]:
        """Yield an open connection."""
        with make_connection() as con:
            yield con

    @pytest.fixture
    def other(self, name: str) -> dn.Connection:
        """Return a connection to another store, for an engine that works with the first one's."""
        return dn.Connection(name, backend="ram", engine="cpu")

    def create(self, con: dn.Connection, name: str, *args: Any, **kwargs: Any) -> dn.Dataset:
        """Create a dataset with the `create_options`."""
        return con.create_dataset(name, *args, **{**self.create_options, **kwargs})

    def some(self, cases: Sequence[T]) -> Sequence[T]:
        """Return all cases of a long list, or fewer if the tests are not `thorough`."""
        return cases if self.thorough else cases[::4]
