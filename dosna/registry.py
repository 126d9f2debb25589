"""Plug-ins by name, loaded when they are first used: backends, engines, sources, codecs, verbs.

Other packages register plug-ins by the entry points ``dosna.backends``, ``dosna.engines``,
``dosna.sources``, ``dosna.codecs`` and ``dosna.verbs``. Each names an object of the type that the
table of that kind holds::

    [project.entry-points."dosna.backends"]
    mystore = "mypackage.mystore:BACKEND"

The tables are `dosna.backends.registry`, `dosna.engines.registry`, `dosna.sources.registry`,
`dosna.codecs.registry` and `dosna.array.verbs.registry`. This module does not know their types.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from dosna.errors import ConfigurationError, MissingDependencyError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


@dataclass(frozen=True)
class Known:
    """A plug-in of dosna itself: its module and attribute, and the packages that it needs."""

    target: str
    extra: str = ""
    aliases: tuple[str, ...] = ()
    hint: str = ""
    """The way to install what no package index has."""
    about: Any = None
    """Information about the plug-in that is available without loading it."""


P = TypeVar("P")


class Registry(Generic[P]):
    """A table of the plug-ins of one kind, by name.

    Parameters
    ----------
    kind : str
        The kind in error messages, such as ``backend``.
    plugin : type
        The type of the plug-ins.
    known : mapping of str to Known
        The plug-ins of dosna itself, by name.
    """

    def __init__(self, kind: str, plugin: type[P], known: Mapping[str, Known]) -> None:
        self.kind = kind
        self.plugin = plugin
        self.known = known
        self._alias = {a: name for name, k in known.items() for a in k.aliases}
        self.loaded: dict[str, P] = {}
        self._broken: set[str] = set()

    @property
    def names(self) -> tuple[str, ...]:
        """The names that `get` takes, without aliases."""
        return (*self.known, *sorted({*entry_points_of(self.kind), *self.loaded} - {*self.known}))

    @property
    def aliases(self) -> tuple[str, ...]:
        """The aliases that `get` takes as well."""
        return tuple(self._alias)

    def register(self, plugin: P, name: str = "") -> None:
        """Add a plug-in to the table of this process, under its own name if none is given."""
        self.loaded[(name or plugin.name).lower()] = plugin  # type: ignore[attr-defined]

    def loads(self, name: str) -> bool:
        """Load a plug-in of another package. If this fails, warn once and return False."""
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
        """Return the plug-in with a name or alias, in upper or lower case. Load it if necessary.

        Raises
        ------
        ConfigurationError
            The name is unknown (the message lists the known ones), or the plug-in of another
            package cannot be loaded or has a wrong type.
        MissingDependencyError
            A package that the plug-in needs is not installed.
        """
        if not isinstance(name, str):
            raise ConfigurationError(f"{self.kind} is named by a str, not {name!r}")
        key = name.lower()
        key = self._alias.get(key, key)
        if key not in self.loaded:
            self.loaded[key] = self._load(key, name)
        return self.loaded[key]

    def _load(self, key: str, asked: str) -> P:
        known = self.known.get(key)
        if known is None:
            entries = entry_points_of(self.kind)
            if key not in entries:
                raise ConfigurationError(
                    f"unknown {self.kind} {asked!r}: "
                    f"use one of {', '.join(sorted({*self.names, *self.loaded}))}"
                )
            return self._load_foreign(key, entries[key])
        try:
            loaded: P = load(known.target)
        except (ImportError, RuntimeError) as error:
            # mpi4py raises RuntimeError if there is no MPI library.
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
        if not isinstance(plugin, self.plugin):
            raise ConfigurationError(
                f"{what} is a {type(plugin).__name__}, not a {self.plugin.__name__}"
            )
        return plugin


def load(target: str) -> Any:
    """Import a module and return its attribute, from the text ``module:attribute``."""
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


@contextmanager
def needing(what: str, extra: str) -> Iterator[None]:
    """Convert the error of an import into one that names the extra to install.

    Parameters
    ----------
    what : str
        The feature, with its verb, such as "pilots need".
    extra : str
        The extra that has the package.

    Raises
    ------
    MissingDependencyError
        A package is not installed.
    """
    try:
        yield
    except ImportError as error:
        missing = error.name or error
        raise MissingDependencyError(f"{what} {missing}: pip install 'dosna[{extra}]'") from error


def lazily(
    package: str, places: Mapping[str, str], what: str = "", extra: str = ""
) -> Callable[[str], Any]:
    """Return a ``__getattr__`` of a package that imports its names when they are used.

    Parameters
    ----------
    package : str
        The name of the package.
    places : mapping of str to str
        The module of each name, relative to the package.
    what, extra : str
        The parameters of `needing`, for packages whose requirements may be missing.

    Returns
    -------
    callable
        The function, which raises AttributeError for other names.
    """

    def find(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        with needing(what, extra) if extra else nullcontext():
            return getattr(importlib.import_module(f"{package}.{places[name]}"), name)

    return find


@cache
def entry_points_of(kind: str) -> dict[str, EntryPoint]:
    """Return the entry points of a kind of plug-in, by name."""
    return {entry.name.lower(): entry for entry in entries(f"dosna.{kind}s")}


def entries(group: str) -> Iterable[EntryPoint]:
    """Return the entry points of a group."""
    # Imported here, because it takes longer to import than all of dosna.
    from importlib.metadata import entry_points

    return entry_points(group=group)


_MOVED = {
    "Backend": "dosna.backends:Backend",
    "Engine": "dosna.engines:Engine",
    "Claims": "dosna.sources:Claims",
    "SourceKind": "dosna.sources:SourceKind",
    "backends": "dosna.backends:registry",
    "engines": "dosna.engines:registry",
    "sources": "dosna.sources:registry",
}


def __getattr__(name: str) -> Any:
    # The names that this module had in 0.1, which the release after the next will remove.
    if name not in _MOVED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = _MOVED[name]
    where = found.replace(":", ".")
    warnings.warn(f"dosna.registry.{name} is now {where}", DeprecationWarning, stacklevel=2)
    return load(found)
