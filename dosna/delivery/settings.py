"""The settings of a service: its data, its users, and their limits."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dosna.core.options import check_seconds, check_type
from dosna.core.sizes import parse_size
from dosna.core.url import without_password
from dosna.delivery.destinations import place_of
from dosna.errors import ConfigurationError

__all__ = ["DAY", "Settings"]

DAY = 86400.0
_AUTH = ("none", "tokens")


@dataclass(frozen=True)
class Settings:
    """The settings of a delivery service.

    Parameters
    ----------
    roots : sequence of str
        The served folders, and beginnings of URLs such as ``https://opendata.cern.ch/eos/`` or
        ``s3://bucket/data/``. Nothing else is read.
    state : str
        The folder of the service's own files. One service at a time uses it.
    destinations : sequence of str
        The connections that results may be written into, as ``BACKEND:PLACE?OPTIONS``.
    database : str, optional
        The URL of the database; SQLite in the folder `state` by default.
    objects : str, optional
        The place of the results: a folder, or ``s3://bucket/prefix``; a folder in `state` by
        default.
    objects_endpoint : str, optional
        The URL of the S3 server of `objects`.
    sources_endpoint : str, optional
        The URL of the S3 server of ``s3://`` sources.
    host : str
        The address of the interface to listen on.
    port : int
        The port; 0 for a free one.
    public_url : str, optional
        The URL at which clients reach the service, if there is a proxy in front of it.
    auth : {'none', 'tokens'}
        Whether users need tokens.
    workers : int, optional
        The number of files that are transformed at a time; the number of CPUs by default.
    dask : str, optional
        The address of a Dask scheduler, whose workers do the work.
    running_limit : int
        The maximum number of unfinished requests of a user.
    files_limit : int
        The maximum number of files of a request.
    bytes_limit : int or str
        The maximum size of the results of a user.
    keep_days : float
        The days after which the results of a finished request are deleted.
    lookup_days : float
        The days after which a dataset is looked up again.
    preflight_seconds : float
        The time that a submission waits for its first file.
    file_seconds : float
        The time limit for each file.
    file_memory : int or str
        The memory limit for each file.
    file_disk : int or str
        The limit of disk space for each file.
    attempts : int
        The number of attempts at a file whose worker died.
    patience : float
        The time for which storage that fails is tried again, in seconds.
    unconfined : bool
        Whether to run selections even if the kernel cannot confine them.
    func_adl : str, optional
        The interpreter or the environment with func_adl_uproot; see
        `dosna.delivery.transform.environment`.
    rucio : str, optional
        The URL of a Rucio server, for ``rucio://``.
    rucio_account : str
        The account at that server.
    opendata : str
        The URL of CERN's open data portal, for ``cernopendata://``.

    Raises
    ------
    ConfigurationError
        A value is not valid.
    """

    roots: tuple[str, ...]
    state: str
    destinations: tuple[str, ...] = ()
    database: str | None = field(default=None, repr=False)
    objects: str | None = None
    objects_endpoint: str | None = None
    sources_endpoint: str | None = None
    host: str = "127.0.0.1"
    port: int = 5055
    public_url: str | None = None
    auth: str = "none"
    workers: int | None = None
    dask: str | None = None
    running_limit: int = 20
    files_limit: int = 100_000
    bytes_limit: int | str = "100 GiB"
    keep_days: float = 7.0
    lookup_days: float = 1.0
    preflight_seconds: float = 60.0
    file_seconds: float = 1800.0
    file_memory: int | str = "2 GiB"
    file_disk: int | str = "20 GiB"
    attempts: int = 3
    patience: float = 3600.0
    unconfined: bool = False
    func_adl: str | None = None
    rucio: str | None = None
    rucio_account: str = "servicex"
    opendata: str = "https://opendata.cern.ch"

    def __post_init__(self) -> None:
        roots = tuple(map(_root, _texts("roots", self.roots)))
        object.__setattr__(self, "roots", roots)
        places = tuple(map(place_of, _texts("destinations", self.destinations)))
        object.__setattr__(self, "destinations", places)
        (state,) = _texts("state", [self.state])
        object.__setattr__(self, "state", os.path.realpath(state))
        for item in dataclasses.fields(self):
            if item.name not in ("roots", "destinations"):
                check_type(item.name, getattr(self, item.name), str(item.type))
        for name in ("bytes_limit", "file_memory", "file_disk"):
            try:
                object.__setattr__(self, name, parse_size(getattr(self, name)))
            except ValueError as error:
                raise ConfigurationError(f"{name}: {error}") from None
        if not roots:
            raise ConfigurationError(
                "nothing is served: give a folder, or the beginning of URLs, as root"
            )
        if self.auth not in _AUTH:
            raise ConfigurationError(f"auth must be 'none' or 'tokens', not {self.auth!r}")
        if not 0 < self.keep_days <= 3650:
            raise ConfigurationError(
                f"keep_days must be more than 0 and at most 3650, not {self.keep_days!r}"
            )
        check_seconds("file_seconds", self.file_seconds)
        for name in ("lookup_days", "preflight_seconds", "patience"):
            if not getattr(self, name) >= 0:
                raise ConfigurationError(f"{name} must be at least 0, not {getattr(self, name)!r}")
        for name in ("running_limit", "files_limit", "attempts", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigurationError(f"{name} must be at least 1, not {value!r}")
        own = [self.state] + [os.path.realpath(p) for p in [self.objects] if p and "://" not in p]
        for place in own:
            for folder in self.folders:
                if os.path.commonpath([folder, place]) == folder:
                    raise ConfigurationError(
                        f"{place}, which is for the service's own files, is in the folder "
                        f"{folder}, which is served: choose another one"
                    )

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders that are served."""
        return tuple(root for root in self.roots if "://" not in root)

    @property
    def database_url(self) -> str:
        """The URL of the database."""
        return self.database or f"sqlite:///{self.state}/delivery.sqlite"

    @property
    def objects_place(self) -> str:
        """The place of the results."""
        return self.objects or os.path.join(self.state, "objects")

    @property
    def slots(self) -> int:
        """The number of files that are transformed at a time."""
        return self.workers or len(os.sched_getaffinity(0))

    @cached_property
    def for_workers(self) -> Settings:
        """The settings that workers need for a file: without the database and the destinations,
        whose URLs may have passwords.
        """
        return dataclasses.replace(
            self, database=None, destinations=(), objects=None, dask=None, rucio=None
        )

    def shown(self) -> dict[str, Any]:
        """Return the settings without passwords."""
        return {name: _shown(value) for name, value in dataclasses.asdict(self).items()}

    @classmethod
    def read(cls, path: str | None, **others: Any) -> Settings:
        """Return the settings in a TOML file; other settings override them unless they are None.

        Parameters
        ----------
        path : str or None
            The file, which has the names of the parameters as keys.
        **others : object
            Further settings.

        Raises
        ------
        ConfigurationError
            The file cannot be read, or has other keys.
        """
        found: dict[str, Any] = {}
        if path is not None:
            import tomllib

            try:
                found = tomllib.loads(Path(path).read_text())
            except (OSError, ValueError) as error:
                raise ConfigurationError(f"settings {path} cannot be read: {error}") from None
        found |= {name: value for name, value in others.items() if value is not None}
        _check_names(found)
        return cls(**found)


