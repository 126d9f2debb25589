"""The parser of all commands."""

from __future__ import annotations

import argparse

from dosna.cli.commands import COMMANDS

__all__ = ["make_parser"]

_DESCRIPTION = """\
Manage N-dimensional arrays that are stored as chunks on object stores: list and describe them,
ingest them from files, copy, export, verify and delete them.

A URL names a connection, or a dataset in it:

  hdf5:/data/scans                    a folder of datasets
  hdf5:/data/scans/entry/tomo         a dataset in that folder
  file:/data/scans.zarr/entry/tomo    a dataset that is stored as a Zarr array
  s3://bucket/scans/entry/tomo?endpoint_url=https://s3.example.org
                                      a dataset in a bucket; the connection's options follow '?'
  s3:tomo                             a dataset that is a bucket of its own
  ceph:pool/tomo?conffile=/etc/ceph/ceph.conf
                                      a dataset in a pool
  NAME:PLACE/entry/tomo               a dataset on any other backend that is installed

The last part of a folder's path is a dataset, unless it is a folder with datasets in it. To mark
the end of the connection's folder, write '//': hdf5:/data/scans//entry/tomo. In a shell, quote
URLs that contain '?' or '&'.
"""

_EPILOG = """\
exit codes:
  0    success
  1    failure, or a difference was found
  2    wrong arguments
  130  interrupted

examples:
  dosna ingest scan.nxs hdf5:/data/scans
  dosna ls hdf5:/data/scans
  dosna info hdf5:/data/scans/entry/tomo --plot tomo.png

Run 'dosna COMMAND --help' for the options and examples of a command.
"""


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
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
    for command in COMMANDS:
        command.add(commands)
    return parser
