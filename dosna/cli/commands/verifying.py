"""``dosna verify``: chunks are checked, or compared with something else."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from dosna import Connection
from dosna.cli.console import Console
from dosna.cli.options import add_command, add_memory_limit, add_select
from dosna.cli.places import chosen, connected, source_of
from dosna.errors import ConfigurationError, DosnaError
from dosna.sources import Source
from dosna.sources.naming import legal_name, legal_names

__all__ = ["add"]

_VERIFY = """\
Read every chunk and print its state: ok (the checksum is right), unchecked (well-formed, without a
checksum), never written, missing, corrupt or unreadable.

With --against, compare the values with another dataset, connection or file, chunk by chunk, and
print where they differ. Datasets that only URL has are not a difference, but a remark names them.
"""

_EXAMPLES = """\
examples:
  dosna verify hdf5:/data/scans
  dosna verify hdf5:/data/scans --against scan.nxs
  dosna verify file:/data/zarr/tomo --against hdf5:/data/scans/entry/tomo
"""


def add(commands: Any) -> None:
    """Add the command to a parser."""
    command = add_command(
        commands, "verify", verify, "check chunks, or compare datasets", _VERIFY, _EXAMPLES
    )
    command.add_argument("url", metavar="URL", help="URL of a dataset or a connection")
    command.add_argument("--against", metavar="B", help="URL or file to compare with")
    add_select(command)
    add_memory_limit(command)


def verify(arguments: argparse.Namespace, console: Console) -> int:
    """Check the chunks of datasets, or compare them with something."""
    with connected(arguments.url, arguments) as (con, name):
        names, single = chosen(con, name, arguments)
        if arguments.against is not None:
            with source_of(arguments.against, None) as source:
                pairs, missing, alone = _pairs(names, single, name, source, arguments.select)
                if alone:
                    some = ", ".join(alone[:5]) + (", …" * (len(alone) > 5))
                    console.remark(
                        f"not compared, because {arguments.against} does not have it: {some}"
                    )
                results = [_compared(con, a, source, b, arguments, console) for a, b in pairs]
                results += [{"name": b, "good": False, "found": "not there"} for b in missing]
        else:
            results = [_verified(con, found, console) for found in names]
    for result in results:
        console.say(f"{result['name']}: {result['found']}")
    console.give(results)
    return 0 if all(result["good"] for result in results) else 1


def _verified(con: Connection, name: str, console: Console) -> dict[str, Any]:
    """Return the states of a dataset's chunks."""
    try:
        ds = con[name]
        with console.progress(f"verify {name}", "chunk") as progress:
            found = ds.verify(progress=progress)
    except DosnaError as error:
        return {"name": name, "good": False, "found": str(error)}
    text = str(found)
    states: dict[str, Sequence[Any]] = {
        "missing": found.missing,
        "corrupt": found.corrupt,
        "unreadable": found.unreadable,
    }
    for state, chunks in states.items():
        if chunks:
            text += f"; {state}: {', '.join(map(str, chunks[:5]))}" + (", …" * (len(chunks) > 5))
    if ds.incomplete:
        text += "; incomplete: not all of its data were written"
    return {
        "name": name,
        "good": found.good and not ds.incomplete,
        "found": text,
        "incomplete": ds.incomplete,
        **{state: list(chunks) for state, chunks in states.items()},
    }


def _pairs(
    names: list[str], single: bool, within: str, source: Source, patterns: Any
) -> tuple[list[tuple[str, str]], list[str], list[str]]:
    """Return the pairs of names to compare, those that are missing, and those only we have."""
    others = [other for other in source.names() if not source.describe(other).refused]
    if single and len(others) == 1:
        return [(names[0], others[0])], [], []
    # By their full names, or by the names without the prefix that each side has. Those that no
    # dataset can have are compared as `ingest` changes them.
    renamed = legal_names(source.names())
    inner = source.inner.strip("/")
    ours, theirs = {n: n for n in names}, {renamed.get(o, o): o for o in others}
    here, there = max(
        product(
            [ours, _below(ours, within)],
            [theirs, _below(theirs, inner and legal_name(inner))],
        ),
        key=lambda both: len(both[0].keys() & both[1].keys()),
    )
    pairs = [(here[key], other) for key, other in there.items() if key in here]
    missing = [] if single or patterns else [o for key, o in there.items() if key not in here]
    if not pairs and not missing:
        raise ConfigurationError(
            "nothing can be compared, because no dataset has the same name on both sides: name "
            "one dataset on each side"
        )
    return pairs, missing, [name for key, name in here.items() if key not in there]


def _below(names: Mapping[str, str], within: str) -> dict[str, str]:
    """Return the values of a dict by the part of their keys that follows a prefix."""
    start = within.rstrip("/") + "/" if within.strip("/") else ""
    return {key[len(start) :]: name for key, name in names.items() if key.startswith(start)}


def _compared(
    con: Connection,
    name: str,
    source: Source,
    other: str,
    arguments: argparse.Namespace,
    console: Console,
) -> dict[str, Any]:
    """Return the result of comparing a dataset with an array of a source."""
    ds, against = con[name], source[other]
    if ds.shape != against.shape:
        text = f"its shape is {ds.shape}, and {against.shape} in {arguments.against}"
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
