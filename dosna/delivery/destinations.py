"""Destinations of results: groups of the connections that the operator permits."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from dosna.core.names import check_name
from dosna.errors import ConfigurationError, DatasetNameError, QueryError

if TYPE_CHECKING:
    from dosna.delivery.settings import Settings

__all__ = ["LOCAL_BACKENDS", "OBJECT_STORE", "check_destination", "open_destination", "place_of"]

OBJECT_STORE = "object-store"
"""The destination that clients know: results are files, which they fetch."""

LOCAL_BACKENDS = ("hdf5", "file", "zarr")
"""The backends whose connections are folders."""

_SCHEME = "dosna:"


def place_of(text: str) -> str:
    """Return a permitted connection as it is compared with what is asked for.

    Parameters
    ----------
    text : str
        The URL of a connection, ``BACKEND:PLACE?OPTIONS``.

    Raises
    ------
    ConfigurationError
        It is not the URL of a connection, or its folder does not exist.
    """
    where, mark, options = text.partition("?")
    backend, colon, place = where.partition(":")
    if not colon or not place.strip("/"):
        raise ConfigurationError(
            f"the destination {text!r} is not the URL of a connection: write BACKEND:PLACE, such "
            "as file:/data/columns"
        )
    if backend in LOCAL_BACKENDS:
        folder = os.path.realpath(place)
        if not os.path.isdir(folder):
            raise ConfigurationError(
                f"there is no folder {place}, which is to be a destination: create it"
            )
        where = f"{backend}:{folder}"
    return where.rstrip("/") + mark + options


def check_destination(text: str, user: str | None, settings: Settings) -> str | None:
    """Return a destination as it is kept; None for files that clients fetch.

    Parameters
    ----------
    text : str
        The destination: ``object-store``, or ``dosna:BACKEND:PLACE//GROUP``.
    user : str or None
        The user, below whose name the group must be; None without users.
    settings : Settings
        The settings, with the permitted destinations.

    Raises
    ------
    QueryError
        There is no such destination, or the group is not one for this user.
    """
    if text == OBJECT_STORE:
        return None
    asked = text.removeprefix(_SCHEME).removeprefix("//")
    for permitted in settings.destinations:
        shown = permitted.partition("?")[0]
        if text.startswith(_SCHEME) and asked.startswith(shown + "//"):
            group = asked[len(shown) + 2 :]
            try:
                check_name(group)
            except DatasetNameError as error:
                raise QueryError(f"{text!r} is not a destination: {error}") from None
            if user is not None and not group.startswith(f"{user}/"):
                raise QueryError(
                    f"{text!r} is not for you: write to {_SCHEME}{shown}//{user}/NAME"
                )
            return f"{_SCHEME}{shown}//{group}"
    places = [f"{_SCHEME}{one.partition('?')[0]}//GROUP" for one in settings.destinations]
    raise QueryError(
        f"results cannot go to {text!r}: the destinations are {', '.join([OBJECT_STORE, *places])}"
    )


def open_destination(text: str, settings: Settings) -> tuple[Any, str]:
    """Return the connection of a destination, which is not connected yet, and the group.

    Parameters
    ----------
    text : str
        The result of `check_destination`.
    settings : Settings
        The settings, with the permitted destinations.

    Raises
    ------
    ConfigurationError
        The operator does not permit it any more.
    """
    from dosna.array.opening import open_url

    asked = text.removeprefix(_SCHEME)
    for permitted in settings.destinations:
        shown, mark, options = permitted.partition("?")
        if asked.startswith(shown + "//"):
            # Without a name, so that nothing of it is taken for a part of the place.
            border = "//" if shown.partition(":")[0] in LOCAL_BACKENDS else ""
            con, _ = open_url(shown + border + mark + options, mode="a", engine="cpu")
            return con, asked[len(shown) + 2 :]
    raise ConfigurationError(
        f"the destination {text} is not permitted any more: send the request again with another"
    )
