"""Datasets of trees that dosna already stores as columns, on any backend."""

from __future__ import annotations

from dosna.array.opening import open_url
from dosna.columns import find_trees as trees_of
from dosna.delivery.finders.allowed import check_source
from dosna.delivery.settings import Settings
from dosna.delivery.state.datasets import FoundFile
from dosna.errors import ConnectionError, DosnaError, SourceNotFoundError, StorageError

__all__ = ["find_trees"]


def find_trees(rest: str, settings: Settings) -> list[FoundFile]:
    """Return the trees of a connection, ``dosna://BACKEND:PLACE``, each of which is a file.

    With ``//GROUP`` at the end, these are the tree in that group and those below it.
    """
    source = check_source("dosna:" + rest, settings).removeprefix("dosna://")
    try:
        con, group = open_url(source, mode="r")
        with con:
            names = sorted(trees_of(con, group))
    except ConnectionError as error:
        raise StorageError(f"{source} cannot be opened: {error}") from None
    except DosnaError as error:
        raise SourceNotFoundError(f"{source} cannot be opened: {error}") from None
    names = [n for n in names if not group or n == group or n.startswith(group + "/")]
    if not names:
        raise SourceNotFoundError(f"there is no tree of columns in {source}")
    place = source.removesuffix(group).rstrip("/") if group else source.rstrip("/")
    return [FoundFile(f"dosna://{place}//{name}") for name in names]
