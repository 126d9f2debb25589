"""``dosna ingest`` and ``dosna copy``: new datasets, from files and from other datasets."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from dosna import Connection, Dataset
from dosna.cli.console import Console, counted
from dosna.cli.options import add_command, add_new_datasets
from dosna.cli.places import is_url, new_place, source_of
from dosna.core.options import refuse_unknown
from dosna.core.report import IngestReport
from dosna.core.sizes import format_size
from dosna.core.url import without_password
from dosna.errors import ConfigurationError, SourceChangedError
from dosna.sources import Source, open_source

__all__ = ["add"]

_MOST_NOTES = 3
_MOST_LINKS = 5

_INGEST = """\
Create datasets from the arrays of a file: HDF5 or NeXus, ROOT, Zarr, .npy or .npz, on this machine
or in S3; ROOT also by HTTP and XRootD.

The datasets are named as the arrays are in the file. They are marked as incomplete until all of
their data are written. After an interruption, the same command continues where it stopped.
"""

_INGEST_EXAMPLES = """\
examples:
  dosna ingest scan.nxs hdf5:/data/scans
  dosna ingest scan.nxs:/entry1 file:/data/scans --select 'entry1/*/data' --chunk-size '4 MiB'
  dosna ingest tomo.npy hdf5:/data/scans/tomo --chunk-size 64,64,64 --compression gzip
  dosna ingest 's3://raw/scan.h5?endpoint_url=https://s3.example.org' hdf5:/data/scans --skip
  dosna ingest --link scan.nxs hdf5:/data/scans
  dosna ingest data.root:Events file:/data/events --select nMuon --select 'Muon_*'
  dosna ingest 'runs/*.root:Events' file:/data/events
  dosna ingest run1.root run2.root file:/data/events
  dosna ingest 'servicex:REQUEST-ID?endpoint=NAME&config_path=servicex.yaml' hdf5:/data/events
  mpiexec -n 8 dosna ingest scan.nxs hdf5:/data/scans

If TARGET is a folder that does not exist, it is created in an existing folder.
"""

_COPY = """\
Copy a dataset, or all datasets of a connection, into another connection on any backend. Attributes
are copied too.

As with cp, B is a place (an existing folder, a connection) or the new name of a single dataset.
After an interruption, the same command continues where it stopped, and compares what was copied
before with A.
"""

_COPY_EXAMPLES = """\
examples:
  dosna copy hdf5:/data/scans/entry/tomo file:/data/zarr/tomo --chunk-size 128,128,128
  dosna copy hdf5:/data/scans 's3://beamline/scans?endpoint_url=https://s3.example.org'
