"""The arguments of the command, and its help."""

from __future__ import annotations

import argparse
import json
import re
from typing import Any

from dosna.cli.loader import add_loader
from dosna.core.sizes import parse_size

__all__ = ["make_parser"]

_DESCRIPTION = """\
N-dimensional arrays kept as chunks on object stores: look at them, move them in, out and around,
check and delete them.

A URL names a connection, or a dataset in it:

  hdf5:/data/scans                    a folder of datasets
  hdf5:/data/scans/entry/tomo         a dataset in it (also scans//entry/tomo, see below)
  file:/data/scans.zarr/entry/tomo    the same on the backend file, a folder of Zarr arrays
  s3://bucket/scans/entry/tomo?endpoint_url=https://s3.example.org
                                      in one bucket; after the '?' options of the connection
  s3:tomo                             a bucket for each dataset
  ceph:pool/tomo?conffile=/etc/ceph/ceph.conf
  NAME:PLACE/entry/tomo               on any backend that is installed

Of a folder's path, the last part is the dataset unless it is a folder that holds some; '//' says
where the connection's folder ends. Quote URLs with '?' and '&' in a shell.
"""

_EPILOG = """\
exit codes: 0, 1 (it failed, or a difference was found), 2 (wrong arguments), 130 (interrupted)

examples:
  dosna ingest scan.nxs hdf5:/data/scans
  dosna ls hdf5:/data/scans
  dosna info hdf5:/data/scans/entry/tomo --plot tomo.png
  dosna COMMAND --help shows more
"""

_INGEST = """\
Make datasets of the arrays of a file: HDF5 or NeXus, ROOT, Zarr, .npy or .npz, on this machine or
in S3; ROOT also by HTTP and XRootD.

Datasets have the names that the arrays have in the file. They are marked incomplete until all of
their data are there: after an interruption the same command goes on where it stopped.
"""

_INGEST_EXAMPLES = """\
examples:
  dosna ingest scan.nxs hdf5:/data/scans
  dosna ingest scan.nxs:/entry1 file:/data/scans --select 'entry1/*/data' --chunk-size '4 MiB'
  dosna ingest tomo.npy hdf5:/data/scans/tomo --chunk-size 64,64,64 --compression gzip
  dosna ingest 's3://raw/scan.h5?endpoint_url=https://s3.example.org' hdf5:/data/scans --skip
  dosna ingest --link scan.nxs hdf5:/data/scans
  dosna ingest data.root:Events file:/data/events --select nMuon --select 'Muon_*'
  dosna ingest 'servicex:REQUEST-ID?endpoint=NAME&config_path=servicex.yaml' hdf5:/data/events
  mpiexec -n 8 dosna ingest scan.nxs hdf5:/data/scans

A folder that TARGET names is made, if the one above it exists.
"""

_COPY = """\
Copy a dataset, or all of a connection, into another connection of any backend, with attributes.

As with cp, TARGET is the place (an existing folder, a connection) or, for one dataset, its new
name. An interrupted copy goes on when the command is given again; what was copied before is then
compared.
"""

_COPY_EXAMPLES = """\
examples:
  dosna copy hdf5:/data/scans/entry/tomo file:/data/zarr/tomo --chunk-size 128,128,128
  dosna copy hdf5:/data/scans 's3://beamline/scans?endpoint_url=https://s3.example.org'
"""

_EXPORT = """\
Write a dataset, or all of a connection, to one file for other programs: HDF5 (.h5, .hdf5, .nxs),
a folder of Zarr v3 arrays (.zarr), or NumPy's format (.npy, one dataset).

The file appears when it is complete, and not at all if anything fails.
"""

_EXPORT_EXAMPLES = """\
examples:
  dosna export hdf5:/data/scans scans.h5 --compression gzip
  dosna export hdf5:/data/scans/entry/tomo tomo.npy
"""

_VERIFY = """\
Read every chunk and say in which state it is: ok (its checksum is right), unchecked (well-formed,
without a checksum), never written, missing or corrupt.

With --against, compare the values with another dataset, connection or file, chunk by chunk, and
say where they differ. What is only in URL does not count as a difference.
"""

