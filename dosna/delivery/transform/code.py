"""Selections that are programs: a Python function, or the translation of a func_adl query."""

from __future__ import annotations

import base64
import difflib
import errno
import linecache
import re
import textwrap
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import awkward as ak
import numpy as np

from dosna.delivery.transform.writing import Part
from dosna.errors import DosnaError, QueryError, SourceNotFoundError, UnknownNameError
from dosna.io.files import FULL

__all__ = ["function_of_query", "function_of_source", "parts_of", "source_of"]

FUNCTION = "run_query"
"""The function that a source defines. It is called with the path of the file."""

TREE = "servicex"
"""The name of the tree of a result that has no names."""

_FILE = "<selection>"
_MADE = "<query>"
"""The names of what was sent, and of what func_adl made, in tracebacks."""

_UNKNOWN = re.compile(r"(\S+) not in fields|no field named '([^']*)'")


def source_of(selection: str) -> str:
    """Return the source of a Python selection.

    Raises
    ------
    QueryError
        The text is not the base64 of UTF-8.
    """
    try:
        return textwrap.dedent(base64.b64decode(selection, validate=True).decode())
    except ValueError as error:
        raise QueryError(f"the selection is not Python source in base64: {error}") from None


def function_of_source(source: str, file: str = _FILE) -> Callable[..., Any]:
    """Run source code, and return the function that it defines.

    Parameters
    ----------
    source : str
        The source.
    file : str
        Its name in tracebacks.

    Raises
    ------
    QueryError
        The source cannot be parsed, fails, or has no such function.
    """
    try:
        code = compile(source, file, "exec")
    except (SyntaxError, ValueError) as error:
        raise QueryError(f"the source of the selection cannot be parsed: {error}") from None
    linecache.cache[file] = (len(source), None, source.splitlines(True), file)
    names: dict[str, Any] = {"__name__": "generated_transformer"}
    _guarded(lambda: exec(code, names))
    function = names.get(FUNCTION)
    if not callable(function):
        there = sorted(name for name, value in names.items() if callable(value)) or ["nothing"]
        raise QueryError(
            f"the selection must define a function {FUNCTION}: it defines {', '.join(there)}"
        )
    return function  # type: ignore[no-any-return]


def function_of_query(query: str) -> Callable[..., Any]:
    """Return the function to which func_adl translates a query in qastle.

    Raises
    ------
    QueryError
        The query cannot be parsed, or func_adl_uproot cannot translate it.
    """
    from func_adl_uproot.translation import generate_python_source

    try:
        source = generate_python_source(query, FUNCTION)
    except Exception as error:
        text = " ".join(str(error).split())[:500]
        raise QueryError(
            f"the func_adl query cannot be translated ({type(error).__name__}: {text})"
        ) from error
    return function_of_source(source, _MADE)


def parts_of(
    function: Callable[..., Any], path: str, shown: str, one: bool, log: Callable[[str], None]
) -> list[Part]:
    """Call a function with a file, and return its result as trees.

    Parameters
    ----------
    function : callable
        The function. It returns an array, or arrays by the names of trees.
    path : str
        The file.
    shown : str
        The location that errors name.
    one : bool
        True to keep the first tree only, for formats with one table.
    log : callable
        Takes notices for the user.

    Raises
    ------
    QueryError
        The function failed, or returned something else.
    """
    found = _guarded(lambda: function(path), path, shown)
    trees = found if isinstance(found, Mapping) else {TREE: found}
    for name, array in trees.items():
        if not isinstance(array, (ak.Array, np.ndarray)):
            raise QueryError(
                f"the function of the selection must return an awkward array, or a dict of them "
                f"by the names of trees, and not {type(array).__name__}"
                + (f" for {name!r}" if isinstance(found, Mapping) else "")
            )
    if not trees:
        raise QueryError("the function of the selection returned no trees")
    if one and len(trees) > 1:
        first, *others = trees
        log(f"only the tree {first} is in the result: {', '.join(others)} need root-file")
        trees = {first: trees[first]}
    return [_part(str(name), ak.Array(array)) for name, array in trees.items()]


def _part(name: str, array: Any) -> Part:
    return Part(name, lambda: iter([array]), lambda: array[:0])


def _guarded(call: Callable[[], Any], path: str = "", shown: str = "") -> Any:
    """Call code of users, and convert its exceptions to errors that name the line."""
    try:
        return call()
    except (MemoryError, DosnaError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        traceback.print_exc()
        raise _explained(error, path, shown) from error
    except BaseException as error:
        raise QueryError(f"the selection ended its process ({type(error).__name__})") from error


def _explained(error: Exception, path: str, shown: str) -> DosnaError:
    text = " ".join(str(error).split())[:1000]
    frames = [one for one in traceback.extract_tb(error.__traceback__) if one.filename == _FILE]
    where = f", in line {frames[-1].lineno}: {frames[-1].line}"[:300] if frames else ""
    if type(error).__name__ == "KeyInFileError":
        there = [str(key) for key in getattr(error, "keys", None) or []]
        has = f": it has {', '.join(there[:20])}" if there else f" ({text})"
        return SourceNotFoundError(
            f"there is no {getattr(error, 'key', '')!r} in {shown}{has}{where}"
        )
    if isinstance(error, (AttributeError, KeyError)) and (found := _UNKNOWN.search(text)):
        name = found[1] or found[2]
        near = difflib.get_close_matches(name, columns := _columns(path), 5, 0.6) or columns[:20]
        return UnknownNameError(
            f"there is no column {name!r} in {shown}: the nearest are {', '.join(near)}{where}"
        )
    hint = ""
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM):
        hint = ". A selection may read its file, write to its temporary folder, and nothing else"
    return QueryError(f"the selection raised {type(error).__name__} ({text}){where}{hint}")


def _columns(path: str) -> list[str]:
    """Return the columns of all trees in a file."""
    import uproot

    with uproot.open({path: None}, handler=uproot.MemmapSource) as file:
        trees = [key for key, name in file.classnames().items() if name == "TTree"]
        return sorted({column for tree in trees for column in file[tree].keys(recursive=True)})
