"""Finders: from the identifier of a dataset to its files.

A finder is a function of the part of the identifier after ``SCHEME:`` and of the settings. It
returns `FoundFile`s, always in the same order. It raises `SourceNotFoundError` if there is no such
dataset, and other `SourceError`s if the identifier is malformed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from importlib import import_module

from dosna.delivery.finders.allowed import check_source
from dosna.delivery.settings import Settings
from dosna.delivery.state.datasets import FoundFile
from dosna.errors import SourceError, SourceNotFoundError
from dosna.io.texts import is_text

__all__ = ["check_source", "find", "split"]

Finder = Callable[[str, Settings], Sequence[FoundFile]]

_FINDERS = {
    "glob": "folders:find_pattern",
    "folder": "folders:find_folder",
    "s3": "remote:find_s3",
    "http": "remote:find_http",
    "https": "remote:find_http",
    "xrootd": "remote:find_xrootd",
    "rucio": "catalogues:find_rucio",
    "cernopendata": "catalogues:find_opendata",
    "dosna": "trees:find_trees",
}
"""The schemes of identifiers, and their finders: the module in this package and the function."""

_MOST = 10**9
_FORM = re.compile(r"([a-z][a-z0-9+.-]*):(.+)", re.DOTALL)
_NUMBER = re.compile(r"[?&]files=([0-9]+)$")


def split(did: str) -> tuple[str, str, int | None]:
    """Return the scheme of an identifier, the rest, and the requested number of files.

    Parameters
    ----------
    did : str
        The identifier, such as ``rucio://user.me:dataset?files=2``.

    Raises
    ------
    SourceError
        There is no finder for the scheme.
    """
    number = _NUMBER.search(did)
    if number:
        did = did[: number.start()]
    parts = _FORM.fullmatch(did)
    if parts is None or parts[1] not in _FINDERS:
        raise SourceError(
            f"the dataset {did!r} cannot be looked up: it must begin with one of "
            + ", ".join(f"{name}:" for name in _FINDERS)
        )
    return parts[1], parts[2], min(int(number[1]), _MOST) if number else None


def find(did: str, settings: Settings) -> list[FoundFile]:
    """Look up a dataset.

    Parameters
    ----------
    did : str
        The identifier, without a number of files.
    settings : Settings
        The settings, with the served folders and URLs.

    Raises
    ------
    SourceNotFoundError
        There is no such dataset, or it has no files.
    SourceError
        The identifier is malformed, or the files are not served.
    """
    scheme, rest, _ = split(did)
    module, _, name = _FINDERS[scheme].partition(":")
    finder: Finder = getattr(import_module(f"dosna.delivery.finders.{module}"), name)
    # If the identifier is a URL, the scheme belongs to it.
    found = finder(did if scheme in ("s3", "http", "https") else rest, settings)
    if not found:
        raise SourceNotFoundError(f"the dataset {did} has no files: check its name")
    strange = next((file.path for file in found if not is_text(file.path)), None)
    if strange is not None:
        name = strange.encode(errors="replace").decode()
        raise SourceError(f"the name of the file {name} is not in UTF-8: rename it")
    return [FoundFile(check_source(file.path, settings), file.size, file.events) for file in found]
