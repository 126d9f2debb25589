"""The methods of a connection whose work is done by packages above this one.

`ingest`, `link` and `export` are longer than other methods, for each documents up to eleven
parameters; their bodies make one call each.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from dosna.array.home import ArrayHome
from dosna.array.verbs import registry as verbs
from dosna.core.patterns import matching
from dosna.core.progress import Progress
from dosna.core.request import ExportRequest, IngestRequest
from dosna.core.sizes import Limit
from dosna.engines.base import collective
from dosna.errors import DatasetNotFoundError

if TYPE_CHECKING:
    from dosna.core.report import IngestReport

__all__ = ["Doors"]


class Doors(ArrayHome):
    """The methods of a connection that call a verb; see `dosna.array.verbs`."""

    @collective
    def ingest(
        self,
        source: Any,
        name: str | None = None,
        *,
        select: str | Iterable[str] | None = None,
        chunk_size: int | str | Sequence[int] | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        overwrite: bool = False,
        kind: str | None = None,
        progress: Progress = None,
        memory_limit: Limit = None,
        **options: Any,
    ) -> IngestReport:
        """Create datasets from the arrays of a file or another source.

        A dataset is marked incomplete until all of it is there. After an interruption the same
        call continues where it stopped, if the source is still the same. What was completed before
        the interruption stays.

        Parameters
        ----------
        source : str, path, object or Source
            The source to read; see `dosna.sources.open_source`.
        name : str, optional
            The name of the dataset, if the source is one array; otherwise the name of a group for
            all of them. By default datasets have the names of the arrays.
        select : str or iterable of str, optional
            Names of arrays or of groups, or patterns such as ``entry1/*/data``. By default all
            arrays are ingested.
        chunk_size : int, str or sequence of int, optional
            The extent of a chunk on each axis, for arrays of so many axes; or a size such as
            '4 MiB', to which chunks come close. By default chunks are those of the source.
        on_error : {'raise', 'skip'}
            The action for an array that cannot be represented or read, for whatever reason.
        overwrite : bool
            True to replace datasets that are not from the same source, or from another state of
            it.
        kind : str, optional
            The kind of source, where its name does not tell: 'hdf5', 'zarr', 'npy', ….
        progress : bool or callable, optional
            True for a progress bar, or a callback ``(done, total)`` in bytes of all arrays.
        memory_limit : int or str, optional
            The most bytes of blocks held at a time, such as '512M'.
        **options
            The options of the source, such as ``endpoint_url``, and of the backend's
            `create_dataset`, such as ``compression``.

        Returns
        -------
        IngestReport
            The names of the datasets that were made, of those that existed already, and of the
            arrays that were skipped.

        Raises
        ------
        SourceError
            The source cannot be read. Its subclasses are RefusedError (an array cannot be
            represented), SourceChangedError and SourceNotFoundError.
        DatasetExistsError
            A dataset exists that is not from this source.

        Examples
        --------
        >>> report = con.ingest({"dark": np.zeros(3), "flat": np.ones(3)}, "entry")
        >>> report.made
        ['entry/dark', 'entry/flat']
        >>> con["entry/flat"][...]
        array([1., 1., 1.])
        """
        self.check_writable()
        request = IngestRequest(
            name, select, chunk_size, on_error, overwrite, kind, progress, memory_limit, options
        )
        report: IngestReport = verbs.get("ingest")(self, source, request)
        return report

    @collective
    def link(
        self,
        source: Any,
        name: str | None = None,
        *,
        select: str | Iterable[str] | None = None,
        unlinkable: Literal["raise", "ingest"] = "raise",
        on_error: Literal["raise", "skip"] = "raise",
        overwrite: bool = False,
        kind: str | None = None,
        progress: Progress = None,
        memory_limit: Limit = None,
        **options: Any,
    ) -> IngestReport:
        """Create datasets that show the arrays of an HDF5 file, whose data stay where they are.

        A linked dataset is read like any other, by ranges of bytes of the file, and is never
        written to. It has the chunks that the array has, or rows of about 1 MiB. The file must
        stay as it is: once it was changed or deleted, reading raises an error. Scalars and other
        small arrays without chunks are ingested.

        Parameters
        ----------
        source : str or path
            The path of a local file, or an ``s3://bucket/key`` URL; with a path inside the file if
            wanted.
        name : str, optional
            The name of the dataset, if the source is one array; otherwise the name of a group for
            all of them. By default datasets have the names of the arrays.
        select : str or iterable of str, optional
            Names of arrays or of groups, or patterns such as ``entry1/*/data``. By default all
            arrays are linked.
        unlinkable : {'raise', 'ingest'}
            The action for an array that cannot be linked, such as one of strings of variable
            length, or with a filter that dosna does not know: raise an error (or with
            ``on_error='skip'`` leave the array out), or ingest it.
        on_error : {'raise', 'skip'}
            The action for an array that cannot be represented or read, for whatever reason.
        overwrite : bool
            True to replace datasets that are not from the same source, or from another state of
            it.
        kind : str, optional
            The kind of source, where its name does not tell.
        progress : bool or callable, optional
            True for a progress bar, or a callback ``(done, total)`` in bytes of all arrays.
        memory_limit : int or str, optional
            The most bytes of blocks held at a time for what is ingested, such as '512M'.
        **options
            The options of the source, such as ``endpoint_url``, which are kept with the datasets
            to read by (none is a secret); and the options of the backend's `create_dataset`, for
            what is ingested.

        Returns
        -------
        IngestReport
            The report of the call. Its `linked` has the names of the datasets that are links.

        Raises
        ------
        SourceError
            The source cannot be read. The subclass RefusedError names what cannot be linked, and
            why.
        DatasetExistsError
            A dataset exists that is not a link to this array.

        Examples
        --------
        Link all arrays of a file, and read one of them::

            con.link("/data/scan.nxs", "scan")
            con["scan/entry/data"][0]
        """
        self.check_writable()
        ways = (on_error, overwrite, kind, progress, memory_limit, options, unlinkable)
        request = IngestRequest(name, select, None, *ways)
        report: IngestReport = verbs.get("ingest")(self, source, request)
        return report

    @collective
    def export(
        self,
        path: str | os.PathLike[str],
        *,
        select: str | Sequence[str] | None = None,
        chunk_size: int | Sequence[int] | None = None,
        compression: str | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        overwrite: bool = False,
        progress: Progress = None,
        memory_limit: Limit = None,
    ) -> list[str]:
        """Write datasets to one file for other programs, under their names.

        Parameters
        ----------
        path : path
            The file to write. Its ending determines the format: ``.h5``, ``.hdf5``, ``.nxs`` or
            ``.nx5`` is an HDF5 file, ``.zarr`` a folder with a Zarr v3 group, ``.npy`` (for one
            dataset) NumPy's format. The file appears when it is complete, and not at all if
            anything fails. The same holds for ``hdf5://home/user/scan.h5``, a domain of HSDS, on
            the server that the environment names or ``?endpoint=…``; what was written there is
            read back.
        select : str or sequence of str, optional
            Names, or patterns with ``*``, ``?`` and ``[…]`` as in a shell; by default all
            datasets.
        chunk_size : int or sequence of int, optional
            The extent of a chunk in the file; by default that of each dataset.
        compression : str, optional
            The compression of the chunks: ``'gzip'`` for HDF5 and HSDS; for Zarr as in the backend
            ``file``. None by default.
        on_error : {'raise', 'skip'}
            The action for a dataset that is incomplete or cannot be read: raise the error, or
            leave the dataset out with a warning. To find out, 'skip' reads all chunks once more.
        overwrite : bool
            True to replace what exists at `path`.
        progress : bool or callable, optional
            True for a progress bar, or a callback ``(done, total)`` in chunks.
        memory_limit : int or str, optional
            The most bytes of blocks held at a time, such as '512M'.

        Returns
        -------
        list of str
            The names of the datasets that were written.

        Raises
        ------
        DatasetNotFoundError
            No dataset has a name that `select` asks for.
        FileExistsError
            Something exists at `path`.
        ConfigurationError
            The ending is unknown, the format does not have an option, or there is nothing to
            write.
        RefusedError
            A dataset is incomplete, or has what the format cannot represent.
        MemoryLimitError
            The limit is below what one chunk needs.

        Examples
        --------
        >>> import os, tempfile
        >>> ds = con.create_dataset("tomo", data=[[1, 2], [3, 4]])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     con.export(os.path.join(folder, "tomo.npy"), select="tomo")
        ['tomo']
        """
        self.check_connected()
        names = self.runner.once(lambda: self._chosen(select))
        request = ExportRequest(
            chunk_size, compression, on_error, overwrite, progress, memory_limit
        )
        written: list[str] = verbs.get("export")(self, names, path, request)
        return written

    def _chosen(self, patterns: str | Sequence[str] | None) -> list[str]:
        names, unmatched = matching(list(self), patterns)
        if unmatched:
            raise DatasetNotFoundError(
                f"no dataset of connection {self.name!r} has a name like {unmatched[0]!r}"
            )
        return names

    def query(
        self,
        tree: str,
        where: Any = None,
        columns: str | Iterable[str] | None = None,
        *,
        entry_start: int | None = None,
        entry_stop: int | None = None,
        batch_rows: int | None = None,
        memory_limit: Limit = None,
        progress: Progress = None,
    ) -> Any:
        """Select entries of a tree by a condition, and some of their columns.

        Nothing is read until a result is asked for: `to_arrow`, `to_awkward`, `to_numpy`,
        `batches`, `count`, … of the query. Chunks that cannot have such an entry are left out.

        Parameters
        ----------
        tree : str
            The name of the tree's group, such as ``Events``.
        where : str, optional
            The condition, such as ``nMuon >= 2 && any(Muon_pt > 20)``; by default all entries.
        columns : str or iterable of str, optional
            The columns of the result: names, patterns such as ``Muon_*``, and expressions such as
            ``"mt = sqrt(2 * MET_pt)"``; by default all branches.
        entry_start, entry_stop : int, optional
            The range of entries, as in a slice: negative numbers count from the end.
        batch_rows : int, optional
            The most entries of a batch of `batches`; by default those of a range of chunks.
        memory_limit : int or str, optional
            The most bytes of columns held at a time, apart from the result, such as '512M'.
        progress : bool or callable, optional
            True for a progress bar, or a callback ``(done, total)`` in ranges of entries.

        Returns
        -------
        Query
            The query, see `dosna.query.query.Query`.

        Raises
        ------
        DatasetNotFoundError
            There is no such tree.
        UnknownNameError
            There is no such column or function. The message has the nearest names.
        QueryError
            The text is not of the language, or the types do not fit.

        Examples
        --------
        Select events, and two columns of them::

            q = con.query("Events", "nMuon >= 2 && MET_pt > 50", ["run", "Muon_pt"])
            table = q.to_arrow()
        """
        ways = (entry_start, entry_stop, batch_rows, memory_limit, progress)
        return verbs.get("query")(self, tree, where, columns, *ways)

    def serve(
        self,
        below: str = "",
        *,
        port: int = 0,
        token: str | None = None,
        host: str = "127.0.0.1",
        origins: Sequence[str] = (),
    ) -> Any:
        """Return a server over HTTP for the datasets, which other programs read as Zarr.

        The port is bound at once. The server answers within a ``with`` block, in a thread, or by
        ``run()`` until Ctrl-C.

        Parameters
        ----------
        below : str
            The name of the dataset or group to serve; '' for all.
        port : int
            The port; 0 for a free one.
        token : str, optional
            The token that requests must have, of 16 characters or more; by default a random one.
        host : str
            The address of the interface to listen on. Another one than loopback needs a token.
        origins : sequence of str
            The other sites whose pages may read the answers, such as ``https://app.example.org``.

        Returns
        -------
        Server
            The server, see `dosna.web.Server`. Its `url` contains the token; `root` and `headers`
            are for clients.

        Raises
        ------
        ConfigurationError
            Another host is given without a token, or a value is bad.
        dosna.errors.ConnectionError
            The port cannot be opened.

        Examples
        --------
        Serve the datasets while other programs read them::

            with con.serve(port=8000) as server:
                zarr.open(server.root + "/zarr/", storage_options={"headers": server.headers})
        """
        self.check_connected()
        ways = {"port": port, "token": token, "host": host, "origins": origins}
        return verbs.get("serve")(self, below, **ways)

    def view(self, name: str = "", *, height: int = 600) -> Any:
        """Show the datasets in a notebook, by the page that ``dosna view`` opens in a browser.

        The first call starts a server on this machine, which later calls use too. It runs until
        the program ends, or the `stop` of a result is called.

        Parameters
        ----------
        name : str
            The name of the dataset or group that is shown first; '' for the connection.
        height : int
            The height of the frame in pixels.

        Returns
        -------
        View
            The page, which a notebook shows. Its `url` is for a browser on the same machine.

        Raises
        ------
        NotConnectedError
            The connection is not open.
        MissingDependencyError
            A package of the extra ``view`` is not installed.

        Examples
        --------
        Show a scan in the cell of a notebook::

            con.view("entry/data")
        """
        self.check_connected()
        return verbs.get("view")(self, name, height=height)

    def verb(self, name: str) -> Callable[..., Any]:
        """Return a verb of another package, bound to this connection.

        Parameters
        ----------
        name : str
            The name of its entry point in ``dosna.verbs``.

        Returns
        -------
        callable
            The verb, which takes the parameters that follow the connection in its own signature.

        Raises
        ------
        ConfigurationError
            There is no verb of that name. The message lists the verbs that exist.

        Examples
        --------
        Rank the datasets of a group by a verb of a package that is installed::

            con.verb("largest")("scan", count=3)
        """
        bound: Callable[..., Any] = partial(verbs.get(name), self)
        return bound
