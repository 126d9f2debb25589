"""Trees of a ROOT file, read step by step for a selection of the kind uproot-raw."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import uproot

from dosna.delivery.transform.functions import language
from dosna.delivery.transform.rawquery import RawQuery, no_tree
from dosna.delivery.transform.writing import Part
from dosna.errors import (
    DosnaError,
    QueryError,
    QueryTypeError,
    SourceError,
    SourceNotFoundError,
    UnknownNameError,
)
from dosna.sources.errors import Converting
from dosna.sources.root.file import TREES

__all__ = ["copied", "opened", "parts"]

_PATTERN = frozenset("*?[/")


def opened(path: str, shown: str) -> Any:
    """Open a local ROOT file.

    Parameters
    ----------
    path : str
        The path.
    shown : str
        The location that errors name.

    Raises
    ------
    SourceError
        The file is not one that uproot can read.
    """
    try:
        return uproot.open({path: None}, handler=uproot.MemmapSource, object_cache=None)
    except FileNotFoundError:
        raise SourceNotFoundError(f"{shown} does not exist: check its path") from None
    except PermissionError as error:
        raise SourceError(f"{shown} cannot be opened: {error.strerror}. Permit reading.") from None
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        raise SourceError(
            f"{shown} cannot be opened as a ROOT file ({type(error).__name__}: {text}): it may be "
            "damaged, truncated, or of another format"
        ) from error


def parts(
    file: Any, queries: list[RawQuery], shown: str, step: int, log: Callable[[str], None]
) -> list[Part]:
    """Return the parts of the result of a selection on a file. Unknown names are errors here.

    Parameters
    ----------
    file : uproot.ReadOnlyDirectory
        The open file.
    queries : list of RawQuery
        The selection.
    shown : str
        The location that errors name.
    step : int
        The bytes to read at a time.
    log : callable
        Takes notices for the user.

    Raises
    ------
    SourceNotFoundError
        A required tree is missing, or none of the selected trees exists.
    UnknownNameError
        There is no such column or function.
    QueryError
        An expression cannot be understood.
    """
    classes = file.classnames(recursive=True, cycle=False)
    there = sorted(key for key, name in classes.items() if name in TREES)
    found: dict[str, Part] = {}
    missing = []
    for query in queries:
        for name, out in query.trees.items():
            if name.partition(";")[0].strip("/") not in there:
                missing.append(name)
                if query.fail_on_missing_trees:
                    raise no_tree(name, there, shown)
                continue
            if out in found:
                raise QueryError(
                    f"the selection makes two trees {out!r}: name one of them by a mapping, "
                    'such as "treename": {"Events": "selected"}'
                )
            found[out] = _part(file[name], query, out, shown, step, log)
    if missing and not found:
        raise no_tree(missing[0], there, shown)
    for name in missing:
        log(f"{shown} has no tree {name}, which is left out")
    return list(found.values())


def _part(
    tree: Any, query: RawQuery, out: str, shown: str, step: int, log: Callable[[str], None]
) -> Part:
    named = {
        "expressions": query.expressions and list(query.expressions),
        "filter_name": query.filter_name and list(query.filter_name),
        "filter_typename": query.filter_typename and list(query.filter_typename),
        "aliases": dict(query.aliases) or None,
        "language": language(query.use_standard_awkward_axis),
    }
    given = {name: value for name, value in named.items() if value is not None}
    known = inspect.signature(tree.iterate).parameters
    if refused := sorted(given.keys() - known.keys() - {"language"}):
        raise QueryTypeError(
            f"{tree.name} of {shown} is a {tree.classname}, for which uproot has no "
            f"{' and no '.join(refused)}: select by filter_name"
        )
    given = {name: value for name, value in given.items() if name in known}
    converting = _converting(tree, shown)
    with converting:
        _check_filters(tree, query, shown, log)
        _check_computed(tree, query, shown)
        tree.arrays(entry_stop=0, cut=query.cut, **given)  # names and syntax of all expressions

    def nothing() -> Any:
        with converting:
            return tree.arrays(entry_stop=0, **given)

    def arrays() -> Iterator[Any]:
        with converting:
            yield from tree.iterate(cut=query.cut, step_size=f"{step} B", **given)

    return Part(out, arrays, nothing)


def _check_filters(tree: Any, query: RawQuery, shown: str, log: Callable[[str], None]) -> None:
    """Raise an error if no column is selected, and log the names that match none."""
    columns = tree.keys(recursive=True)
    if query.filter_name is not None:
        plain = [name for name in query.filter_name if not _PATTERN & set(name)]
        ends = {*columns, *(column.rpartition("/")[2] for column in columns)}
        unknown = [name for name in plain if name not in ends]
        if unknown and len(unknown) == len(query.filter_name):
            raise _no_column(unknown[0], columns, tree, shown)
        for name in unknown:
            log(f"{tree.name} of {shown} has no column {name}, which is left out")
    if query.filter_name is None and query.filter_typename is None:
        return
    taken = tree.keys(
        recursive=True, filter_name=query.filter_name, filter_typename=query.filter_typename
    )
    if not taken and columns:
        raise UnknownNameError(
            f"the filters select no column of {tree.name} in {shown}: it has {_some(columns)}"
        )


def _check_computed(tree: Any, query: RawQuery, shown: str) -> None:
    """Refuse what uproot ignores for an RNTuple: it would give all entries, or no columns."""
    if "RNTuple" not in tree.classname:
        return
    ignored = [name for name in ("aliases", "cut") if getattr(query, name)]
    if ignored:
        raise QueryTypeError(
            f"{tree.name} of {shown} is an RNTuple, for which uproot ignores "
            f"{' and '.join(ignored)}: select columns by filter_name, and entries by a function, "
            "with the code generator python"
        )
    columns = tree.keys(recursive=True)
    unknown = [name for name in query.expressions or () if name not in columns]
    if unknown:
        raise _no_column(unknown[0], columns, tree, shown)


def _no_column(name: str, columns: list[str], tree: Any, shown: str) -> UnknownNameError:
    near = difflib.get_close_matches(name, columns, 5, 0.6)
    has = f"the nearest are {', '.join(near)}" if near else f"it has {_some(columns)}"
    return UnknownNameError(f"there is no column {name!r} in {tree.name} of {shown}: {has}")


def _some(columns: list[str]) -> str:
    return ", ".join(columns[:20]) + (f" and {len(columns) - 20} more" * (len(columns) > 20))


def _converting(tree: Any, shown: str) -> Converting:
    """Return a context that converts errors of uproot to errors that name what exists."""

    def convert(error: Exception) -> DosnaError | None:
        text = " ".join(str(error).split())[:300]
        where = f"{tree.name} of {shown}"
        if isinstance(error, uproot.KeyInFileError):
            return _no_column(str(error.key), tree.keys(recursive=True), tree, shown)
        if isinstance(error, SyntaxError):
            first = str(error.msg).partition("\n")[0]
            return QueryError(f"an expression of the selection cannot be parsed: {first}")
        if isinstance(error, MemoryError):
            return None
        if isinstance(error, (NotImplementedError, uproot.DeserializationError)):
            return SourceError(f"{where} cannot be read by uproot: {text}. Select other columns.")
        return QueryTypeError(
            f"the selection fails on {where} ({type(error).__name__}: {text}): check the types of "
            "its columns"
        )

    return Converting(convert)


def copied(file: Any, queries: list[RawQuery], shown: str) -> dict[str, Any]:
    """Return the objects that a selection copies, by their names.

    Raises
    ------
    UnknownNameError
        There is no object with a name.
    """
    found: dict[str, Any] = {}
    for query in queries:
        for pattern in query.copy_histograms:
            keys = file.keys(filter_name=pattern, cycle=False)
            if not keys:
                raise UnknownNameError(
                    f"there is no object {pattern!r} to copy in {shown}: it has "
                    f"{_some(file.keys(cycle=False))}"
                )
            found.update((key, file[key]) for key in keys)
    return found
