"""Make datasets of the arrays of a source, so that an interruption loses nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from dosna.array.loading import load
from dosna.array.zones import complete, maker_for
from dosna.backends.absent import Absent
from dosna.backends.batch import Batch
from dosna.backends.linked.link import new_table, write_records
from dosna.core.progress import share_of
from dosna.core.report import IngestReport
from dosna.core.request import IngestRequest
from dosna.core.values import decode_attrs, encode_attrs
from dosna.errors import ConfigurationError, DatasetNameError, RefusedError, SourceChangedError
from dosna.ingest.planned import Plan, PlannedArray
from dosna.ingest.planning import left_out, parameters_of, plan, refusing
from dosna.ingest.together import Outcome, Together, data_of
from dosna.sources.base import Source, Stream
from dosna.sources.naming import legal_name
from dosna.sources.opening import open_source

if TYPE_CHECKING:
    from dosna.array.connection import EngineConnection
    from dosna.array.dataset import EngineDataset
    from dosna.backends.base import BackendDataset

__all__ = ["ingest"]

ArrayProgress = Callable[[int, int], object] | None
"""A callback ``(done, total)`` in chunks of one array."""


def ingest(
    con: EngineConnection,
    what: Any,
    request: IngestRequest,
    look: Callable[[], Absent] | None = None,
) -> IngestReport:
    """Carry out `EngineConnection.ingest` or `EngineConnection.link`.

    Parameters
    ----------
    con : Connection
    what : str, path, object or Source
        The source, see `dosna.sources.open_source`.
    request : IngestRequest
    look : callable, optional
        A function that returns what a look at the place of the whole source has found, for a
        caller that looks there while it opens the source.

    Returns
    -------
    IngestReport
    """
    stored = {k: v for k, v in request.options.items() if k in parameters_of(con)}
    others = {k: v for k, v in request.options.items() if k not in stored}
    source = open_source(what, kind=request.kind, **others)
    request = replace(request, options=stored)
    try:
        if isinstance(source, Stream):
            return _streamed(con, source, request)
        return _Ingest(con, source, request, look).run()
    finally:
        if source is not what:
            source.close()


def _streamed(con: EngineConnection, source: Stream, request: IngestRequest) -> IngestReport:
    """Ingest a stream in one process, with the help of its engine's threads."""
    if request.links:
        raise RefusedError(f"{source} cannot be linked to: ingest it")
    if request.chunk_size is not None and request.chunk_bytes is None:
        raise ConfigurationError(
            f"chunk_size of what {source} makes is a size in bytes, such as '1 MiB', and not "
            f"{request.chunk_size!r}: its columns have different lengths"
        )
    if not con.instance.keeps_groups:
        raise ConfigurationError(
            f"{source} makes a tree of datasets, and connection {con.name!r} makes a bucket of "
            "each dataset: give the connection bucket=, so that all are in one"
        )

    def alone() -> IngestReport:
        here = con if con.runner.shares_memory else con.in_this_process()
        return source.ingest_into(here, request)

    return con.runner.once(alone)


