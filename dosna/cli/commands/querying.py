"""``dosna query`` and ``dosna index``: entries of trees, or elements, that satisfy a condition."""

from __future__ import annotations

import argparse
import json
import re
import sys
from dataclasses import asdict
from typing import Any

from dosna import Connection
from dosna.cli.console import Console, counted, plain
from dosna.cli.options import add_command, add_memory_limit
from dosna.cli.places import connected
from dosna.columns import find_trees
from dosna.errors import ConfigurationError, DatasetNotFoundError, QueryError

__all__ = ["add"]

_QUERY = """\
Select entries of a tree by a condition, and some of their columns; or elements of an array, with
their coordinates. TEXT is a condition, or

  select CONDITION, project COLUMN, COLUMN, ...

where either part may be left out, and * is all entries or all columns. The result is printed as
CSV, with --json as an array of objects, or written to a file, whose suffix determines the format:
.parquet, .arrow or .csv. The file appears when it is complete.
"""

_QUERY_EXAMPLES = """\
examples:
  dosna query file:/data/store//Events 'nMuon >= 2' --count
  dosna query file:/data/store//Events 'select MET_pt > 50, project run, Muon_*' --to out.parquet
  dosna query file:/data/store//Events 'project run, half = MET_pt / 2' --stop 10
  dosna query file:/data/store//volume 'i0 < 10 && value > 5'
"""

_INDEX = """\
Find the minimum and the maximum of each chunk of a tree, so that later queries can skip chunks.
Ingest records them already; chunks that were written to later have none.
"""

_INDEX_EXAMPLES = """\
examples:
  dosna index file:/data/store Events
  dosna index file:/data/store//Events --branch run --branch 'MET_*'
"""


def add(commands: Any) -> None:
    """Add the commands to a parser."""
    command = add_command(
        commands, "query", query, "select entries of a tree, or elements", _QUERY, _QUERY_EXAMPLES
    )
    command.add_argument("url", metavar="URL", help="URL of a tree or an array, or a connection")
    command.add_argument("text", metavar="TEXT", nargs="?", default="", help="the query")
    command.add_argument(
        "--to", metavar="FILE", help="file to write; - is standard output (the default)"
    )
    command.add_argument(
        "--count", action="store_true", help="print the number of entries, or elements, only"
    )
    command.add_argument(
        "--explain", action="store_true", help="print what would be read, without reading it"
    )
    command.add_argument("--start", type=int, metavar="N", help="first entry")
    command.add_argument("--stop", type=int, metavar="N", help="entry after the last one")
    command.add_argument("--overwrite", action="store_true", help="replace an existing file")
    add_memory_limit(command)
    command = add_command(
        commands, "index", index, "find the minima and maxima of chunks", _INDEX, _INDEX_EXAMPLES
    )
    command.add_argument("url", metavar="URL", help="URL of a tree, or of a connection with trees")
    command.add_argument("tree", metavar="TREE", nargs="?", help="name of the tree")
    command.add_argument(
        "--branch",
        metavar="PATTERN",
        action="append",
        help="index only the branches whose names match, such as 'Muon_*'; may be repeated",
    )


def query(arguments: argparse.Namespace, console: Console) -> int:
    """Carry out a query."""
    from dosna.query.output import format_of, write, write_to

    where, columns = _parts(arguments.text)
    to = arguments.to or "-"
    if to != "-":
        format_of(to)
    with (
        connected(arguments.url, arguments) as (con, name),
        console.progress("query", "range") as progress,
    ):
        ways = {"memory_limit": arguments.memory_limit, "progress": progress}
        kinds = ("element", "elements") if name in con else ("entry", "entries")
        if name in con:
            if arguments.start is not None or arguments.stop is not None:
                raise ConfigurationError(
                    f"{arguments.url} is an array, and --start and --stop count the entries of a "
                    "tree: limit coordinates in the condition, as in 'i0 < 10'"
                )
            found = con[name].query(where, columns, **ways)
        else:
            entries = {"entry_start": arguments.start, "entry_stop": arguments.stop}
            found = con.query(_tree(con, name, arguments.url), where, columns, **entries, **ways)
        if arguments.explain:
            explained = found.explain()
            console.say(str(explained))
            console.give(asdict(explained))
            return 0
        if arguments.count:
            count = found.count()
        elif to == "-":
            if console.speaks and console.as_json:
                _print_json(found)
            elif console.speaks:
                write_to(found, sys.stdout.buffer, ".csv")
            return 0
        else:
            count = con.runner.once(lambda: write(found, to, arguments.overwrite))
    if arguments.count:
        console.say(str(count))
        console.give({"count": count})
    else:
        console.say(f"{to}: {counted(count, *kinds)}")
        console.give({"path": to, "entries": count})
    return 0


def _print_json(found: Any) -> None:
    """Print the rows of a query as an array of JSON objects, in bounded memory."""
    from dosna.query.output import as_python

    rows = (row for batch in found.batches() for row in as_python(batch))
    before = "[\n"
    for row in rows:
        print(before + json.dumps(plain(row), allow_nan=False), end="")
        before = ",\n"
    print("[]" if before == "[\n" else "\n]")


def index(arguments: argparse.Namespace, console: Console) -> int:
    """Find the extremes of the chunks of trees."""
    from dosna.query.indexing import index as find

    with connected(arguments.url, arguments, mode=None) as (con, name):
        if arguments.tree is None and not name and _at(con, "") is None:
            trees = sorted(con.runner.once(lambda: find_trees(con)))
        else:
            trees = ["/".join(filter(None, [name, arguments.tree]))]
        if not trees:
            raise DatasetNotFoundError(f"{arguments.url} has no tree: name another place")
        found = {}
        for tree in trees:
            with console.progress(f"index {tree}".rstrip(), "branch") as progress:
                found[tree] = find(con, tree, arguments.branch, progress)
    for tree, branches in found.items():
        console.say(f"{tree or 'tree'}: {counted(len(branches), 'branch', 'branches')}")
    console.give(found)
    return 0


def _parts(text: str) -> tuple[Any, Any]:
    """Return the condition and the columns of a query."""
    if not re.match(r"\s*(select|project)\s", text):
        return text.strip() or None, None
    from dosna.query.expressions.doors import from_skyhook

    found = from_skyhook(text)
    if found.tree:
        raise QueryError(
            f"query: the tree is the one of the URL: write branches without '{found.tree};"
            f"{found.cycle}.'"
        )
    return found.where, found.outputs or None


def _at(con: Connection, name: str) -> Any:
    return find_trees(con, name).get(name) if name else find_trees(con).get("")


def _tree(con: Connection, name: str, url: str) -> str:
    """Return the name of the tree that a URL names, or of the only one that there is."""
    trees = find_trees(con, name)
    if name in trees:
        return name
    if len(trees) == 1 and not name:
        return next(iter(trees))
    if not trees:
        raise DatasetNotFoundError(
            f"{url} is not a tree, and has none: name a tree as in file:/data/store//Events, or a "
            "connection with one"
        )
    raise DatasetNotFoundError(
        f"{url} is not a tree: it has {', '.join(sorted(trees))}. Name one of them, "
        "as in file:/data/store//Events"
    )
