"""Following a request of ServiceX: each finished file is ingested, completely or not at all."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Protocol

import awkward as ak

from dosna.columns import escape
from dosna.core.report import IngestReport
from dosna.errors import SourceError, SourceNotFoundError
from dosna.io.s3.opening import open_client
from dosna.io.s3.options import S3Options
from dosna.io.s3file import S3File
from dosna.sources.servicex.eventfiles import open_events
from dosna.sources.servicex.growing import FoundTree, GrowingTrees, WiderError
from dosna.sources.servicex.requests import ENDED, Requests, RequestStatus, ResultFile

if TYPE_CHECKING:
    from dosna.array.connection import EngineConnection
    from dosna.core.progress import Progress

__all__ = ["Following"]

_PARQUET_TREE = "servicex"
"""The name of the tree of Parquet files, which have none."""
_NAMED_FAILURES = 10
_LOOKING_UP = frozenset({"Submitted", "Lookup", "Pending Lookup"})


class Polled(Protocol):
    """The attributes of a source whose requests are followed."""

    location: str
    timeout: float
    polling_interval: float
    query: Any


@dataclass
class Following:
    """A request that is followed to its end.

    Parameters
    ----------
    source : Polled
        The source of the request.
    requests : Requests
        The client of the server.
    request_id : str
    status : RequestStatus
        The last known status.
    trees : GrowingTrees
        The trees that get the entries.
    name : str, optional
        The prefix of the trees' groups.
    skips : bool
        Whether files that cannot be ingested are left out.
    batch : int
        The approximate number of bytes of a piece.
    workers : int
        The number of files that are read ahead.
    stack : ExitStack
        The stack that closes the connection to the results.
    """

    source: Polled
    requests: Requests
    request_id: str
    status: RequestStatus
    trees: GrowingTrees
    name: str | None
    skips: bool
    batch: int
    workers: int
    stack: ExitStack

    def __post_init__(self) -> None:
        self.done: set[str] = set()
        self.failed: dict[str, str] = {}
        """Files that ServiceX could not transform, and the reasons."""
        self.broken: dict[str, str] = {}
        """Files whose results cannot be ingested, and the reasons."""
        self.notes: list[str] = []
        self.taken: list[ResultFile] = []
        """Files that were read, in the order of the trees' entries."""

    def run(self, con: EngineConnection, progress: Progress) -> IngestReport:
        """Ingest all files as they arrive, and return the report."""
        while self.status.state in _LOOKING_UP:
            self._wait()
        total = self.status.files
        with con.runner.reporting(progress, total, "ingest", "file") as tell:
            while True:
                ended = self.status.state in ENDED
                if self._transformed > len(self.done):
                    self._take(self._new(ended), lambda: tell and tell(min(total, len(self.done))))
                self.trees.flush()
                if self.trees.present:
                    return self._report()
                if ended:
                    break
                self._wait()
        self._check()
        self.trees.finish(self._skipped())
        return self._report()

    def _wait(self) -> None:
        time.sleep(self.source.polling_interval)
        self.status = self.requests.status(self.request_id)

    # -- finished files ---------------------------------------------------------------------

    @property
    def _transformed(self) -> int:
        """The number of files that ServiceX has transformed, or failed to."""
        return self.status.files_completed + self.status.files_failed

    def _new(self, ended: bool) -> list[ResultFile]:
        """Return the files that are done since the last call, in the server's order."""
        found = self.requests.results(self.request_id)
        if found is None:
            found = self._listed()
        new = self._unknown(found)
        if ended and len(new) + len(self.done) < self._transformed:
            every = self.requests.results(self.request_id, every=True)
            new = self._unknown(every or found)
        for file in new:
            if not file.key:
                self.done.add(file.source)
                self.failed[file.source] = "ServiceX could not transform it"
        return [file for file in new if file.key]

    def _unknown(self, found: Iterable[ResultFile]) -> list[ResultFile]:
        return list({f.source: f for f in found if f.source not in self.done}.values())

    def _listed(self) -> list[ResultFile]:
        """List the files in the bucket, for a server that does not list its results."""
        client = self._client()
        return [
            ResultFile(entry["Key"], entry["Key"], entry["Size"])
            for page in client.pages(self.request_id, "")
            for entry in page.get("Contents", [])
            if not entry["Key"].endswith("/")
        ]

    # -- ingesting files --------------------------------------------------------------------

    def _client(self) -> Any:
        if not hasattr(self, "_s3"):
            status = self.status
            if not status.minio_endpoint:
                raise SourceError(
                    f"the results of {self.request_id} at {self.requests.url} cannot be read: "
                    f"their destination is {status.result_destination!r}. Submit the "
                    "request with 'object-store'"
                )
            scheme = "https" if status.minio_secured else "http"
            self._options = S3Options(
                f"{scheme}://{status.minio_endpoint}",
                timeout=self.source.timeout,
                keys=(status.minio_access_key or "", status.minio_secret_key or ""),
            )
            self._s3 = open_client(self._options, self.source.location)
            self.stack.callback(self._s3.close)
        return self._s3

    def _take(self, files: list[ResultFile], tell: Callable[[], object]) -> None:
        missing = []
        for file in files:
            if self.trees.has(file.source):
                self.taken.append(file)
                self.done.add(file.source)
            else:
                missing.append(file)
        tell()
        while missing:
            missing = self._take_until_wider(missing, tell)

    def _take_until_wider(
        self, files: list[ResultFile], tell: Callable[[], object]
    ) -> list[ResultFile]:
        """Ingest files, and return those to ingest again if a type has become wider."""
        for number, (file, future) in enumerate(self._ahead(files)):
            if self.trees.present or self.trees.has(file.source):
                future.cancel()  # Known since a tree of an earlier ingest was found.
            else:
                try:
                    self._one(file, future)
                except WiderError as error:
                    self.trees.restart(error)
                    again, self.taken = [*self.taken, *files[number:]], []
                    return again
            self.taken.append(file)
            self.done.add(file.source)
            tell()
        return []

    def _ahead(
        self, files: list[ResultFile]
    ) -> Iterator[tuple[ResultFile, Future[_Opened | None]]]:
        """Read files ahead, at most as many at a time as there are workers."""
        if not files:
            return
        self._client()
        with ThreadPoolExecutor(self.workers) as pool:
            # The first file shows whether anything has to be read at all.
            left = iter(files)
            flying: deque[tuple[ResultFile, Future[_Opened | None]]] = deque()
            for file in left:
                flying.append((file, pool.submit(self._open, file)))
                ahead = self.workers if self.trees.writers else 1
                while len(flying) >= ahead:
                    yield flying.popleft()
            while flying:
                yield flying.popleft()

    def _open(self, file: ResultFile) -> _Opened | None:
        if self.trees.has(file.source):
            return None
        stored = S3File(f"s3://{self.request_id}/{file.key}", self._options, self._client())
        if file.nbytes is not None and stored.size != file.nbytes:
            raise SourceError(
                f"{stored.location} has {stored.size} bytes, and ServiceX says that it has "
                f"{file.nbytes}: it is damaged"
            )
        events = open_events(stored, self.status.result_format)
        opened = _Opened(list(events.others.items()), [])
        room = self.batch
        for name, kind in events.kinds.items():
            group, names = self._group(name), events.columns(name)
            refused = events.refused(name)
            wanted = [n for n in self.trees.wanted(group, names) if n not in refused]
            pieces = events.pieces(name, self.batch, wanted)
            first = next(pieces)
            room -= first.nbytes
            whole = room > 0 and len(first) >= events.entries(name)
            tree = FoundTree(group, name, kind, first, events.typenames(name), names, refused)
            opened.trees.append((tree, iter(()) if whole else pieces))
            opened.whole &= whole
        return opened

    def _group(self, tree: str) -> str:
        parts = [escape(part) for part in tree.split("/") if part]
        if not parts:
            return self.name.rstrip("/") if self.name else _PARQUET_TREE
        return "/".join(filter(None, [(self.name or "").rstrip("/"), *parts]))

    def _one(self, file: ResultFile, future: Future[_Opened | None]) -> None:
        """Ingest a file, completely or not at all."""
        try:
            opened = future.result()
        except SourceError as error:
            self._broken(file, error)
            return
        if opened is None:
            return
        self.notes += [f"{n} is a {c}, not a tree" for n, c in opened.others]
        for tree, _ in opened.trees:
            self.trees.prepare(tree)
        if self.trees.present or self.trees.has(file.source):
            return
        self.trees.begin(file.source, opened.whole)
        try:
            for tree, rest in opened.trees:
                for piece in chain([tree.first], rest):
                    self.trees.add(tree, piece)
        except WiderError:
            self.trees.abandon()
            raise
        except SourceError as error:
            self.trees.abandon()
            self._broken(file, error)
        else:
            self.trees.end()

    def _broken(self, file: ResultFile, error: SourceError) -> None:
        if self.skips:
            self.broken[file.source] = str(error)
            return
        # The files before it stay ingested.
        self.trees.flush()
        text = str(error) if file.source in str(error) else f"{file.source}: {error}"
        raise type(error)(
            f"{text} (in {self.source.location}; leave the file out by on_error='skip')"
        ) from error

    # -- the end ----------------------------------------------------------------------------

    def _check(self) -> None:
        """Raise if the request failed, or if any result is missing."""
        status, where = self.status, f"{self.source.location} at {self.requests.url}"
        state, log = status.state, f" (its log: {status.log_url})" if status.log_url else ""
        lost = status.files_completed - len(self.done - self.failed.keys())
        if self.source.query is not None and (state != "Complete" or lost > 0):
            self.source.query.cache.delete_record_by_request_id(self.request_id)
        if state != "Complete":
            why = {"Fatal": "failed", "Canceled": "was canceled"}.get(
                state, f"failed, because its dataset {status.did!r} cannot be used"
            )
            raise SourceError(
                f"{where} {why}, with {status.files_completed} of {status.files} files "
                f"done{log}: submit it again"
            )
        if lost > 0:
            raise SourceError(
                f"{where} is complete, but {lost} of {status.files_completed} results are "
                "missing: ServiceX may have removed them. Submit it again"
            )
        unnamed = status.files_failed - len(self.failed)
        if status.files_failed and not self.skips:
            names = list(self.failed)[:_NAMED_FAILURES]
            more = ", …" if len(self.failed) > len(names) else ""
            told = ", ".join(names) + more if names else "the server does not name them"
            raise SourceError(
                f"{status.files_failed} of the {status.files} files of {where} could not be "
                f"transformed{log}: {told}. The results of the others are stored. Leave these out "
                "by on_error='skip', or submit the request again"
            )
        if unnamed > 0:
            self.broken["?"] = f"{unnamed} files that the server does not name"
        if not self.trees.writers and not self.trees.has_columns:
            raise SourceNotFoundError(
                f"none of the {status.files} files of {where} has a tree"
                + "".join(f"; {file}: {why}" for file, why in self._skipped().items())
            )

    def _skipped(self) -> dict[str, str]:
        return {**self.failed, **self.broken}

    def _report(self) -> IngestReport:
        report = IngestReport(self.source.location)
        for writer in self.trees.writers.values():
            if self.trees.present:
                report.present += writer.datasets
                continue
            report.made += writer.datasets
            report.nbytes += writer.nbytes
            if writer.resumed:
                report.resumed += writer.datasets
            if self.notes:
                report.notes[writer.group] = list(dict.fromkeys(self.notes))
        for names in (report.made, report.resumed, report.present):
            names.sort()
        report.skipped = {**self.trees.skipped, **self._skipped()}
        return report


@dataclass
class _Opened:
    """A result file, and the first piece of each of its trees."""

    others: list[tuple[str, str]]
    trees: list[tuple[FoundTree, Iterator[ak.Array]]]
    whole: bool = True