def _check_names(found: Mapping[str, Any]) -> None:
    known = [item.name for item in dataclasses.fields(Settings)]
    for name in found:
        if name not in known:
            raise ConfigurationError(
                f"there is no setting {name!r}: the settings are {', '.join(known)}"
            )
    for name in ("roots", "state"):
        if not found.get(name):
            raise ConfigurationError(f"the setting {name!r} is missing: give --{name.rstrip('s')}")


def _shown(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_shown, value))
    return without_password(value) if isinstance(value, str) else value


def _texts(name: str, value: Any) -> list[str]:
    """Return the texts of a setting, which may be a single one."""
    found = value if isinstance(value, (list, tuple)) else [value]
    for text in found:
        if not isinstance(text, (str, os.PathLike)):
            raise ConfigurationError(f"{name} must be text, not {text!r}")
    return [os.fspath(text) for text in found]


def _root(text: str) -> str:
    """Return the real path of a folder, or the beginning of URLs with a trailing slash."""
    if "://" in text:
        try:
            urlsplit(text)
        except ValueError:
            raise ConfigurationError(
                f"{without_password(text)!r}, which should be served, is not a URL: write "
                "SCHEME://HOST/PATH/"
            ) from None
        return text if text.endswith("/") else text + "/"
    found = os.path.realpath(text)
    if not os.path.isdir(found):
        raise ConfigurationError(
            f"the folder {text}, which should be served, does not exist: create it"
        )
    return found
