"""What the parts of the conformance kit share."""

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

    thorough: ClassVar[bool] = True
    """False takes a quarter of the long lists of cases: for a store whose requests are slow, and
    that was tried on all of them under another engine."""

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

    def some(self, cases: Sequence[T]) -> Sequence[T]:
        """Give all cases of a long list, or fewer where the test is not `thorough`."""
        return cases if self.thorough else cases[::4]
