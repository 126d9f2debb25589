"""Make datasets of the arrays of a source, so that an interruption loses nothing."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from dosna.columns.description import Tree
from dosna.core.metadata import DatasetMetadata, new_metadata
from dosna.core.names import parents
from dosna.core.report import IngestReport
from dosna.core.sizes import parse_size
from dosna.core.text import is_text
from dosna.core.types import Shape
from dosna.core.values import encode_attrs, plain_fields
from dosna.errors import (
    ConfigurationError,
    DatasetExistsError,
    DatasetNameError,
    DatasetNotFoundError,
    DosnaError,
    RefusedError,
    SourceChangedError,
    SourceError,
    SourceNotFoundError,
)
from dosna.sources.base import ArrayDescription, ConvertedArray, Source, SourceArray, Stream
from dosna.sources.chunking import ChunkSize, choose_chunks, chosen_for
from dosna.sources.naming import legal_name, legal_names
from dosna.sources.opening import open_source

if TYPE_CHECKING:
    from dosna.array.connection import EngineConnection
    from dosna.array.dataset import EngineDataset
    from dosna.backends.base import BackendDataset
    from dosna.backends.linked.dataset import Link
    from dosna.core.progress import Progress

__all__ = ["Renewal", "ingest"]

State = Literal["absent", "resume", "complete", "replace"]


@dataclass(frozen=True)
class _Array:
    """An array of a source, and the dataset that it becomes."""

    target: str
    description: ArrayDescription
    origin: dict[str, Any]
    chunk_size: Shape
    link: Link | None = None
    state: State = "absent"
    read_as: ArrayDescription | None = None
    """The source's own description, where the backend stores another dtype."""


class Renewal(Protocol):
    """A rule that tells which existing datasets are outdated."""

    @property
    def note(self) -> Mapping[str, Any]:
        """Additional entries for the origins of new datasets."""

    def is_outdated(self, there: DatasetMetadata) -> bool:
        """Return True if an existing dataset must be made again."""


def ingest(
    con: EngineConnection,
    what: Any,
    name: str | None,
    select: str | Iterable[str] | None,
    chunk_size: ChunkSize,
    on_error: Literal["raise", "skip"],
    overwrite: bool,
    kind: str | None,
    progress: Progress,
    memory_limit: int | str | None,
    options: Mapping[str, Any],
    unlinkable: Literal["raise", "ingest"] | None = None,
    renewal: Renewal | None = None,
) -> IngestReport:
    """Carry out `EngineConnection.ingest`, or `EngineConnection.link` if `unlinkable` is given.

    Datasets that `renewal` finds outdated are replaced too.
    """
    if unlinkable not in (None, "raise", "ingest"):
        raise ConfigurationError(f"unlinkable is 'raise' or 'ingest', not {unlinkable!r}")
    if on_error not in ("raise", "skip"):
        raise ConfigurationError(f"on_error is 'raise' or 'skip', not {on_error!r}")
    create = con.instance.create_dataset
    own = {k: v for k, v in options.items() if k in inspect.signature(create).parameters}
    given = isinstance(what, Source)
    source = open_source(what, kind=kind, **{k: v for k, v in options.items() if k not in own})
    try:
        if isinstance(source, Stream):
            if unlinkable is not None:
                raise RefusedError(f"{source!r} cannot be linked to: ingest it")
            skips = on_error == "skip"
            return _streamed(
                con,
                source,
                name,
                select,
                chunk_size,
                skips,
                overwrite,
                progress,
                memory_limit,
                own,
            )
        skips, links, rest = on_error == "skip", unlinkable is not None, unlinkable == "ingest"
        work = _Ingest(con, source, name, chunk_size, skips, overwrite, own, links, rest, renewal)
        return work.run(select, progress, memory_limit)
    finally:
        if not given:
            source.close()


def _streamed(
    con: EngineConnection,
    source: Stream,
    name: str | None,
    select: str | Iterable[str] | None,
    chunk_size: ChunkSize,
    skips: bool,
    overwrite: bool,
    progress: Progress,
    memory_limit: int | str | None,
    options: Mapping[str, Any],
) -> IngestReport:
    """Ingest a stream in one process, with the help of its engine's threads."""
    if chunk_size is not None and not isinstance(chunk_size, (int, str)):
        raise ConfigurationError(
            f"chunk_size of what {source!r} makes is a size in bytes, such as '1 MiB', and not "
            f"{chunk_size!r}: its columns have different lengths"
        )
    if not con.instance.keeps_groups:
        raise ConfigurationError(
            f"{source!r} makes a tree of datasets, and connection {con.name!r} makes a bucket of "
            "each dataset: give the connection bucket=, so that all are in one"
        )

    def alone() -> IngestReport:
        here = con if con.runner.shares_memory else con.in_this_process()
        return source.ingest_into(
            here,
            name,
            select=[select] if isinstance(select, str) else select,
            chunk_bytes=None if chunk_size is None else parse_size(chunk_size),
            skips=skips,
            overwrite=overwrite,
            progress=progress,
            memory_limit=None if memory_limit is None else parse_size(memory_limit),
            options=options,
        )

    return con.runner.once(alone)


