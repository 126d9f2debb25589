"""Selections of the kind uproot-raw: a JSON list of trees and what to read from them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dosna.errors import QueryError, SourceNotFoundError

__all__ = ["RawQuery", "no_tree", "parse_raw"]

_TEXTS = ("expressions", "filter_name", "filter_typename")
_FLAGS = ("fail_on_missing_trees", "use_standard_awkward_axis")
_KEYS = {"treename", "copy_histograms", "cut", "aliases", *_TEXTS, *_FLAGS}


@dataclass(frozen=True)
class RawQuery:
    """One entry of the list: trees to read, or objects to copy.

    Parameters
    ----------
    trees : mapping of str to str
        The names of trees in the result, by their names in the file.
    expressions, filter_name, filter_typename : tuple of str or None
        The columns to compute or read, as for `uproot.TTree.arrays`.
    cut : str or None
        The condition.
    aliases : mapping of str to str
        Expressions by the names under which other expressions use them.
    fail_on_missing_trees : bool
        True if each of the trees must exist.
    use_standard_awkward_axis : bool
        False if functions such as ``sum`` and ``any`` work within each entry.
    copy_histograms : tuple of str
        Names and patterns of objects to copy; there are no trees in this case.
    """

    trees: Mapping[str, str]
    expressions: tuple[str, ...] | None = None
    cut: str | None = None
    filter_name: tuple[str, ...] | None = None
    filter_typename: tuple[str, ...] | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)
    fail_on_missing_trees: bool = False
    use_standard_awkward_axis: bool = False
    copy_histograms: tuple[str, ...] = ()


def parse_raw(text: str) -> list[RawQuery]:
    """Return the entries of a selection.

    Other services ignore keys that they do not know. A misspelt ``filter_name`` would then give
    all columns, so they are refused here.

    Raises
    ------
    QueryError
        The text is not such a selection, or an entry has an unknown key.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise QueryError(f"the selection is not JSON: {error}. Send a list of objects.") from None
    if not isinstance(found, list) or not found:
        raise QueryError(
            "the selection must be a list of objects, such as "
            '[{"treename": "Events", "filter_name": ["MET_pt"]}]'
        )
    return [_parse(one, number) for number, one in enumerate(found)]


def _parse(given: Any, number: int) -> RawQuery:
    where = f"entry {number} of the selection"
    if not isinstance(given, dict):
        raise QueryError(f"{where} is not an object with a treename, but {given!r}")
    if unknown := sorted(map(str, given.keys() - _KEYS)):
        raise QueryError(
            f"{where} has unknown keys: {', '.join(unknown)}. Use {', '.join(sorted(_KEYS))}"
        )
    trees, copied = given.get("treename"), given.get("copy_histograms")
    if trees and copied:
        raise QueryError(f"{where} has both treename and copy_histograms: use an entry for each")
    if copied:
        return RawQuery({}, copy_histograms=_texts(copied, f"copy_histograms of {where}") or ())
    if not trees:
        raise QueryError(f"{where} has neither treename nor copy_histograms: name a tree")
    if not isinstance(trees, dict):
        trees = {name: name for name in _texts(trees, f"treename of {where}") or ()}
    cut = given.get("cut")
    if cut is not None and not isinstance(cut, str):
        raise QueryError(f"cut of {where} must be a text, not {cut!r}")
    others: dict[str, Any] = {
        **{name: _texts(given.get(name), f"{name} of {where}") for name in _TEXTS},
        **{name: _flag(given.get(name), f"{name} of {where}") for name in _FLAGS},
    }
    return RawQuery(
        _mapping(trees, f"treename of {where}"),
        cut=cut or None,
        aliases=_mapping(given.get("aliases") or {}, f"aliases of {where}"),
        **others,
    )


def _texts(given: Any, what: str) -> tuple[str, ...] | None:
    if given is None:
        return None
    found = (given,) if isinstance(given, str) else given
    if not isinstance(found, (list, tuple)) or not all(isinstance(one, str) for one in found):
        raise QueryError(f"{what} must be a text or a list of texts, not {given!r}")
    return tuple(found)


def _flag(given: Any, what: str) -> bool:
    if given not in (None, False, True):  # 0 and 1 are equal to these
        raise QueryError(f"{what} must be true or false, not {given!r}")
    return bool(given)


def _mapping(given: Any, what: str) -> Mapping[str, str]:
    if not isinstance(given, dict) or not all(isinstance(one, str) for one in given.values()):
        raise QueryError(f"{what} must have a text for each name, not {given!r}")
    return given


def no_tree(name: str, there: Iterable[str], source: str) -> SourceNotFoundError:
    """Return the error for a tree that a source does not have, which names those `there`."""
    shown = ", ".join(sorted(there)[:20])
    has = f"it has {shown}" if shown else "it has no trees"
    return SourceNotFoundError(f"there is no tree {name!r} in {source}: {has}")
