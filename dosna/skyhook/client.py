"""The client: SkyhookDM's class, on a connection of dosna or a Dask scheduler."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from dosna.array.opening import open_url
from dosna.backends import registry as backends
from dosna.core.names import check_name
from dosna.core.url import Url, without_password
from dosna.engines import registry as engines
from dosna.errors import ConfigurationError, NotConnectedError, SourceError
from dosna.skyhook import work
from dosna.skyhook.model import Dataset, File

__all__ = ["SkyhookDM"]

T = TypeVar("T")

Urls = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]

_PORT, _LAST_PORT, _SHOWN = 8786, 65535, 200
_SCHEDULER = re.compile(
    r"(?P<inproc>inproc://[\w./-]+)"
    r"|(?:(?:tcp|tls|ucx|wss?)://)?(?:[\w.-]*\w\.?|\[[0-9A-Fa-f:.]+(?:%\w+)?\])(?::(?P<port>[0-9]{1,5}))?",
    re.ASCII,
)
_SECONDS = 30  # to reach a scheduler
_SETTING = "dosna.url"


class SkyhookDM:
    """SkyhookDM's Python client, on top of dosna. The methods have the names of SkyhookDM's.

    Examples
    --------
    >>> from dosna.skyhook import SkyhookDM
    >>> sk = SkyhookDM()
    >>> sk.connect("file:/data/events")  # doctest: +SKIP
    >>> sk.writeDataset(["/data/nano_aod.root"], "aod")  # doctest: +SKIP
    True
    >>> file = sk.getDataset("aod").getFiles()[0]  # doctest: +SKIP
    >>> sk.runQuery(file, "select nMuon >= 2, project Events;1.nMuon")  # doctest: +SKIP
    """

    def __init__(self) -> None:
        self._place: _Here | _Workers | None = None

    def connect(self, address: str, ceph_pool_name: str | None = None) -> None:
        """Connect to the place where datasets are stored.

        Parameters
        ----------
        address : str
            The URL of a connection, such as ``file:/data/events`` or
            ``ceph:pool?conffile=/etc/ceph/ceph.conf``; or the address of a Dask scheduler
            (``10.0.0.1``, ``10.0.0.1:8786``, ``tls://…``), whose workers have such a URL in Dask's
            configuration, as ``dosna.url`` (or in the variable ``DASK_DOSNA__URL``).
        ceph_pool_name : str, optional
            The name of the pool, or of another connection, in place of the one in the URL.

        Raises
        ------
        ConfigurationError
            The address is neither the URL of a connection nor that of a scheduler, or the workers
            have no URL.
        ConnectionError
            The store or the scheduler cannot be reached.
        WorkerError
            The scheduler has no worker, or one that cannot work for this process.
        """
        self.close()
        if not isinstance(address, str):
            raise TypeError(f"an address is a text, not {type(address).__name__}")
        if ceph_pool_name is not None and not isinstance(ceph_pool_name, str):
            raise TypeError(f"ceph_pool_name is a text, not {type(ceph_pool_name).__name__}")
        backend = re.match(r"([A-Za-z][\w.+-]*):", address)
        if backend and backend[1] in {*backends.names, *backends.aliases}:
            self._place = _Here(_with_pool(address, ceph_pool_name))
        else:
            self._place = _Workers(_scheduler(address), ceph_pool_name)

    def close(self) -> None:
        """End the connection, as the end of the process does. SkyhookDM has no such method."""
        if self._place is not None:
            self._place.close()
            self._place = None

    def __enter__(self) -> SkyhookDM:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def _connected(self) -> _Here | _Workers:
        if self._place is None:
            raise NotConnectedError("SkyhookDM is not connected: call connect(address) first")
        return self._place

    def writeDataset(self, urls: Urls, name: str, overwrite: bool = False) -> bool:
        """Write the trees of ROOT files as a dataset.

        If the call was interrupted, repeat it to continue.

        Parameters
        ----------
        urls : str, path or iterable of these
            The paths or URLs of the files. Dask workers must be able to read them.
        name : str
            The name of the dataset.
        overwrite : bool
            Whether to replace a dataset of other files, or of another state of these files.

        Returns
        -------
        bool
            True.

        Raises
        ------
        DatasetExistsError
            A dataset with this name and other files exists.
        DatasetNameError
            A dataset cannot have the name.
        SourceError
            A file cannot be read or has changed, or there are no files.
        """
        check_name(name)
        one = isinstance(urls, (str, os.PathLike))
        files: list[Any] = [urls] if one else list(urls or ())  # type: ignore[arg-type]
        wrong = [url for url in files if not isinstance(url, (str, os.PathLike))]
        if wrong:
            raise TypeError(f"urls are paths or URLs of files, and {wrong[0]!r} is none")
        if not files:
            raise SourceError(
                f"dataset {name!r} cannot be written: there are no files. Give at least one URL"
            )
        self._connected.do(work.write, [os.fspath(url) for url in files], name, overwrite)
        return True

    def getDataset(self, name: str) -> Dataset:
        """Return a dataset.

        Parameters
        ----------
        name : str
            The name of the dataset.

        Returns
        -------
        Dataset
            The dataset, with its files.

        Raises
        ------
        DatasetNotFoundError
            There is no such dataset.
        FormatError
            Its description is broken.
        """
        described = self._connected.do(work.describe, check_name(name))
        files = [
            File(file["name"], file["attributes"], file["schema"], name, file["group"])
            for file in described
        ]
        return Dataset(name, sum(file.attributes["size"] for file in files), files)

    def runQuery(self, obj: File | Dataset, querystr: str) -> Any:
        """Return the entries of a file, or of each file of a dataset, that satisfy a predicate.

        Parameters
        ----------
        obj : File or Dataset
            The file or dataset to query.
        querystr : str
            The query: ``select nMuon >= 2, project Events;75.Muon_eta,Events;75.Muon_phi``. The
            predicate is in the language of `dosna.Connection.query`; ``event_id`` in it is the
            number of the entry in the file, and ``*`` is all entries.

        Returns
        -------
        pyarrow.Table or list of pyarrow.Table
            A table with a column for each branch; for a dataset, a list with a table for each
            file.

        Raises
        ------
        UnknownNameError
            There is no such tree or branch. The message contains the most similar names.
        QueryError
            The text is not a query.
        """
        if not isinstance(obj, (File, Dataset)):
            raise TypeError(f"runQuery needs a File or a Dataset, not {type(obj).__name__}")
        files = [obj] if isinstance(obj, File) else obj.files
        asked = [(file.dataset, file.group, querystr) for file in files]
        tables = self._connected.do_each(work.run, asked)
        return tables[0] if isinstance(obj, File) else tables


def _with_pool(url: str, pool: str | None) -> str:
    return url if pool is None else str(replace(Url.parse(url), path=pool))


def _scheduler(address: str) -> str:
    """Return the address of a scheduler with its port.

    Raises
    ------
    ConfigurationError
        It has another form, for which nobody should wait.
    """
    found = _SCHEDULER.fullmatch(address)
    if found is None or int(found["port"] or 0) > _LAST_PORT:
        raise ConfigurationError(
            f"{without_password(address)[:_SHOWN]!r} is neither the URL of a connection nor the "
            "address of a Dask scheduler: write one like file:/data/events, "
            "ceph:pool?conffile=/etc/ceph/ceph.conf, 10.0.0.1 or tls://10.0.0.1:8786 (backends: "
            f"{', '.join(sorted(backends.names))})"
        )
    return address if found["port"] or found["inproc"] else f"{address}:{_PORT}"


class _Here:
    """Work on a connection, done by this process."""

    def __init__(self, url: str) -> None:
        self._con, name = open_url(url)
        if name:
            raise ConfigurationError(
                f"{url!r} names {name!r} in a connection: give the URL of the connection, and "
                "create its folder if there is none"
            )
        self._con.connect()

    def do(self, function: Callable[..., T], *arguments: Any) -> T:
        return function(self._con, *arguments)

    def do_each(self, function: Callable[..., T], arguments: Iterable[Sequence[Any]]) -> list[T]:
        return [function(self._con, *some) for some in arguments]

    def close(self) -> None:
        self._con.disconnect()


class _Workers:
    """Work done by the workers of a Dask scheduler, each on a connection of its own.

    The engine `dask` distributes it; the tasks of a lost worker are done by another one.
    """

    def __init__(self, address: str, pool: str | None) -> None:
        options: dict[str, Any] = {"address": address, "timeout": _SECONDS}
        self._runner = engines.get("dask").runner(**options)
        self._pool = pool
        self.do(_reached)

    def do(self, function: Callable[..., T], *arguments: Any) -> T:
        return self.do_each(function, [arguments])[0]

    def do_each(self, function: Callable[..., T], arguments: Iterable[Sequence[Any]]) -> list[T]:
        found = self._runner.spread(_OnWorker(self._pool, function), [*enumerate(arguments)])
        results = {number: result for part in found for number, result in part}
        return [results[number] for number in sorted(results)]

    def close(self) -> None:
        """Do nothing: the engine keeps its client of the scheduler."""


def _reached(con: Any) -> None:
    """Do nothing; only connecting matters."""


@dataclass
class _OnWorker(Generic[T]):
    """Work on the connection in the configuration of a worker, for numbered arguments."""

    pool: str | None
    function: Callable[..., T]

    def __call__(self, tasks: Iterable[tuple[int, Sequence[Any]]]) -> list[tuple[int, T]]:
        import dask

        url = dask.config.get(_SETTING, None)
        if url is None:
            raise ConfigurationError(
                f"the workers of the scheduler have no connection: set {_SETTING} in their "
                "configuration of Dask, or DASK_DOSNA__URL in their environment, to the URL of one"
            )
        con, _ = open_url(_with_pool(str(url), self.pool))
        with con:
            return [(number, self.function(con, *arguments)) for number, arguments in tasks]