@dataclass
class _Ingest:
    con: EngineConnection
    source: Source
    name: str | None
    chunk_size: ChunkSize
    skips: bool
    overwrite: bool
    options: Mapping[str, Any]
    links: bool
    ingests_rest: bool
    renewal: Renewal | None = None
    _trees: dict[str, Tree | None] = field(default_factory=dict)
    _datasets: dict[str, bool] = field(default_factory=dict)
    _stopped: BaseException | None = None

    def run(
        self,
        select: str | Iterable[str] | None,
        progress: Progress,
        memory_limit: int | str | None,
    ) -> IngestReport:
        once = self.con.runner.once
        report = IngestReport(self.source.location)
        patterns = [select] if isinstance(select, str) else select
        arrays, skipped, failed = once(lambda: self._planned(patterns))
        report.skipped.update(skipped)
        report.links = {link: a.target for a in arrays for link in a.description.links}
        report.notes = {a.target: list(a.description.notes) for a in arrays if a.description.notes}
        total = sum(a.description.nbytes for a in arrays)
        with self.con.runner.reporting(progress, total, "ingest", "B") as tell:
            done, there = 0, list[_Array]()
            for array in arrays:
                name, size = array.description.name, array.description.nbytes
                try:
                    self._one(array, report, self._share(tell, done, size), memory_limit)
                except Exception as error:
                    # Only one process is told the progress, and all processes must agree.
                    if self.con.runner.once(lambda: self._stopped is not None):
                        raise
                    report.skipped[name] = self._left_out(name, error)
                    failed.add(name)
                else:
                    there.append(array)
                done += size
                if tell is not None:
                    tell(done)
        self._set_groups(there, patterns is None, failed, report)
        return report

    def _left_out(self, name: str, error: Exception) -> str:
        """Return the reason why an array is left out, or raise if none may be."""
        if self.skips:
            return str(error) if isinstance(error, DosnaError) else _why(error)
        if isinstance(error, DosnaError):
            raise error
        raise SourceError(
            f"{name!r} of {self.source!r} cannot be ingested: {_why(error)}"
        ) from error

    def _share(
        self, tell: Callable[[int], object] | None, done: int, size: int
    ) -> Callable[[int, int], object] | None:
        """Return a callback that converts the progress of one array into that of all, in bytes."""
        if tell is None:
            return None

        def share(chunks: int, total: int) -> None:
            try:
                tell(done + (size * chunks // total if total else 0))
            except Exception as error:
                # The progress callback stops the work: that is not the array's fault.
                self._stopped = error
                raise

        return share

    def _set_groups(
        self, arrays: Iterable[_Array], whole: bool, failed: Set[str], report: IngestReport
    ) -> None:
        """Merge attributes of groups into those that the connection has."""
        once = self.con.runner.once
        try:
            groups = once(lambda: self._groups(arrays, whole, failed))
        except Exception as error:
            report.skipped["/"] = self._left_out("/", error)
            return
        for name, attrs in groups.items():
            try:
                there = once(partial(self.con.get_group_attrs, name))
                wanted = self.source.merged_group(there, attrs, whole and not failed)
                if encode_attrs(wanted) != encode_attrs(there):
                    self.con.set_group_attrs(name, wanted)
            except DatasetNameError as error:
                report.skipped[f"{name}/"] = str(error)
            except Exception as error:
                report.skipped[f"{name}/"] = self._left_out(f"{name}/", error)

    def _planned(
        self, patterns: Iterable[str] | None
    ) -> tuple[list[_Array], dict[str, str], set[str]]:
        """Return the arrays to ingest, the reasons why others are skipped, and failed names.

        The failed names are those of arrays that were skipped because of an error, when they
        were described or when their datasets were looked up. Arrays that a dataset cannot
        represent are not among them.

        Raises RefusedError before anything is made, unless arrays may be skipped.
        """
        skipped: dict[str, str] = {}
        failed: set[str] = set()
        try:
            # Taken first: what is read later is of this state, or the change is noticed.
            fingerprint = self.source.fingerprint()
            single = self.source.single
            mapped = legal_names(self.source.names())
            chosen = _selected(self.source, patterns)
        except DosnaError:
            raise
        except Exception as error:
            raise SourceError(f"{self.source!r} cannot be read: {_why(error)}") from error
        described: list[tuple[ArrayDescription, Link | None]] = []
        for name in chosen:
            try:
                description = self.source.describe(name)
                link = None
                if not description.refused and self.links:
                    try:
                        link = self.source.link(name)
                    except RefusedError as error:
                        if not self.ingests_rest:
                            description = replace(description, refused=str(error))
            except Exception as error:
                skipped[name] = self._left_out(name, error)
                failed.add(name)
                continue
            if description.refused:
                skipped[name] = description.refused
                continue
            described.append((description, link))
        if skipped and not self.skips:
            raise RefusedError(
                f"{self.source!r} has arrays that a dataset cannot "
                + ("link to or " if self.links else "")
                + "represent: "
                + "; ".join(f"{name!r}: {why}" for name, why in skipped.items())
                + ". Leave them out by on_error='skip', "
                + ("ingest by unlinkable='ingest' what can only be copied, " * self.links)
                + "or select= the others"
            )
        self._check_request([description for description, _ in described])
        found: list[_Array] = []
        for description, link in described:
            name = description.name
            try:
                array = self._array(description, link, fingerprint, single, mapped.get(name))
                found.append(replace(array, state=self._state(array)))
            except Exception as error:
                skipped[name] = self._left_out(name, error)
                failed.add(name)
        return found, skipped, failed

    def _check_request(self, described: Sequence[ArrayDescription]) -> None:
        """Raise if the request cannot be right for any of the arrays."""
        sizes = self.chunk_size
        if sizes is not None and not isinstance(sizes, (int, str)):
            axes = {len(description.shape) for description in described}
            if described and len(sizes) not in axes:
                raise ValueError(
                    f"chunk_size {tuple(sizes)} has {len(sizes)} axes, and the arrays of "
                    f"{self.source!r} have {', '.join(map(str, sorted(axes)))}"
                )
        if len(described) > 1 and not self.con.instance.holds_trees:
            raise ConfigurationError(
                f"{self.source!r} has {len(described)} arrays, and connection {self.con.name!r} "
                "makes a bucket of each dataset: give the connection bucket=, so that all are in "
                "one, or select= one array"
            )

    def _array(
        self,
        description: ArrayDescription,
        link: Link | None,
        fingerprint: str,
        single: bool,
        mapped: str | None,
    ) -> _Array:
        """Return an array with the dataset that it becomes."""
        name = description.name
        target = self._target(mapped or name, single)
        self.con.instance.check_name(target)
        if mapped is not None and not single:
            called = f"it is called {name!r} there, which no dataset can be"
            description = replace(description, notes=(*description.notes, called))
        self._check_nesting(target)
        if self.source.keeps_its_data_in(name, self.con.instance, target):
            raise ConfigurationError(
                f"{name!r} of {self.source!r} is dataset {target!r} of connection "
                f"{self.con.name!r} itself: give another name="
            )
        origin: dict[str, Any] = {
            "source": self.source.location,
            "name": name,
            "fingerprint": fingerprint,
            **({} if self.renewal is None else self.renewal.note),
        }
        if description.links:
            origin["links"] = list(description.links)
        read_as = None
        if link is None:
            stored = self._storable(description)
            read_as = description if stored is not description else None
            description = stored
        chunks = choose_chunks(description, self.chunk_size)
        array = _Array(target, description, origin, chunks, link, read_as=read_as)
        if link is None:
            # Before anything is made.
            metadata, options = self._described(array)
            with self._refusing(description):
                self.con.instance.check_dataset(target, metadata, **options)
        return array

    def _storable(self, description: ArrayDescription) -> ArrayDescription:
        """Describe an array as the backend stores it; return `description` if nothing differs."""
        with self._refusing(description):
            dtype = self.con.instance.storable(description.dtype)
        if dtype == description.dtype:
            return description
        fill = description.fillvalue
        if fill is not None:
            fill = self._array_of(description, dtype).filled(fill)[()]
        note = f"its elements are kept as {dtype}: fields little-endian, without gaps or arrays"
        return replace(description, dtype=dtype, fillvalue=fill, notes=(*description.notes, note))

    def _array_of(self, description: ArrayDescription, dtype: np.dtype[Any]) -> ConvertedArray:
        view = plain_fields(description.dtype)[1]
        return ConvertedArray(self.source, description, dtype, view)

    @contextmanager
    def _refusing(self, description: ArrayDescription) -> Iterator[None]:
        try:
            yield
        except (TypeError, ValueError) as error:
            if isinstance(error, DosnaError):
                raise
            # Backends differ in what they cannot store.
            raise RefusedError(
                f"{description.name!r} of {self.source!r} cannot be a dataset of this "
                f"backend: {error}"
            ) from error

    def _described(self, array: _Array) -> tuple[DatasetMetadata, dict[str, Any]]:
        """Return the metadata and the options with which the backend makes an array's dataset."""
        description = array.description
        options = dict(self.options)
        if description.dims is not None and "dims" in _parameters(self.con):
            options.setdefault("dims", description.dims)
        if not description.shape:
            options = {k: v for k, v in options.items() if k == "dims"}
        with self._refusing(description):
            metadata = new_metadata(
                description.shape,
                description.dtype,
                description.fillvalue,
                array.chunk_size,
                description.attrs,
            )
        return metadata.replace(incomplete=True, origin=array.origin), options

    def _check_nesting(self, target: str) -> None:
        for above in parents(target):
            if above not in self._datasets:
                self._datasets[above] = self.con.has_dataset(above)
            if self._datasets[above]:
                raise DatasetNameError(
                    f"datasets of {self.source!r} would lie in {above!r}, which is a dataset of "
                    f"connection {self.con.name!r}: give another name="
                )

    def _groups(
        self, arrays: Iterable[_Array], whole: bool, failed: Set[str]
    ) -> dict[str, Mapping[str, Any]]:
        """Return attributes of all groups, or of those above the arrays that are ingested."""
        if self.source.single or not self.con.instance.keeps_groups:
            return {}
        source, found = self.source, {}
        names = [array.origin["name"] for array in arrays]
        groups = source.groups_without(failed) if whole else source.groups_of(names)
        for name, attrs in groups.items():
            if attrs:
                # Without a prefix, the outermost group is the connection: it may have others.
                above = (self.name or "").rstrip("/")
                found["/".join(filter(None, [above, name and legal_name(name)]))] = attrs
        return found

    def _target(self, name: str, single: bool) -> str:
        if self.name is None:
            return name
        return self.name if single else f"{self.name.rstrip('/')}/{name}"

    def _one(
        self,
        array: _Array,
        report: IngestReport,
        progress: Callable[[int, int], object] | None,
        memory_limit: int | str | None,
    ) -> None:
        description, state = array.description, array.state
        if state == "complete":
            report.present.append(array.target)
            report.linked += [array.target] * (array.link is not None)
            return
        with ExitStack() as stack:  # at its end, the new dataset takes the place of an old one
            if array.link is not None:
                self._link(array, stack)
                report.linked.append(array.target)
            else:
                self._load(array, stack, progress, memory_limit)
                report.nbytes += description.nbytes
        report.made.append(array.target)
        report.resumed += [array.target] * (state == "resume")

    def _load(
        self,
        array: _Array,
        stack: ExitStack,
        progress: Callable[[int, int], object] | None,
        memory_limit: int | str | None,
    ) -> None:
        con, description, resumes = self.con, array.description, array.state == "resume"
        made = con.get_dataset(array.target) if resumes else self._create(array, stack)
        data = SourceArray(self.source, description)
        if array.read_as is not None:
            data = self._array_of(array.read_as, description.dtype)
        made.load(
            data,
            missing=resumes,
            progress=progress,
            memory_limit=memory_limit,
        )
        before, now = array.origin["fingerprint"], con.runner.once(self.source.fingerprint)
        if now != before:
            raise SourceChangedError(
                f"{self.source!r} changed while it was ingested (from {before} "
                f"to {now}): dataset {array.target!r} "
                + ("is not replaced" if array.state == "replace" else "stays incomplete")
                + "; ingest it again with overwrite=True when the source is finished"
            )
        made.mark_complete()

    def _create(self, array: _Array, stack: ExitStack) -> EngineDataset:
        con = self.con
        metadata, options = self._described(array)
        with self._refusing(array.description):
            if array.state == "replace":
                new = con.replacing(array.target, metadata, options)
                return con.wrap(stack.enter_context(new))
            return con.create_described(array.target, metadata, options)

    def _link(self, array: _Array, stack: ExitStack) -> None:
        """Make the table of a linked dataset.

        A change of the source meanwhile does no harm: reading will find a fingerprint that
        differs from the one taken first.
        """
        from dosna.backends.linked.dataset import new_table, write_records

        con, link = self.con, array.link
        assert link is not None
        # A table without records is complete as soon as it is made.
        incomplete = link.tabled
        table = new_table(link, array.description.attrs)
        table = table.replace(incomplete=incomplete, origin=array.origin)
        options = {"compression": "gzip"} if "compression" in _parameters(con) else {}

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

    def _check_tree(self, array: _Array) -> None:
        """Raise if other branches of the array's tree come from another state of the source."""
        group = self.source.tree_of(array.origin["name"])
        if group is None or self.overwrite or self.renewal is not None:
            return
        group = "/".join(filter(None, [(self.name or "").rstrip("/"), group]))
        if group not in self._trees:
            names = self.con.names_in(group) if self.con.instance.keeps_groups else []
            attrs = self.con.get_group_attrs(group) if names else {}
            self._trees[group] = Tree.from_attrs(attrs, f"group {group!r}")
        tree = self._trees[group]
        if tree is None or tree.fingerprint in ("", array.origin["fingerprint"]):
            return
        raise SourceChangedError(
            f"tree {group!r} of connection {self.con.name!r} was made of {tree.fingerprint}, "
            f"and {self.source.location} is now of {array.origin['fingerprint']}: branches of "
            "both are of no use together; make the tree anew by overwrite=True, or give "
            "another name="
        )

    def _state(self, array: _Array) -> State:
        target, mine = array.target, array.origin
        try:
            there = self.con.instance.get_dataset(target).metadata
        except DatasetNotFoundError:
            self._check_tree(array)
            return "absent"
        if self.renewal is not None and self.renewal.is_outdated(there):
            return "replace"
        origin = there.origin or {}
        same = all(origin.get(k) == mine[k] for k in ("source", "name", "fingerprint"))
        if same and array.link is not None and there.link == array.link.to_json():
            # Starting again takes no longer than resuming.
            return "replace" if there.incomplete else "complete"
        shape, dtype = array.description.shape, array.description.dtype
        fits = (there.shape, there.dtype) == (shape, dtype)
        # Earlier versions kept text as dtype U with the length of the longest string.
        older = is_text(dtype) and there.dtype.kind == "U" and there.shape == shape
        if same and older and array.link is None and there.link is None and not self.overwrite:
            return "resume" if there.incomplete else "complete"
        if same and fits and array.link is None and there.link is None:
            wanted = new_metadata(shape, dtype, None, array.chunk_size).chunk_size
            if not chosen_for(shape, self.chunk_size) or wanted == there.chunk_size:
                return "resume" if there.incomplete else "complete"
            if not self.overwrite:
                raise DatasetExistsError(
                    f"dataset {target!r} was {'begun' if there.incomplete else 'made'} from "
                    f"{mine['source']} with chunks of {there.chunk_size}, and now they are to be "
                    f"{wanted}: leave chunk_size= out, or make it anew by overwrite=True"
                )
        if self.overwrite:
            return "replace"
        if same and (there.link is None) != (array.link is None):
            raise DatasetExistsError(
                f"dataset {array.target!r} of connection {self.con.name!r} is "
                f"{'ingested' if there.link is None else 'linked'} from there already: give "
                "another name=, or overwrite=True"
            )
        held_to = [
            None if there.link is None else there.link["fingerprint"],
            None if array.link is None else array.link.fingerprint,
        ]
        if same and held_to[0] == held_to[1]:
            raise DatasetExistsError(
                f"dataset {target!r} was {'begun' if there.incomplete else 'made'} from "
                f"{mine['source']}, and is not as it would be made now: its shape, its type or "
                "the way to what it links to is another; make it anew by overwrite=True"
            )
        if (origin.get("source"), origin.get("name")) == (mine["source"], mine["name"]):
            raise SourceChangedError(
                f"dataset {target!r} was {'begun' if there.incomplete else 'made'} from "
                f"{mine['source']} when that was of {origin.get('fingerprint')}, and now it is of "
                f"{mine['fingerprint']}: make it anew by overwrite=True"
            )
        raise DatasetExistsError(
            f"dataset {target!r} exists in connection {self.con.name!r}, and is not from "
            f"{mine['source']}: give another name=, or overwrite=True"
        )


def _parameters(con: EngineConnection) -> Any:
    return inspect.signature(con.instance.create_dataset).parameters


def _why(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _selected(source: Source, patterns: Iterable[str] | None) -> list[str]:
    names = source.names()
    if not names:
        raise SourceNotFoundError(f"{source!r} has no arrays")
    chosen, vain = source.chosen(patterns)
    if vain:
        some = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
        raise SourceNotFoundError(f"{source!r} has nothing like {vain[0]!r}: it has {some}")
    return chosen
