"""The kinds of sources, and the locations that each takes.

A source of another package is loaded only when it is needed. For that, it says what it takes by
further entry points: ``dosna.sources.suffixes``, ``dosna.sources.schemes``,
``dosna.sources.packages`` and ``dosna.sources.members``. Their values are the same as the one in
``dosna.sources``, and their names are entries of `Claims`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from dosna.registry import Known, Registry, entries, entry_points_of
from dosna.sources.base import Source

__all__ = ["Claims", "SourceKind", "SourceRegistry", "registry"]


@dataclass(frozen=True)
class Claims:
    """The locations that a kind of source takes, known without loading it.

    Parameters
    ----------
    suffixes : tuple of str
        The ends of file names, such as ``.h5``, in lower case. The files may lie wherever
        dosna reads bytes: on a local file system, or in S3.
    schemes : tuple of str
        The schemes of its own URLs, such as ``hdf5`` for ``hdf5://…``.
    packages : tuple of str
        The top-level packages whose objects the source takes, such as ``h5py``.
    members : tuple of str
        Names of files. A folder that contains one of them is a source, whatever its name is.
    signatures : tuple of bytes
        The first bytes of its files, whatever their names are.
    block : bool
        Whether a signature may also follow a block of 512 bytes, or of 1024, 2048 and so on.
    """

    suffixes: tuple[str, ...] = ()
    schemes: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    signatures: tuple[bytes, ...] = ()
    block: bool = False


@dataclass(frozen=True)
class SourceKind:
    """A kind of source.

    Parameters
    ----------
    name : str
        The name, in lower case.
    source : type
        A subclass of `dosna.sources.Source`; the keywords of its constructor are its options.
    claims : Claims
        The locations by which it is recognised.
    description, url : str
        A short description, and a web page.
    many : bool
        Whether it takes a list of files as its location.
    """

    name: str
    source: type[Source]
    claims: Claims
    description: str = ""
    url: str = ""
    many: bool = False


class SourceRegistry(Registry[SourceKind]):
    """The sources by name, and the locations that each takes."""

    def claims(self, load: bool = False) -> dict[str, Claims]:
        """Return the claims of each source, by name.

        Parameters
        ----------
        load : bool
            Whether to load sources of other packages whose entry points have no claims. One that
            cannot be loaded is left out, with a warning.
        """
        found = {name: known.about or Claims() for name, known in self.known.items()}
        told = _claimed(self.kind)
        for name in sorted({*entry_points_of(self.kind), *self.loaded} - found.keys()):
            if name not in self.loaded and name in told:
                found[name] = told[name]
            elif name in self.loaded or (load and self.loads(name)):
                plugin = self.loaded[name]
                if isinstance(plugin, SourceKind):
                    found[name] = plugin.claims
        return found


@cache
def _claimed(kind: str) -> dict[str, Claims]:
    """Read the claims of plug-ins from their entry points, without loading them."""
    names = {entry.value.replace(" ", ""): name for name, entry in entry_points_of(kind).items()}
    told: dict[str, Claims] = {}
    for claim in ("suffixes", "schemes", "packages", "members"):
        for entry in entries(f"dosna.{kind}s.{claim}"):
            name = names.get(entry.value.replace(" ", ""))
            if name is not None:
                known = told.get(name, Claims())
                more: Any = {claim: (*getattr(known, claim), entry.name)}
                told[name] = replace(known, **more)
    return told


# Suffixes of HDF5 files: general ones, those of NeXus, netCDF and MATLAB, and of single fields.
_HDF5 = (
    *(".h5", ".hdf5", ".hdf", ".he5", ".nxs", ".nx5", ".nc", ".nc4", ".mat"),
    *(".bag", ".biom", ".cgns", ".cool", ".cxi", ".emd", ".exo", ".fast5", ".h5ad", ".h5m"),
    *(".h5md", ".hspy", ".ilp", ".ims", ".loom", ".mcool", ".mda", ".med", ".nwb", ".rtdc"),
    *(".rtout", ".scool", ".silo", ".snirf", ".vtkhdf"),
)

registry = SourceRegistry(
    "source",
    SourceKind,
    {
        "hdf5": Known(
            "dosna.sources.hdf5.source:KIND",
            "hdf5",
            ("nexus",),
            about=Claims(
                _HDF5, packages=("h5py",), signatures=(b"\x89HDF\r\n\x1a\n",), block=True
            ),
        ),
        "hsds": Known(
            "dosna.sources.hsds.source:KIND",
            "hsds",
            about=Claims(schemes=("hdf5",), packages=("h5pyd",)),
        ),
        "zarr": Known(
            "dosna.sources.zarr.source:KIND",
            "ingest",
            about=Claims(
                (".zarr",), packages=("zarr",), members=("zarr.json", ".zgroup", ".zarray")
            ),
        ),
        "servicex": Known(
            "dosna.sources.servicex.source:KIND",
            "servicex",
            about=Claims(schemes=("servicex",), packages=("servicex",)),
        ),
        "dosna": Known("dosna.sources.datasets:KIND", about=Claims(packages=("dosna",))),
        "npy": Known(
            "dosna.sources.npy.source:KIND",
            about=Claims((".npy", ".npz"), packages=("numpy",), signatures=(b"\x93NUMPY",)),
        ),
        "root": Known(
            "dosna.sources.root.source:KIND",
            "root",
            about=Claims((".root",), packages=("uproot",), signatures=(b"root",)),
        ),
    },
)