_VERIFY_EXAMPLES = """\
examples:
  dosna verify hdf5:/data/scans
  dosna verify hdf5:/data/scans --against scan.nxs
  dosna verify file:/data/zarr/tomo --against hdf5:/data/scans/entry/tomo
"""


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of all commands."""
    from dosna import __version__

    parser = argparse.ArgumentParser(
        "dosna",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"dosna {__version__}")
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", title="commands"
    )

    command = _add(commands, "ls", "list datasets", "List the datasets of a connection.")
    command.add_argument("url", metavar="URL", help="of a connection, or what names begin with")
    _add_select(command)

    command = _add(
        commands,
        "info",
        "describe a dataset, or a connection; draw it",
        "Describe a dataset (shape, chunks, storage, promises, attributes), a tree with the\n"
        "types of its branches, or a connection.",
        "examples:\n  dosna info hdf5:/data/scans/entry/tomo --plot tomo.png\n"
        "  dosna info file:/data/events/Events\n",
    )
    command.add_argument("url", metavar="URL")
    command.add_argument(
        "--plot",
        metavar="FILE",
        help="draw slices through the middle of the dataset (.png, .pdf, .svg)",
    )
    command.add_argument(
        "--written", action="store_true", help="count the chunks that were written: lists them all"
    )

    command = _add(
        commands, "ingest", "make datasets of a file's arrays", _INGEST, _INGEST_EXAMPLES
    )
    command.add_argument(
        "source",
        metavar="SOURCE",
        help="a file, FILE:/path/in/it, s3://bucket/key?endpoint_url=…, or hdf5://… (HSDS)",
    )
    command.add_argument("target", metavar="TARGET", help="URL of a connection or a new dataset")
    command.add_argument("--kind", help="kind of source, where its name does not tell")
    command.add_argument(
        "--skip",
        action="store_true",
        help="leave out arrays that cannot be kept or read, and say which",
    )
    linking = command.add_mutually_exclusive_group()
    linking.add_argument(
        "--link",
        action="store_true",
        help="leave the data of an HDF5 file where they are, and keep only the places of chunks; "
        "what cannot be linked is ingested",
    )
    linking.add_argument(
        "--link-only", action="store_true", help="the same, and what cannot be linked is an error"
    )
    _add_making(command)

    command = _add(commands, "copy", "copy into another connection", _COPY, _COPY_EXAMPLES)
    command.add_argument("source", metavar="A", help="URL of a dataset or a connection")
    command.add_argument("target", metavar="B", help="URL of a connection or a new dataset")
    _add_making(command)

    command = _add(commands, "export", "write to a file", _EXPORT, _EXPORT_EXAMPLES)
    command.add_argument("url", metavar="URL", help="of a dataset or a connection")
    command.add_argument("path", metavar="FILE", help="its ending says the format; or hdf5://…")
    _add_select(command)
    _add_chunk_size(command)
    command.add_argument("--compression", metavar="NAME", help="gzip; for .zarr also zstd, blosc")
    command.add_argument("--overwrite", action="store_true", help="replace a file that exists")
    _add_memory(command)

    command = _add(
        commands, "verify", "check chunks, or compare with something", _VERIFY, _VERIFY_EXAMPLES
    )
    command.add_argument("url", metavar="URL", help="of a dataset or a connection")
    command.add_argument("--against", metavar="B", help="URL or file to compare with")
    _add_select(command)
    _add_memory(command)

    command = _add(
        commands,
        "rm",
        "delete datasets",
        "Delete a dataset, or with --recursive all that a URL names. On a terminal it asks.",
        "example:\n  dosna rm hdf5:/data/scans/entry/tomo --yes\n",
    )
    command.add_argument("url", metavar="URL")
    command.add_argument("-r", "--recursive", action="store_true", help="all datasets of a place")
    command.add_argument("-y", "--yes", action="store_true", help="do not ask")
    add_loader(commands)
    return parser


def _add(commands: Any, name: str, short: str, long: str, examples: str = "") -> Any:
    command = commands.add_parser(
        name,
        help=short,
        description=long,
        epilog=examples or None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    common = command.add_argument_group("common options")
    common.add_argument(
        "--engine",
        metavar="NAME",
        help="who does the work: cpu, joblib (threads) or mpi; by default mpi under mpiexec, and "
        "else joblib if it is installed",
    )
    common.add_argument("--njobs", type=int, metavar="N", help="threads; by default one per CPU")
    common.add_argument("--json", action="store_true", help="results as JSON, for programs")
    common.add_argument("-q", "--quiet", action="store_true", help="neither progress nor remarks")
    common.add_argument("--debug", action="store_true", help="errors with their traceback")
    return command


def _add_select(command: Any) -> None:
    command.add_argument(
        "--select",
        metavar="PATTERN",
        action="append",
        help="only names like this, such as 'entry1/*/data'; may be given several times",
    )


def _add_chunk_size(command: Any) -> None:
    command.add_argument(
        "--chunk-size",
        metavar="SIZE",
        type=_chunk_size,
        help="extents like 64,64,64, or where it may be chosen a size like '4 MiB'",
    )


def _add_memory(command: Any) -> None:
    command.add_argument(
        "--memory-limit", metavar="SIZE", type=_size, help="most bytes of blocks held at a time"
    )


def _add_making(command: Any) -> None:
    _add_select(command)
    _add_chunk_size(command)
    command.add_argument("--compression", metavar="NAME", help="of the new datasets, like gzip")
    command.add_argument(
        "--option",
        metavar="KEY=VALUE",
        action="append",
        type=_option,
        default=[],
        help="another option of the backend's datasets, like checksum=true; JSON or text",
    )
    command.add_argument(
        "--overwrite", action="store_true", help="replace datasets of other origin"
    )
    _add_memory(command)


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _chunk_size(text: str) -> tuple[int, ...] | str:
    if re.fullmatch(r"\s*\d+(\s*,\s*\d+)*\s*,?\s*", text):
        extents = tuple(int(part) for part in text.split(",") if part.strip())
        if all(extents):
            return extents
    try:
        _size(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither extents like 64,64,64 nor a size like '4 MiB'"
        ) from None
    return text


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"an option has the form key=value, not {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
