"""Names and aliases of backends, engines and sources, loaded when they are first used.

Packages from outside register by the entry points ``dosna.backends``, ``dosna.engines`` and
``dosna.sources``, each naming a `Backend`, an `Engine` or a `SourceKind`::

    [project.entry-points."dosna.backends"]
    mystore = "mypackage.mystore:BACKEND"

A source says by further entry points, with the same value, what it takes, so that it is loaded
only for that: ``dosna.sources.suffixes``, ``dosna.sources.schemes``, ``dosna.sources.packages``
and ``dosna.sources.members``, in which the names are those of `Claims`.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from dosna.errors import ConfigurationError, MissingDependencyError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from dosna.backends.base import BackendConnection
    from dosna.engines.base import Runner
    from dosna.engines.connection import EngineConnection
    from dosna.sources.base import Source


@dataclass(frozen=True)
class Backend:
    """A backend: where chunks live.

    Parameters
    ----------
    name : str
        In lower case.
    connection : type
        Its connection class; the rest follows from it.
    description : str
        One line for people.
    url : str
        Where to read more.
    """

    name: str
    connection: type[BackendConnection]
    description: str = ""
    url: str = ""

    def __post_init__(self) -> None:
        if not hasattr(self.connection, "shared_between_processes"):
            raise TypeError(
                f"{self.connection.__name__} must say whether other processes see its data: "
                "set shared_between_processes = True or False in the class"
            )


@dataclass(frozen=True)
class Engine:
    """An engine: who does the work.

    Parameters
    ----------
    name : str
        In lower case.
    runner : type
        Its runner class; `params` are the keywords of its constructor.
    connection : type, optional
        A subclass of `EngineConnection`, for an engine that wraps in its own way.
    description, url : str
    params : mapping
        The keywords chosen by ``engine_kw``; empty for the engine's defaults.
    """

    name: str
    runner: type[Runner]
    connection: type[EngineConnection] | None = None
    description: str = ""
    url: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Claims:
    """What a kind of source takes, told without loading it.

    Parameters
    ----------
    suffixes : tuple of str
        Ends of names of files, such as ``.h5``, in lower case. The files may lie wherever
        dosna reads bytes: on a local file system, in S3.
    schemes : tuple of str
        What precedes the first ':' of its own URLs, such as ``hdf5`` of ``hdf5://…``.
    packages : tuple of str
        The top-level packages whose objects it takes, such as ``h5py``.
    members : tuple of str
        Names of files of which its folders have one, whatever the folders are called.
    signatures : tuple of bytes
        What its files begin with, whatever they are called.
    block : bool
        Whether that may also come after a block of 512 bytes, or of 1024, 2048 and so on.
    """

    suffixes: tuple[str, ...] = ()
    schemes: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    signatures: tuple[bytes, ...] = ()
    block: bool = False


@dataclass(frozen=True)
class SourceKind:
    """A kind of source: where data come from.

    Parameters
    ----------
    name : str
        In lower case.
    source : type
        A subclass of `dosna.sources.Source`; the keywords of its constructor are its options.
    claims : Claims
        By what it is recognised.
    description, url : str
    many : bool
        Whether it takes a list of files as its location.
    """

    name: str
    source: type[Source]
    claims: Claims
    description: str = ""
    url: str = ""
    many: bool = False


@dataclass(frozen=True)
class _Known:
    """A plug-in of our own: which attribute of which module, and what it needs."""

    target: str
    extra: str = ""
    aliases: tuple[str, ...] = ()
    hint: str = ""
    """How to install what no package index has."""
    claims: Claims = Claims()


P = TypeVar("P", Backend, Engine, SourceKind)


class Registry(Generic[P]):
    """One kind of plug-in, by name.

    Parameters
    ----------
    kind : str
        ``backend``, ``engine`` or ``source``, as error messages call it.
    known : mapping of str to _Known
    """

    def __init__(self, kind: str, known: Mapping[str, _Known]) -> None:
        self.kind = kind
        self._known = known
        self._alias = {a: name for name, k in known.items() for a in k.aliases}
        self._loaded: dict[str, P] = {}
        self._broken: set[str] = set()

    @property
    def names(self) -> tuple[str, ...]:
        """Names that `get` takes, without aliases."""
        return (*self._known, *sorted({*_entry_points(self.kind), *self._loaded} - {*self._known}))

    @property
    def aliases(self) -> tuple[str, ...]:
        """Further names that `get` takes."""
        return tuple(self._alias)

    def register(self, plugin: P) -> None:
        """Make a plug-in known in this process, under its own name."""
        self._loaded[plugin.name.lower()] = plugin

    def claims(self, load: bool = False) -> dict[str, Claims]:
        """Return what each source takes, by name.

        Parameters
        ----------
        load : bool
            Also load those of other packages whose entry points do not say it. One that cannot be
            loaded is left out, with a warning.
        """
        found = {name: known.claims for name, known in self._known.items()}
        told = _claimed(self.kind)
        for name in sorted({*_entry_points(self.kind), *self._loaded} - found.keys()):
            if name not in self._loaded and name in told:
                found[name] = told[name]
            elif name in self._loaded or (load and self._loads(name)):
                plugin = self._loaded[name]
                if isinstance(plugin, SourceKind):
                    found[name] = plugin.claims
        return found

    def _loads(self, name: str) -> bool:
        """Load a plug-in of another package, or warn, once, that it cannot be."""
        if name in self._broken:
            return False
        try:
            self.get(name)
        except (ConfigurationError, MissingDependencyError) as error:
            self._broken.add(name)
            warnings.warn(f"{error}. It is left out", stacklevel=2)
            return False
        return True

    def get(self, name: str) -> P:
        """Load the plug-in of that name or alias, in any case.

        Raises
        ------
        ConfigurationError
            Unknown; the message lists what is known.
        MissingDependencyError
            A package that it needs is not installed.
        """
        if not isinstance(name, str):
            raise ConfigurationError(f"{self.kind} is named by a str, not {name!r}")
        key = name.lower()
        key = self._alias.get(key, key)
        if key not in self._loaded:
            self._loaded[key] = self._load(key, name)
        return self._loaded[key]

    def _load(self, key: str, asked: str) -> P:
        known = self._known.get(key)
        if known is None:
            entries = _entry_points(self.kind)
            if key not in entries:
                raise ConfigurationError(
                    f"unknown {self.kind} {asked!r}: "
                    f"use one of {', '.join(sorted({*self.names, *self._loaded}))}"
                )
            return self._load_foreign(key, entries[key])
        module, _, attribute = known.target.partition(":")
        try:
            loaded: P = getattr(importlib.import_module(module), attribute)
        except (ImportError, RuntimeError) as error:
            # mpi4py without an MPI library is a RuntimeError.
            if not known.extra and not known.hint:
                raise
            package = getattr(error, "name", None) or "a package"
            raise MissingDependencyError(
                f"{self.kind} {key!r} needs {package}, which cannot be imported ({error}): "
                + (known.hint or f"pip install 'dosna[{known.extra}]'")
            ) from error
        return loaded

    def _load_foreign(self, key: str, entry: EntryPoint) -> P:
        owner = "" if entry.dist is None else f" of {entry.dist.name} {entry.dist.version}"
        what = f"the plug-in {entry.value!r}{owner} for {self.kind} {key!r}"
        try:
            plugin = entry.load()
        except ImportError as error:
            raise MissingDependencyError(
                f"{what} cannot be imported ({error}): install what it needs, a version of it for "
                "this dosna, or remove it"
            ) from error
        except (Exception, SystemExit) as error:
            raise ConfigurationError(
                f"{what} cannot be loaded ({type(error).__name__}: {error}): install a version of "
                "it for this dosna, or remove it"
            ) from error
        if not isinstance(plugin, (Backend, Engine, SourceKind)) or not isinstance(
            plugin, _PLUGINS[self.kind]
        ):
            raise ConfigurationError(
                f"{what} is a {type(plugin).__name__}, and not a {_PLUGINS[self.kind].__name__}"
            )
        return plugin  # type: ignore[return-value]


_PLUGINS: dict[str, type] = {"backend": Backend, "engine": Engine, "source": SourceKind}


@cache
def _claimed(kind: str) -> dict[str, Claims]:
    """Read what entry points say that plug-ins take, without loading them."""
    names = {entry.value.replace(" ", ""): name for name, entry in _entry_points(kind).items()}
    told: dict[str, Claims] = {}
    for claim in ("suffixes", "schemes", "packages", "members"):
        for entry in _entries(f"dosna.{kind}s.{claim}"):
            name = names.get(entry.value.replace(" ", ""))
            if name is not None:
                known = told.get(name, Claims())
                more: Any = {claim: (*getattr(known, claim), entry.name)}
                told[name] = replace(known, **more)
    return told


@cache
def _entry_points(kind: str) -> dict[str, EntryPoint]:
    return {entry.name.lower(): entry for entry in _entries(f"dosna.{kind}s")}


def _entries(group: str) -> Iterable[EntryPoint]:
    # Late, because it takes longer to import than all of dosna.
    from importlib.metadata import entry_points

    return entry_points(group=group)


# What files of HDF5 are called: in general, by NeXus, netCDF and MATLAB, and field by field.
_HDF5 = (
    *(".h5", ".hdf5", ".hdf", ".he5", ".nxs", ".nx5", ".nc", ".nc4", ".mat"),
    *(".bag", ".biom", ".cgns", ".cool", ".cxi", ".emd", ".exo", ".fast5", ".h5ad", ".h5m"),
    *(".h5md", ".hspy", ".ilp", ".ims", ".loom", ".mcool", ".mda", ".med", ".nwb", ".rtdc"),
    *(".rtout", ".scool", ".silo", ".snirf", ".vtkhdf"),
)

backends: Registry[Backend] = Registry(
    "backend",
    {
        "ram": _Known("dosna.backends.ram:BACKEND"),
        "hdf5": _Known("dosna.backends.hdf5:BACKEND", "hdf5"),
        "s3": _Known("dosna.backends.s3:BACKEND", "s3"),
        "sage": _Known("dosna.backends.sage:BACKEND", "sage"),
        "file": _Known("dosna.backends.file:BACKEND", "zarr", ("zarr",)),
        "ceph": _Known(
            "dosna.backends.ceph:BACKEND",
            hint="install your system's package python3-rados; docs/ceph.md tells how a virtual "
            "environment gets it",
        ),
    },
)
engines: Registry[Engine] = Registry(
    "engine",
    {
        "cpu": _Known("dosna.engines.cpu:ENGINE"),
        "joblib": _Known("dosna.engines.jl:ENGINE", "jl", ("jl",)),
        "mpi": _Known("dosna.engines.mpi:ENGINE", "mpi"),
    },
)
sources: Registry[SourceKind] = Registry(
    "source",
    {
        "hdf5": _Known(
            "dosna.sources.hdf5:KIND",
            "hdf5",
            ("nexus",),
            claims=Claims(
                _HDF5, packages=("h5py",), signatures=(b"\x89HDF\r\n\x1a\n",), block=True
            ),
        ),
        "hsds": _Known(
            "dosna.sources.hsds:KIND",
            "hsds",
            claims=Claims(schemes=("hdf5",), packages=("h5pyd",)),
        ),
        "zarr": _Known(
            "dosna.sources.zarr:KIND",
            "ingest",
            claims=Claims(
                (".zarr",), packages=("zarr",), members=("zarr.json", ".zgroup", ".zarray")
            ),
        ),
        "servicex": _Known(
            "dosna.sources.servicex:KIND",
            "servicex",
            claims=Claims(schemes=("servicex",), packages=("servicex",)),
        ),
        "dosna": _Known("dosna.sources.datasets:KIND", claims=Claims(packages=("dosna",))),
        "npy": _Known(
            "dosna.sources.npy:KIND",
            claims=Claims((".npy", ".npz"), packages=("numpy",), signatures=(b"\x93NUMPY",)),
        ),
        "root": _Known(
            "dosna.sources.root:KIND",
            "root",
            claims=Claims((".root",), packages=("uproot",), signatures=(b"root",)),
        ),
    },
)
