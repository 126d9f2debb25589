"""The place that a connection leads to: made and removed, connected and disconnected."""

from __future__ import annotations

from typing import Any, Literal, Self

from dosna.array.home import ArrayHome
from dosna.backends.base import BackendConnection
from dosna.core.options import check_choice
from dosna.core.sizes import parse_size
from dosna.errors import ConfigurationError, NotConnectedError

__all__ = ["Place", "use_cache"]


class Place(ArrayHome):
    """The state of a connection, and what it allows."""

    @property
    def name(self) -> str:
        """The name that the connection was made with."""
        return self.instance.name

    @property
    def mode(self) -> str:
        """'a', or 'r' for a connection that refuses every change."""
        return self.instance.mode

    def make_place(self) -> bool:
        """Create what `connect` needs to exist, such as a folder, if its surroundings exist.

        Returns
        -------
        bool
            True if it did not exist before.
        """
        return self.instance.make_place()

    def remove_place(self) -> None:
        """Remove what `make_place` has created, if it is still empty."""
        self.instance.remove_place()

    @property
    def connected(self) -> bool:
        """True between `connect` and `disconnect`."""
        return self.instance.connected

    def connect(self) -> None:
        """Connect to the store. Connecting twice does nothing.

        Raises
        ------
        dosna.errors.ConnectionError
            The store cannot be reached, or refuses the connection.

        Examples
        --------
        >>> con.disconnect()
        >>> con.connect()
        >>> con.connected
        True
        """
        self.instance.connect()

    def disconnect(self) -> None:
        """Disconnect from the store. Disconnecting twice does nothing.

        Examples
        --------
        >>> con.disconnect()
        >>> con.connected
        False
        """
        self.instance.disconnect()

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(self, *exc: object) -> None:
        self.disconnect()

    def check_connected(self) -> None:
        """Raise an error if the connection is not open.

        Raises
        ------
        NotConnectedError
            The connection is used before `connect` or after `disconnect`.
        """
        if not self.instance.connected:
            raise NotConnectedError(
                f"connection {self.name!r} is not connected: use it within `with`, or call "
                "connect() first"
            )

    def check_writable(self) -> None:
        """Raise an error if the connection is not open for writing.

        Raises
        ------
        NotConnectedError
            The connection is used before `connect` or after `disconnect`.
        ReadOnlyError
            The connection's mode is 'r'.
        """
        self.check_connected()
        self.instance.check_writable()

    @property
    def identity(self) -> tuple[Any, ...]:
        """The values that cooperating processes must agree on before they start."""
        return (type(self.instance).__name__, self.instance.location, self.mode, self.connected)


def use_cache(
    instance: BackendConnection, cache: int | str | None, recheck: Literal["always", "open"]
) -> None:
    """Keep decoded chunks in memory as the parameters of a connection ask for.

    Raises
    ------
    ConfigurationError
        A value is bad, or the backend has no cache.
    """
    check_choice("recheck", recheck, ("always", "open"))
    if cache is None:
        return
    try:
        limit = parse_size(cache)
    except (TypeError, ValueError):
        raise ConfigurationError(
            f"cache must be a number of bytes or a text like '256 MiB', not {cache!r}: leave it "
            "out to have no cache"
        ) from None
    instance.use_cache(limit, recheck)