class _Ingest:
    """The ingest of one source."""

    def __init__(
        self,
        con: EngineConnection,
        source: Source,
        request: IngestRequest,
        look: Callable[[], Absent] | None,
    ) -> None:
        self.con, self.source, self.request, self._look = con, source, request, look
        self.report = IngestReport(source.location)
        self._stopped = False
        # Processes of MPI would have to agree on each step.
        self._batch = con.instance.batch() if con.runner.shares_memory else None
        self._together = Together(con, source, request, self._batch)

    def run(self) -> IngestReport:
        try:
            return self._run()
        finally:
            if self._batch is not None:
                self._batch.close()

    def _run(self) -> IngestReport:
        once, report = self.con.runner.once, self.report
        found, begun = self._planned()
        arrays = found.arrays
        report.skipped.update(found.skipped)
        report.links = {link: a.target for a in arrays for link in a.description.links}
        report.notes = {a.target: list(a.description.notes) for a in arrays if a.description.notes}
        total = sum(a.description.nbytes for a in arrays)
        with self.con.runner.reporting(self.request.progress, total, "ingest", "B") as tell:
            stopping = None if tell is None else partial(self._tell, tell)
            done, there = 0, dict[str, PlannedArray]()
            try:
                for array, outcome in self._outcomes(arrays, begun):
                    name, size = array.origin["name"], array.description.nbytes
                    try:
                        self._one(array, share_of(stopping, done, size), outcome)
                    except Exception as error:
                        # Only one process reports the progress, and all processes must agree.
                        if once(lambda: self._stopped):
                            raise
                        self._leave_out(name, error)
                        found.failed.add(name)
                    else:
                        there[array.target] = array
                    done += size
                    if tell is not None:
                        tell(done)
                    if self._batch is not None and self._batch.due:
                        self._commit(self._batch, there, found.failed)
            except BaseException as error:
                self._commit_before(error)
                raise
        self._set_groups(there, found.failed, self._batch)
        if self._batch is not None and self._commit(self._batch, there, found.failed):
            self._set_groups(there, found.failed)
        return report

    def _commit(self, batch: Batch, there: dict[str, PlannedArray], failed: set[str]) -> bool:
        """Complete the datasets that were made. Return True if some had to be left out."""
        report, errors = self.report, batch.commit()
        report.made = [target for target in report.made if target not in errors]
        report.resumed = [target for target in report.resumed if target not in errors]
        left = [there.pop(target) for target in errors if target in there]
        for array in left:
            report.nbytes -= array.description.nbytes
            failed.add(array.origin["name"])
            self._leave_out(array.origin["name"], errors[array.target])
        for name, error in errors.items():
            if name.endswith("/"):
                self._leave_out_group(name, error)
        return bool(left)

    def _commit_before(self, error: BaseException) -> None:
        """Complete the datasets that were made before an error ends the ingest."""
        if self._batch is None:
            return
        errors: list[Exception] = []
        try:
            errors += self._batch.commit().values()
        except Exception as failed:
            errors.append(failed)
        if errors:
            error.add_note(f"datasets that were made before are not complete: {errors[0]}")

    def _planned(self) -> tuple[Plan, dict[str, Outcome]]:
        """Return the plan, and what has become of a single small array that is made at once."""
        once, together = self.con.runner.once, self._together
        found = once(
            lambda: plan(self.con, self.source, self.request, together.is_small, self._look)
        )
        if found.hopeful:
            array = found.arrays[0]
            try:
                if together.make_one(array):
                    return found, {array.target: "made"}
            except Exception as error:
                return found, {array.target: error}
            found = once(lambda: plan(self.con, self.source, self.request))
        together.absent = found.absent
        if self._batch is None and self.con.instance.creates_together:
            together.groups = self._new_groups(found)
        return found, {}

    def _new_groups(self, found: Plan) -> dict[str, Mapping[str, Any]]:
        """Return attributes that new groups may have before there are all datasets in them.

        Those of a tree are left out: they say which datasets it has.
        """
        names = [array.origin["name"] for array in found.arrays]
        whole, made = self.request.select is None, dict[str, Mapping[str, Any]]()
        with suppress(Exception):  # `_set_groups` raises it
            if any(self.source.tree_of(name) is not None for name in names):
                return {}
            groups = self._groups(names, whole, found.failed)
            for name in filter(self.con.instance.check_name, filter(None, groups)):
                attrs = self.source.merged_group({}, groups[name], whole and not found.failed)
                made[name] = encode_attrs(attrs)
        return made

    def _outcomes(
        self, arrays: Sequence[PlannedArray], begun: Mapping[str, Outcome]
    ) -> Iterator[tuple[PlannedArray, Outcome]]:
        """Yield the arrays, after having made those of them that are made together."""
        together, prepared = self._together, False
        for portion in together.portions(arrays):
            made = begun or together.make(portion)
            for array in portion:
                outcome = made.get(array.target, "untouched")
                if self._batch is not None and not prepared and together.is_large(array):
                    prepared = True
                    self._batch.prepare(
                        (a.target, a.metadata, a.options)
                        for a in filter(together.is_large, arrays)
                        if a.metadata is not None
                    )
                yield array, outcome

    def _tell(self, tell: Callable[[int], object], done: int) -> None:
        """Report progress, and note that a callback stops the work: no array is at fault."""
        try:
            tell(done)
        except Exception:
            self._stopped = True
            raise

    def _leave_out(self, name: str, error: Exception) -> None:
        self.report.skipped[name] = left_out(self.source, name, error, self.request.skips)

    def _one(self, array: PlannedArray, progress: ArrayProgress, outcome: Outcome) -> None:
        report, target = self.report, array.target
        if isinstance(outcome, Exception):
            raise outcome
        linked = [target] if array.link is not None else []
        if array.state == "complete":
            report.present.append(target)
            report.linked += linked
            return
        with ExitStack() as stack:  # at its end, the new dataset takes the place of an old one
            if array.link is not None:
                self._link(array, stack)
            else:
                if outcome == "untouched":
                    self._load(array, stack, progress)
                report.nbytes += array.description.nbytes
        report.made.append(target)
        report.linked += linked
        if array.state == "resume":
            report.resumed.append(target)

    def _load(self, array: PlannedArray, stack: ExitStack, progress: ArrayProgress) -> None:
        con, resumes = self.con, array.state == "resume"
        made = con.get_dataset(array.target) if resumes else self._create(array, stack)
        if not resumes:
            made.instance.continue_creation()
        data, limit, zones = data_of(self.source, array), self.request.memory_limit, None
        if self.source.tree_of(array.origin["name"]) is not None:
            zones = maker_for(made, array.origin["name"].endswith("/offsets"))
        load(made, data, resumes, progress, limit, checked=True, zones=zones)
        name, before = array.description.name, array.origin["fingerprint"]
        now = con.runner.once(lambda: self.source.fingerprint_after(name, before))
        if now != before:
            raise SourceChangedError(
                f"{self.source} changed while it was ingested (from {before} to {now}): dataset "
                f"{array.target!r} "
                + ("is not replaced" if array.state == "replace" else "stays incomplete")
                + "; ingest it again with overwrite=True when the source is finished"
            )
        complete(made, zones, None if array.state == "replace" else self._batch)

    def _create(self, array: PlannedArray, stack: ExitStack) -> EngineDataset:
        con, metadata = self.con, array.metadata
        assert metadata is not None
        with refusing(self.source, array.description.name):
            if array.state == "replace":
                new = con.replacing(array.target, metadata, array.options)
                return con.wrap(stack.enter_context(new))
            return con.create_described(array.target, metadata, array.options, self._batch)

    def _link(self, array: PlannedArray, stack: ExitStack) -> None:
        """Make the table of a linked dataset.

        A change of the source meanwhile does no harm: reading will find a fingerprint that
        differs from the one taken first.
        """
        con, link = self.con, array.link
        assert link is not None
        # A table without records is complete as soon as it is made.
        incomplete = link.tabled
        table = new_table(link, array.description.attrs)
        table = table.replace(incomplete=incomplete, origin=array.origin)
        options = {"compression": "gzip"} if "compression" in parameters_of(con) else {}

        def create() -> BackendDataset:
            con.check_free(array.target)
            return con.instance.create_dataset(array.target, table, **options)

        def write(made: BackendDataset) -> None:
            write_records(made, *self.source.chunk_records(array.description.name))
            made.update(lambda m: m.replace(incomplete=False))

        if array.state == "replace":
            made = stack.enter_context(con.replacing(array.target, table, options))
        else:
            made = con.runner.once(create)
        if incomplete:
            con.runner.once(lambda: write(made))

    def _set_groups(
        self, there: Mapping[str, PlannedArray], failed: set[str], batch: Batch | None = None
    ) -> None:
        """Merge attributes of groups into those that the connection has."""
        once, whole = self.con.runner.once, self.request.select is None
        names = [array.origin["name"] for array in there.values()]
        try:
            groups = once(lambda: self._groups(names, whole, failed))
        except Exception as error:
            self._leave_out("/", error)
            return
        every, together = whole and not failed, self._together
        for name, attrs in groups.items():
            try:
                if name in together.made_groups and together.groups.get(name) == encode_attrs(
                    self.source.merged_group({}, attrs, every)
                ):
                    continue
                found = once(partial(self.con.get_group_attrs, name))
                change = partial(self._merged_group, attrs, every)
                encoded = encode_attrs(found)
                if encoded == change(encoded):
                    continue
                checked = self.con.instance.check_name(name) if name else ""
                if batch is None:
                    once(partial(self.con.instance.change_group_attrs, checked, change))
                else:
                    batch.change_group_attrs(checked, change)
            except Exception as error:
                self._leave_out_group(f"{name}/", error)

    def _merged_group(
        self, attrs: Mapping[str, Any], every: bool, before: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Merge attributes into those of a group, as they are stored."""
        return encode_attrs(self.source.merged_group(decode_attrs(before), attrs, every))

    def _leave_out_group(self, name: str, error: Exception) -> None:
        if isinstance(error, DatasetNameError):
            self.report.skipped[name] = str(error)
        else:
            self._leave_out(name, error)

    def _groups(
        self, names: Iterable[str], whole: bool, failed: set[str]
    ) -> dict[str, Mapping[str, Any]]:
        """Return attributes of all groups, or of those above the arrays that are ingested."""
        if self.source.single or not self.con.instance.keeps_groups:
            return {}
        source, prefix = self.source, self.request.prefix
        groups = source.groups_without(failed) if whole else source.groups_of(names)
        # Without a prefix, the outermost group is the connection: it may have others.
        return {
            "/".join(filter(None, [prefix, name and legal_name(name)])): attrs
            for name, attrs in groups.items()
            if attrs
        }
