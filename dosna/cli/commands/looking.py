"""``dosna ls`` and ``dosna info``: which datasets there are, and what they are."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from dosna import Connection, Dataset
from dosna.cli.console import Console, counted
from dosna.cli.options import add_command, add_select
from dosna.cli.places import chosen, connected, elsewhere
from dosna.columns import Tree, find_trees
from dosna.core.sizes import format_size
from dosna.core.url import without_password
from dosna.errors import ConfigurationError, DosnaError

__all__ = ["add"]

_INFO = """\
Describe a dataset (shape, chunks, storage, guarantees, attributes), a tree and the types of its
branches, or a connection.
"""

_INFO_EXAMPLES = """\
examples:
  dosna info hdf5:/data/scans/entry/tomo --plot tomo.png
  dosna info file:/data/events/Events
"""


def add(commands: Any) -> None:
    """Add the commands to a parser."""
    command = add_command(
        commands,
        "ls",
        ls,
        "list datasets",
        "List the datasets of a connection, with shape, dtype and size.",
    )
    command.add_argument(
        "url", metavar="URL", help="URL of a connection, or with the beginning of names"
    )
    add_select(command)

    command = add_command(
        commands, "info", info, "describe or draw a dataset", _INFO, _INFO_EXAMPLES
    )
    command.add_argument("url", metavar="URL", help="URL of a dataset, a tree or a connection")
    command.add_argument(
        "--plot",
        metavar="FILE",
        help="draw slices through the middle of the dataset (.png, .pdf, .svg)",
    )
    command.add_argument(
        "--written",
        action="store_true",
        help="count the chunks that were written, which lists all of them",
    )


def ls(arguments: argparse.Namespace, console: Console) -> int:
    """List datasets."""
    listed: list[dict[str, Any]] = []
    with connected(arguments.url, arguments) as (con, name):
        for found in chosen(con, name, arguments)[0]:
            try:
                listed.append(_short(con[found]))
            except DosnaError as error:
                listed.append({"name": found, "error": str(error)})
    rows = []
    for entry in listed:
        if "error" in entry:
            rows.append([entry["name"], "cannot be opened:", entry["error"], "", ""])
            continue
        size = format_size(entry["nbytes"])
        note = ", ".join(what for what in ("incomplete", "linked") if entry[what])
        shape = "x".join(map(str, entry["shape"])) or "scalar"
        rows.append([entry["name"], shape, entry["dtype"], size, note])
    if rows:
        console.table(rows)
    else:
        _remark_on_nothing(arguments, console)
    console.give(listed)
    return 1 if any("error" in entry for entry in listed) else 0


def _remark_on_nothing(arguments: argparse.Namespace, console: Console) -> None:
    advice = elsewhere(arguments.url)
    console.remark(
        f"{arguments.url} has no datasets that its backend can open"
        + (f": {advice}" if advice else "")
    )


def info(arguments: argparse.Namespace, console: Console) -> int:
    """Describe a dataset, a tree or a connection."""
    with connected(arguments.url, arguments) as (con, name):
        names, single = chosen(con, name, arguments)
        if arguments.plot is not None and not single:
            raise ConfigurationError(
                f"--plot draws one dataset, and {arguments.url} names several: name one"
            )
        if single:
            ds = con[name]
            _show(_described(ds, arguments.written), console)
            if arguments.plot is not None:
                from dosna.cli.plot import draw

                con.runner.once(lambda: draw(ds, arguments.plot))
                console.remark(f"drawn to {arguments.plot}")
            return 0
        trees = find_trees(con, name)
        if name in trees:
            _show_tree(name or without_password(arguments.url), trees[name], console)
        else:
            _show(_connection(con, name, names, trees, console), console)
            if not names:
                _remark_on_nothing(arguments, console)
    return 0


def _connection(
    con: Connection, name: str, names: list[str], trees: dict[str, Tree], console: Console
) -> dict[str, Any]:
    nbytes = 0
    for found in names:
        try:
            nbytes += con[found].nbytes
        except DosnaError as error:
            console.remark(f"{found} cannot be opened: {error}")
    return {
        "connection": con.name,
        "backend": type(con.instance).__name__,
        "location": con.instance.location,
        "datasets": len(names),
        "nbytes": nbytes,
        "trees": {found: _summary(tree) for found, tree in trees.items()},
        "attrs": con.get_group_attrs(name) if con.instance.keeps_groups else {},
    }


def _show_tree(name: str, tree: Tree, console: Console) -> None:
    """Print a tree's branches with their types, in the form of uproot's show()."""
    console.say(f"{name}: {_summary(tree)}")
    if tree.title:
        console.say(f"title: {tree.title}")
    for file in tree.files:
        console.say(f"entries {file.start} to {file.stop} from {file.url}")
    heads = ["name", "typename", "type"]
    rows = [[_brief(b.name), _brief(b.typename), _brief(b.type)] for b in tree.branches]
    console.table([heads, ["-" * len(head) for head in heads], *rows])
    console.give(
        {
            "tree": name,
            **{k: v for k, v in tree.to_attrs()["tree"].items() if k != "version"},
            "branches": [
                {"name": b.name, "typename": b.typename, "type": b.type, "title": b.title}
                for b in tree.branches
            ],
        }
    )


def _summary(tree: Tree) -> str:
    return (
        f"{tree.kind} {tree.name!r}, cycle {tree.cycle}, {tree.entries} entries, "
        f"{counted(len(tree.branches), 'branch', 'branches')}"
    )


def _short(ds: Dataset) -> dict[str, Any]:
    return {
        "name": ds.name,
        "shape": ds.shape,
        "dtype": _name_of(ds.dtype),
        "chunk_size": ds.chunk_size,
        "nbytes": ds.nbytes,
        "incomplete": ds.incomplete,
        "linked": ds.linked is not None,
    }


def _described(ds: Dataset, written: bool) -> dict[str, Any]:
    described: dict[str, Any] = {
        **_short(ds),
        "fillvalue": ds.fillvalue,
        "dims": getattr(ds, "dims", None),
        "chunk_grid": ds.chunk_grid,
        "chunks": ds.total_chunks,
        "chunk_nbytes": ds.instance.metadata.chunk_nbytes,
        "storage": {k: v for k, v in ds.instance.create_options.items() if k != "dims"},
        "guarantees": ds.guarantees,
        "origin": ds.origin,
        "linked": _linked(ds),
        "attrs": dict(ds.attrs),
    }
    if written:
        described["written"] = len(ds.written_chunks())
    return described


def _linked(ds: Dataset) -> dict[str, Any] | None:
    """Return the origin of a linked dataset's chunks, without the fields described elsewhere."""
    return ds.linked and {
        key: ds.linked[key] for key in ("url", "name", "fingerprint", "options") if ds.linked[key]
    }


def _name_of(dtype: np.dtype[Any]) -> str:
    if dtype.names is None:
        return str(dtype)
    return "{" + ", ".join(f"{n}: {_name_of(dtype[n])}" for n in dtype.names) + "}"


def _show(described: dict[str, Any], console: Console) -> None:
    """Print a description: a line for each entry, and one for each item of a nested dict."""
    console.give(described)
    for key, value in described.items():
        if value is None or value == {} or (key == "incomplete" and not value):
            continue
        if key == "guarantees":
            value = {f: getattr(value, f) for f in value.__dataclass_fields__ if f != "notes"}
        if key.endswith("nbytes"):
            value = f"{format_size(value)} ({value})"
        if isinstance(value, dict):
            console.say(f"{key}:")
            for name, inner in value.items():
                console.say(f"  {name}: {_brief(inner)}")
        else:
            console.say(f"{key}: {_brief(value)}")


def _brief(value: Any) -> str:
    text = str(value) if isinstance(value, (str, np.generic)) else repr(value)
    text = " ".join(text.split())
    return text if len(text) <= 200 else text[:199] + "…"
