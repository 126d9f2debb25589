"""The datasets that the arrays of a source become: planned and checked before any is made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dosna.backends.absent import NOTHING, Absent
from dosna.core.metadata import DatasetMetadata, new_metadata
from dosna.core.names import parents
from dosna.core.options import names_of_options
from dosna.core.patterns import matching, suggested
from dosna.core.request import IngestRequest
from dosna.core.values import plain_fields
from dosna.errors import (
    ConfigurationError,
    DatasetNameError,
    DosnaError,
    RefusedError,
    SourceError,
    SourceNotFoundError,
)
from dosna.ingest.existing import Existing
from dosna.ingest.planned import Plan, PlannedArray
from dosna.io.files import FULL
from dosna.sources.array import ConvertedArray
from dosna.sources.base import ArrayDescription, Source
from dosna.sources.chunking import choose_chunks
from dosna.sources.errors import Converting
from dosna.sources.naming import legal_names

if TYPE_CHECKING:
    from dosna.array.connection import EngineConnection
    from dosna.backends.linked.link import Link

__all__ = ["left_out", "parameters_of", "plan", "refusing"]


def plan(
    con: EngineConnection,
    source: Source,
    request: IngestRequest,
    is_small: Callable[[PlannedArray], bool] | None = None,
    look: Callable[[], Absent] | None = None,
) -> Plan:
    """Plan the ingest of a source.

    Parameters
    ----------
    con : Connection
    source : Source
    request : IngestRequest
    is_small : callable, optional
        A function that returns True for an array whose dataset is made only if it does not exist.
        A single array like this is not looked for where nobody has looked yet.
    look : callable, optional
        A function that returns what a look at the place of the whole source has found.

    Raises
    ------
    RefusedError
        An array cannot be represented, and none may be left out.
    ConfigurationError, DatasetExistsError, DatasetNameError, SourceChangedError
        The request cannot be carried out for an array, and none may be left out.
    """
    return _Planning(con, source, request, look).run(is_small)


def left_out(source: Source, name: str, error: Exception, skips: bool) -> str:
    """Return the reason why an array is left out, or raise the error if none may be.

    A full disk is nothing that the other arrays would be spared.
    """
    if skips and not (isinstance(error, OSError) and error.errno in FULL):
        return str(error) if isinstance(error, DosnaError) else _described(error)
    if isinstance(error, DosnaError):
        raise error
    raise SourceError(f"{name!r} of {source} cannot be ingested: {_described(error)}") from error


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def refusing(source: Source, name: str) -> Converting:
    """Return a context that converts what a backend raises for what it cannot store."""

    def convert(error: Exception) -> RefusedError | None:
        if not isinstance(error, (TypeError, ValueError)):
            return None
        return RefusedError(f"{name!r} of {source} cannot be a dataset of this backend: {error}")

    return Converting(convert)


class _Planning:
    """The planning of one ingest."""

    def __init__(
        self,
        con: EngineConnection,
        source: Source,
        request: IngestRequest,
        look: Callable[[], Absent] | None,
    ) -> None:
        self.con, self.source, self.request, self._look = con, source, request, look
        self.plan = Plan()
        self._existing = Existing(con, source, request)
        self._is_dataset: dict[str, bool] = {}

    def run(self, is_small: Callable[[PlannedArray], bool] | None) -> Plan:
        try:
            # Taken first: what is read later is of this state, or the change is noticed.
            fingerprint = self.source.fingerprint()
            single = self.source.single
            mapped = legal_names(self.source.names())
            chosen = self._selected()
        except DosnaError:
            raise
        except Exception as error:
            raise SourceError(f"{self.source} cannot be read: {_described(error)}") from error
        described = self._describe_all(chosen)
        self._check_request([description for description, _ in described])
        targets = {
            description.name: self._target(mapped.get(description.name, description.name), single)
            for description, _ in described
        }
        if not single:
            self._check_outside(targets.values())
        self._look_for_absent(targets.values())
        for description, link in described:
            name = description.name
            target = targets[name]
            if name in mapped and not single:
                note = f"its name there is {name!r}, which no dataset can have"
                description = replace(description, notes=(*description.notes, note))
            with self._leaving_out(name):
                array = self._array(target, description, link, fingerprint)
                self.plan.hopeful = (
                    is_small is not None
                    and len(described) == 1
                    and target not in self.plan.absent
                    and self.source.tree_of(name) is None
                    and is_small(array)
                )
                if not self.plan.hopeful:
                    state = self._existing.state(array, target in self.plan.absent)
                    array = replace(array, state=state)
                self.plan.arrays.append(array)
        return self.plan

    def _selected(self) -> list[str]:
        names = self.source.names()
        if not names:
            raise SourceNotFoundError(f"{self.source} has no arrays")
        chosen, unmatched = self.source.chosen(self.request.select)
        if unmatched:
            some = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
            raise SourceNotFoundError(
                f"{self.source} has nothing like {unmatched[0]!r}: "
                f"{suggested(unmatched[0], names)}it has {some}"
            )
        return chosen

    @contextmanager
    def _leaving_out(self, name: str) -> Iterator[None]:
        """Leave an array out because of an error, or raise the error if none may be."""
        try:
            yield
        except Exception as error:
            self.plan.skipped[name] = left_out(self.source, name, error, self.request.skips)
            self.plan.failed.add(name)

    def _look_for_absent(self, targets: Iterable[str]) -> None:
        """Look, where few requests tell it, which datasets do not exist yet."""
        legal = []
        for target in targets:
            with suppress(DatasetNameError):
                legal.append(self.con.instance.check_name(target))
        with suppress(DosnaError):  # each is looked for by its name then
            found = NOTHING if self._look is None else self._look()
            if self.request.prefix in found:
                self.plan.absent = found.among(legal)
            else:
                self.plan.absent = self.con.instance.absent(legal)

    def _describe_all(self, chosen: Sequence[str]) -> list[tuple[ArrayDescription, Link | None]]:
        """Describe arrays, leaving out those that cannot be represented."""
        described = []
        for name in chosen:
            with self._leaving_out(name):
                description, link = self._describe(name)
                if description.refused:
                    self.plan.skipped[name] = description.refused
                else:
                    described.append((description, link))
        if self.plan.skipped and not self.request.skips:
            links = self.request.links
            raise RefusedError(
                f"{self.source} has arrays that a dataset cannot "
                + ("link to or " if links else "")
                + "represent: "
                + "; ".join(f"{name!r}: {why}" for name, why in self.plan.skipped.items())
                + ". Leave them out by on_error='skip', "
                + ("ingest by unlinkable='ingest' what can only be copied, " * links)
                + "or select= the others"
            )
        return described

    def _describe(self, name: str) -> tuple[ArrayDescription, Link | None]:
        description = self.source.describe(name)
        if description.refused or not self.request.links:
            return description, None
        try:
            return description, self.source.link(name)
        except RefusedError as error:
            if self.request.unlinkable == "ingest":
                return description, None
            return replace(description, refused=str(error)), None

    def _check_request(self, described: Sequence[ArrayDescription]) -> None:
        """Raise if the request cannot be right for any of the arrays."""
        sizes = self.request.chunk_size
        if sizes is not None and not isinstance(sizes, (int, str)):
            axes = {len(description.shape) for description in described}
            if described and len(sizes) not in axes:
                raise ValueError(
                    f"chunk_size {tuple(sizes)} has {len(sizes)} axes, and the arrays of "
                    f"{self.source} have {', '.join(map(str, sorted(axes)))}"
                )
        if len(described) > 1 and not self.con.instance.holds_trees:
            raise ConfigurationError(
                f"{self.source} has {len(described)} arrays, and connection {self.con.name!r} "
                "makes a bucket of each dataset: give the connection bucket=, so that all are in "
                "one, or select= one array"
            )

    def _target(self, name: str, single: bool) -> str:
        if self.request.name is None:
            return name
        return self.request.name if single else f"{self.request.prefix}/{name}"

    def _array(
        self, target: str, description: ArrayDescription, link: Link | None, fingerprint: str
    ) -> PlannedArray:
        """Return an array with the dataset that it becomes."""
        name, renewal = description.name, self.request.renewal
        self.con.instance.check_name(target)
        self._check_nesting(target)
        if self.source.keeps_its_data_in(name, self.con.instance, target):
            raise ConfigurationError(
                f"{name!r} of {self.source} is dataset {target!r} of connection "
                f"{self.con.name!r} itself: give another name="
            )
        origin: dict[str, Any] = {
            "source": self.source.location,
            "name": name,
            "fingerprint": fingerprint,
            **({} if renewal is None else renewal.note),
        }
        if description.links:
            origin["links"] = list(description.links)
        if link is not None:
            return PlannedArray(target, description, origin, link=link)
        with refusing(self.source, name):
            stored = self._storable(description)
            metadata, options = self._dataset(stored, origin)
            self.con.instance.check_dataset(target, metadata, **options)
        read_as = description if stored is not description else None
        return PlannedArray(target, stored, origin, metadata, options, None, read_as)

    def _check_outside(self, targets: Iterable[str]) -> None:
        """Raise ConfigurationError if new datasets would be part of the source."""
        would_be = {target: self.source.name_of(self.con.instance, target) for target in targets}
        inside = {target: name for target, name in would_be.items() if name is not None}
        known = set(self.source.names()) if inside else set()
        for target, name in inside.items():
            if name not in known and matching([name], self.request.select)[0]:
                raise ConfigurationError(
                    f"{self.source} would be copied into itself: dataset {target!r} of "
                    f"connection {self.con.name!r} would be {name!r} there. Give a place outside, "
                    "or select= what that is not part of"
                )

    def _check_nesting(self, target: str) -> None:
        for above in parents(target):
            if above in self.plan.absent:
                return
            if above in self.plan.absent.groups:
                continue
            if above not in self._is_dataset:
                self._is_dataset[above] = self.con.has_dataset(above)
            if self._is_dataset[above]:
                raise DatasetNameError(
                    f"datasets of {self.source} would lie in {above!r}, which is a dataset of "
                    f"connection {self.con.name!r}: give another name="
                )

    def _storable(self, description: ArrayDescription) -> ArrayDescription:
        """Describe an array as the backend stores it; return `description` if nothing differs."""
        dtype = self.con.instance.storable(description.dtype)
        if dtype == description.dtype:
            return description
        fill = description.fillvalue
        if fill is not None:
            view = plain_fields(description.dtype)[1]
            fill = ConvertedArray(self.source, description, dtype, view).filled(fill)[()]
        note = f"its elements are kept as {dtype}: fields little-endian, without gaps or arrays"
        return replace(description, dtype=dtype, fillvalue=fill, notes=(*description.notes, note))

    def _dataset(
        self, description: ArrayDescription, origin: Mapping[str, Any]
    ) -> tuple[DatasetMetadata, dict[str, Any]]:
        """Return the metadata and the options with which the backend makes a dataset."""
        options = dict(self.request.options)
        if description.dims is not None and "dims" in parameters_of(self.con):
            options.setdefault("dims", description.dims)
        if not description.shape:
            options = {k: v for k, v in options.items() if k == "dims"}
        metadata = new_metadata(
            description.shape,
            description.dtype,
            description.fillvalue,
            choose_chunks(description, self.request.chunk_size),
            description.attrs,
        )
        return metadata.replace(incomplete=True, origin=origin), options


def parameters_of(con: EngineConnection) -> frozenset[str]:
    """Return the options of the backend's `create_dataset`."""
    return names_of_options(con.instance.create_dataset) or frozenset()
