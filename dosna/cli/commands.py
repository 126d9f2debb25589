"""The functions of the commands; each returns its exit code."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from dosna import Connection, Dataset
from dosna.cli.console import Console
from dosna.cli.loader import loader
from dosna.cli.places import chosen, connected, is_url, new_place, source_of
from dosna.columns import Tree, find_trees
from dosna.core.options import refuse_unknown
from dosna.core.sizes import format_size
from dosna.errors import ConfigurationError, DosnaError, SourceChangedError
from dosna.sources import Source

__all__ = ["COMMANDS"]

OK, FAILED = 0, 1
_MOST_NOTES = 3

Command = Callable[[argparse.Namespace, Console], int]


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
    console.give(listed)
    return FAILED if any("error" in entry for entry in listed) else OK


def info(arguments: argparse.Namespace, console: Console) -> int:
    """Describe a dataset or a connection."""
    with connected(arguments.url, arguments) as (con, name):
        names, single = chosen(con, name, arguments)
        if single:
            ds = con[name]
            described = _described(ds, arguments.written)
            _show(described, console)
            if arguments.plot is not None:
                from dosna.cli.plot import draw

                con.runner.once(lambda: draw(ds, arguments.plot))
                console.remark(f"drawn to {arguments.plot}")
            return OK
        if arguments.plot is not None:
            raise ConfigurationError("--plot draws one dataset: name it in the URL")
        trees = find_trees(con, name)
        if name in trees:
            _show_tree(name or arguments.url, trees[name], console)
            return OK
        sizes = {}
        for found in names:
            try:
                sizes[found] = con[found].nbytes
            except DosnaError as error:
                console.remark(f"{found} cannot be opened: {error}")
        described = {
            "connection": con.name,
            "backend": type(con.instance).__name__,
            "location": con.instance.location,
            "datasets": len(names),
            "nbytes": sum(sizes.values()),
            "trees": {found: _summary(tree) for found, tree in trees.items()},
            "attrs": con.get_group_attrs(name) if con.instance.keeps_groups else {},
        }
        _show(described, console)
    return OK


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
        f"{_count(len(tree.branches), 'branch', 'branches')}"
    )


def ingest(arguments: argparse.Namespace, console: Console) -> int:
    """Make datasets of the arrays of a file."""
    if arguments.kind is None and is_url(arguments.source):
        raise ConfigurationError(f"{arguments.source} is no file, but datasets: use dosna copy")
    with (
        source_of(arguments.source, arguments.kind) as source,
        new_place(arguments.target, not source.single, arguments) as (con, name),
    ):
        report = _ingested(con, source, name, arguments, console)
    return OK if report.made or report.present else FAILED


def copy(arguments: argparse.Namespace, console: Console) -> int:
    """Copy datasets into another connection."""
    if not is_url(arguments.source):
        raise ConfigurationError(f"{arguments.source!r} is no URL of datasets: use dosna ingest")
    with (
        source_of(arguments.source, None, not arguments.overwrite) as source,
        new_place(arguments.target, not source.single, arguments) as (con, name),
    ):
        report = _ingested(con, source, name, arguments, console)
        for target in [*report.present, *report.resumed]:
            _check_copied(con[target], source, arguments, console)
    return OK


def _ingested(
    con: Connection, source: Source, name: str, arguments: argparse.Namespace, console: Console
) -> Any:
    options = dict(arguments.option)
    if arguments.compression is not None:
        options["compression"] = arguments.compression
    try:
        refuse_unknown(options, con.instance.create_dataset, f"a dataset of {arguments.target}")
    except TypeError as error:
        raise ConfigurationError(str(error)) from None
    bring: Callable[..., Any] = partial(con.ingest, chunk_size=arguments.chunk_size)
    only = getattr(arguments, "link_only", False)
    if only or getattr(arguments, "link", False):
        if arguments.chunk_size is not None:
            raise ConfigurationError("what is linked has the file's chunks: omit --chunk-size")
        bring = partial(con.link, unlinkable="raise" if only else "ingest")
    began = time.monotonic()
    with console.progress(arguments.command, "B") as progress:
        report = bring(
            source,
            name or None,
            select=arguments.select,
            on_error="skip" if getattr(arguments, "skip", False) else "raise",
            overwrite=arguments.overwrite,
            progress=progress,
            memory_limit=arguments.memory_limit,
            **options,
        )
    seconds = time.monotonic() - began
    if len(report.notes) > _MOST_NOTES:
        console.remark(f"{len(report.notes)} arrays were converted: --json lists how")
    else:
        for target, notes in report.notes.items():
            console.remark(f"{target}: {'; '.join(notes)}")
    for skipped, why in report.skipped.items():
        console.remark(f"left out {skipped}: {why}")
    speed = f" in {seconds:.1f} s ({format_size(report.nbytes / max(seconds, 1e-9))}/s)"
    console.say(
        f"{arguments.source}: {_count(len(report.made), 'dataset')}, {format_size(report.nbytes)}"
        + (speed if report.made else "")
        + (f", {len(report.resumed)} begun before" if report.resumed else "")
        + (f", {len(report.present)} there already" if report.present else "")
        + (f", {len(report.linked)} linked" if report.linked else "")
        + (f", {len(report.skipped)} left out" if report.skipped else "")
    )
    console.give(report)
    return report


def _check_copied(
    ds: Dataset, source: Source, arguments: argparse.Namespace, console: Console
) -> None:
    """Check that the data of an earlier copy are still those of the source."""
    origin = ds.origin or {}
    with console.progress(f"compare {ds.name}", "chunk") as progress:
        found = ds.compare(
            source[origin["name"]], progress=progress, memory_limit=arguments.memory_limit
        )
    if not found.equal:
        raise SourceChangedError(
            f"{ds.name!r} was copied, wholly or in part, by an earlier command, and "
            f"{arguments.source} has changed since ({found}): copy it anew by overwrite=True"
        )


def export(arguments: argparse.Namespace, console: Console) -> int:
    """Write datasets to a file."""
    if isinstance(arguments.chunk_size, str):
        raise ConfigurationError("export takes --chunk-size in extents, like 64,64,64")
    with connected(arguments.url, arguments) as (con, name):
        names, _ = chosen(con, name, arguments)
        with console.progress("export", "chunk") as progress:
            con.export(
                arguments.path,
                select=names,
                chunk_size=arguments.chunk_size,
                compression=arguments.compression,
                overwrite=arguments.overwrite,
                progress=progress,
                memory_limit=arguments.memory_limit,
            )
    console.say(f"{arguments.path}: {_count(len(names), 'dataset')}")
    console.give({"path": arguments.path, "datasets": names})
    return OK


def verify(arguments: argparse.Namespace, console: Console) -> int:
    """Check the chunks of datasets, or compare them with something."""
    with connected(arguments.url, arguments) as (con, name):
        names, single = chosen(con, name, arguments)
        if arguments.against is not None:
            with source_of(arguments.against, None) as source:
                pairs, missing = _pairs(names, single, name, source, arguments.select)
                results = [_compared(con, a, source, b, arguments, console) for a, b in pairs]
                results += [{"name": b, "good": False, "found": "not there"} for b in missing]
        else:
            results = [_verified(con, found, console) for found in names]
    for result in results:
        console.say(f"{result['name']}: {result['found']}")
    console.give(results)
    return OK if all(result["good"] for result in results) else FAILED


def _verified(con: Connection, name: str, console: Console) -> dict[str, Any]:
    try:
        ds = con[name]
        with console.progress(f"verify {name}", "chunk") as progress:
            found = ds.verify(progress=progress)
    except DosnaError as error:
        return {"name": name, "good": False, "found": str(error)}
    states = {
        "missing": found.missing,
        "corrupt": found.corrupt,
        "unreadable": found.unreadable,
    }
    text = str(found)
    for state, chunks in states.items():
        if chunks:
            text += f"; {state}: {', '.join(map(str, chunks[:5]))}" + (", …" * (len(chunks) > 5))
    if ds.incomplete:
        text += "; incomplete: writing its data is not finished"
    return {
        "name": name,
        "good": found.good and not ds.incomplete,
        "found": text,
        "incomplete": ds.incomplete,
        **{state: list(chunks) for state, chunks in states.items()},
    }


def _pairs(
    names: list[str], single: bool, within: str, source: Source, patterns: Any
) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the pairs of names to compare, and the names that are missing."""
    others = [other for other in source.names() if not source.describe(other).refused]
    if single and len(others) == 1:
        return [(names[0], others[0])], []
    # By their full names, or by the names without the prefix that each side has.
    mine = [{n: n for n in names}, _below(names, within)]
    theirs = [{o: o for o in others}, _below(others, source.inner.strip("/"))]
    here, there = max(product(mine, theirs), key=lambda both: len(both[0].keys() & both[1].keys()))
    pairs = [(here[key], other) for key, other in there.items() if key in here]
    missing = [] if single or patterns else [o for key, o in there.items() if key not in here]
    if not pairs and not missing:
        raise ConfigurationError("there is nothing of the same name to compare")
    return pairs, missing