"""


def add(commands: Any) -> None:
    """Add the commands to a parser."""
    command = add_command(
        commands, "ingest", ingest, "create datasets from a file", _INGEST, _INGEST_EXAMPLES
    )
    command.add_argument(
        "source",
        metavar="SOURCE",
        nargs="+",
        help="a file, FILE:/path/in/it, s3://bucket/key?endpoint_url=…, or hdf5://… (HSDS); "
        "several ROOT files, or a pattern in quotes, are one source",
    )
    command.add_argument("target", metavar="TARGET", help="URL of a connection or a new dataset")
    command.add_argument(
        "--kind", help="kind of the source, if its name does not end as usual; such as hdf5"
    )
    command.add_argument(
        "--skip",
        action="store_true",
        help="leave out arrays that cannot be stored or read, and print which",
    )
    linking = command.add_mutually_exclusive_group()
    linking.add_argument(
        "--link",
        action="store_true",
        help="leave the data in the HDF5 file, and store only where its chunks are; arrays that "
        "cannot be linked are ingested",
    )
    linking.add_argument(
        "--link-only", action="store_true", help="as --link, but fail if an array cannot be linked"
    )
    add_new_datasets(command)

    command = add_command(
        commands, "copy", copy, "copy datasets to another connection", _COPY, _COPY_EXAMPLES
    )
    command.add_argument("source", metavar="A", help="URL of a dataset or a connection")
    command.add_argument("target", metavar="B", help="URL of a connection or a new dataset")
    add_new_datasets(command)


def ingest(arguments: argparse.Namespace, console: Console) -> int:
    """Create datasets from the arrays of a file."""
    first, *others = arguments.source
    if arguments.kind is None and is_url(first):
        raise ConfigurationError(f"{first} is the URL of datasets, not a file: use dosna copy")
    arguments.source = f"{first} and {len(others)} more" if others else first
    with (
        open_source([first, *others], kind=arguments.kind)
        if others
        else source_of(first, arguments.kind) as source,
        new_place(arguments.target, not source.single, arguments) as (con, name),
    ):
        report = _ingested(con, source, name, arguments, console)
    return 0 if report.made or report.present else 1


def copy(arguments: argparse.Namespace, console: Console) -> int:
    """Copy datasets into another connection."""
    if not is_url(arguments.source):
        raise ConfigurationError(
            f"{arguments.source!r} is not the URL of datasets: use dosna ingest for files"
        )
    with (
        source_of(arguments.source, None, not arguments.overwrite) as source,
        new_place(arguments.target, not source.single, arguments) as (con, name),
    ):
        report = _ingested(con, source, name, arguments, console)
        for target in [*report.present, *report.resumed]:
            _check_copied(con[target], source, arguments, console)
    return 0


def _ingested(
    con: Connection, source: Source, name: str, arguments: argparse.Namespace, console: Console
) -> IngestReport:
    """Ingest or link a source, and print the report."""
    options = dict(arguments.option)
    if arguments.compression is not None:
        options["compression"] = arguments.compression
    try:
        refuse_unknown(options, con.instance.create_dataset, f"a dataset of {arguments.target}")
    except TypeError as error:
        raise ConfigurationError(str(error)) from None
    began = time.monotonic()
    with console.progress(arguments.command, "B") as progress:
        report = _verb(con, arguments)(
            source,
            name or None,
            select=arguments.select,
            on_error="skip" if getattr(arguments, "skip", False) else "raise",
            overwrite=arguments.overwrite,
            progress=progress,
            memory_limit=arguments.memory_limit,
            **options,
        )
    _show(report, time.monotonic() - began, arguments.source, console)
    if report.made and not con.instance.shared_between_processes:
        console.remark(f"{arguments.target} is in the memory of this command, and ends with it")
    return report


def _verb(con: Connection, arguments: argparse.Namespace) -> Callable[..., IngestReport]:
    only = getattr(arguments, "link_only", False)
    if not only and not getattr(arguments, "link", False):
        return partial(con.ingest, chunk_size=arguments.chunk_size)
    if arguments.chunk_size is not None:
        raise ConfigurationError(
            "--chunk-size does not apply to links, which have the file's chunks: omit it"
        )
    return partial(con.link, unlinkable="raise" if only else "ingest")


def _show(report: IngestReport, seconds: float, source: str, console: Console) -> None:
    if len(report.notes) > _MOST_NOTES:
        console.remark(f"{len(report.notes)} arrays were converted: --json prints how")
    else:
        for target, notes in report.notes.items():
            console.remark(f"{target}: {'; '.join(notes)}")
    for link, target in list(report.links.items())[:_MOST_LINKS]:
        console.remark(f"{link} is a link to what became {target}")
    if len(report.links) > _MOST_LINKS:
        console.remark(f"{len(report.links) - _MOST_LINKS} more links: --json prints them")
    for skipped, why in report.skipped.items():
        console.remark(f"left out {skipped}: {why}")
    shown = without_password(source)
    speed = f" in {seconds:.1f} s ({format_size(report.nbytes / max(seconds, 1e-9))}/s)"
    console.say(
        f"{shown}: {counted(len(report.made), 'dataset')}, {format_size(report.nbytes)}"
        + (speed if report.made else "")
        + (f", {len(report.resumed)} begun before" if report.resumed else "")
        + (f", {len(report.present)} there already" if report.present else "")
        + (f", {len(report.linked)} linked" if report.linked else "")
        + (f", {len(report.skipped)} left out" if report.skipped else "")
    )
    console.give(report)


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