def _below(names: list[str], within: str) -> dict[str, str]:
    """Return a dict of names by the part that follows a prefix which all of them have."""
    start = within.rstrip("/") + "/" if within.strip("/") else ""
    return {name[len(start) :]: name for name in names if name.startswith(start)}


def _compared(
    con: Connection,
    name: str,
    source: Source,
    other: str,
    arguments: argparse.Namespace,
    console: Console,
) -> dict[str, Any]:
    ds, against = con[name], source[other]
    if ds.shape != against.shape:
        text = f"shape {ds.shape}, and {against.shape} in {arguments.against}"
        return {"name": name, "good": False, "found": text}
    try:
        with console.progress(f"compare {name}", "chunk") as progress:
            found = ds.compare(against, progress=progress, memory_limit=arguments.memory_limit)
    except TypeError as error:
        return {"name": name, "good": False, "found": str(error)}
    return {
        "name": name,
        "good": found.equal,
        "found": str(found),
        "chunks": found.chunks,
        "different": list(found.different),
        "elements": found.elements,
        "first": found.first,
    }


def rm(arguments: argparse.Namespace, console: Console) -> int:
    """Delete datasets."""
    with connected(arguments.url, arguments, mode=None) as (con, name):
        names, single = chosen(con, name, arguments)
        if not single and not arguments.recursive:
            raise ConfigurationError(
                f"{arguments.url} names {_count(len(names), 'dataset')} and not one: add "
                "--recursive to delete all of them"
            )
        what = names[0] if single else _count(len(names), "dataset")
        if not arguments.yes and not con.runner.once(lambda: _agreed(what, arguments.url)):
            console.remark("nothing was deleted")
            return FAILED
        for found in names:
            con.del_dataset(found)
    console.say(f"deleted {what}")
    console.give({"deleted": names})
    return OK


def _agreed(what: str, url: str) -> bool:
    if not sys.stdin.isatty():
        raise ConfigurationError(f"say --yes to delete {what} without being asked")
    print(f"delete {what} of {url}? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


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


def _count(number: int, what: str, many: str = "") -> str:
    return f"{number} {what if number == 1 else many or what + 's'}"


COMMANDS: dict[str, Command] = {
    "ls": ls,
    "info": info,
    "ingest": ingest,
    "copy": copy,
    "export": export,
    "verify": verify,
    "rm": rm,
    "loader": loader,
}
