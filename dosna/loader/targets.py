"""Where files go: loaded into it, and compared with it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dosna import open_url
from dosna.engines.dataset import EngineDataset
from dosna.errors import (
    ChunkError,
    ConfigurationError,
    DatasetNotFoundError,
    FormatError,
    MissingDependencyError,
    SourceChangedError,
)
from dosna.loader.bucket import Bucket, Entry
from dosna.loader.config import Config
from dosna.loader.inventory import Claim
from dosna.metadata import encode_attrs, parents
from dosna.sources.base import ArrayDescription, Source
from dosna.sources.hdf5 import H5Source
from dosna.urls import Url

__all__ = ["OutdatedError", "Target", "Verdict", "open_target", "other_attribute"]

Check = Callable[[], None]
"""Called now and then; raises if the work is to be stopped."""


@dataclass(frozen=True)
class Verdict:
    """What comparing a file has found.

    Parameters
    ----------
    difference : str or None
        The first; None if there is none.
    unseen : sequence of str
        What was not compared, and why.
    """

    difference: str | None
    unseen: Sequence[str] = ()

    @property
    def message(self) -> str:
        """What is said of the file."""
        if self.difference is not None:
            return self.difference
        return "PASSED" + (f"; not compared: {'; '.join(self.unseen)}" if self.unseen else "")


class OutdatedError(Exception):
    """The file has changed since it was loaded."""


class Target(ABC):
    """Where files of a bucket go.

    Parameters
    ----------
    config : Config
    bucket : Bucket
    """

    def __init__(self, config: Config, bucket: Bucket) -> None:
        self.config = config
        self.bucket = bucket

    @abstractmethod
    def load(self, claim: Claim, check: Check) -> tuple[Entry, str]:
        """Load a file, or go on where an earlier attempt has stopped.

        Returns
        -------
        entry : Entry
            The state of the file that is loaded now.
        message : str
            What was left out, if anything was.
        """

    @abstractmethod
    def compare(self, claim: Claim, check: Check) -> Verdict:
        """Compare a file with what was made of it.

        Raises
        ------
        OutdatedError
        """

    def close(self) -> None:  # noqa: B027  not every target has something to let go of
        """Let go of connections."""

    @property
    def memory_limit(self) -> int:
        """Bytes of blocks for one file."""
        return max(1 << 20, self.config.memory_bytes // self.config.jobs)

    @contextmanager
    def source(self, claim: Claim) -> Iterator[tuple[Source, Entry]]:
        """Open a file, and describe the state in which it is."""
        file = self.bucket.open(claim.key, claim.size, whole=not self.config.link_files)
        entry = self.bucket.entry(claim.key, file)
        with H5Source(file) as source:
            yield source, entry


class DosnaTarget(Target):
    """A connection of dosna; the datasets of a file have its key before their names."""

    def __init__(self, config: Config, bucket: Bucket) -> None:
        super().__init__(config, bucket)
        assert config.target is not None
        parsed = Url.parse(config.target)
        place = str(Url(parsed.backend, parsed.path.rstrip("/") + "//", parsed.options))
        self.con, _ = open_url(place, engine="cpu")
        if not self.con.instance.holds_trees:
            raise ConfigurationError(
                f"target {config.target} makes a bucket of each dataset, and files hold several: "
                "name a bucket for all, s3://BUCKET/NAME"
            )
        self.con.make_place()
        self.con.connect()

    def close(self) -> None:
        self.con.disconnect()

    def load(self, claim: Claim, check: Check) -> tuple[Entry, str]:
        self.con.instance.check_name(claim.key)
        with self.source(claim) as (source, entry):
            if claim.loads and claim.attempts == 1:
                # It was loaded to its end, and is to be loaded once more: it may be damaged.
                self._remove(source, claim.key, check, None)
            elif claim.loads or claim.attempts > 1:
                self._remove(source, claim.key, check, source.fingerprint())
            try:
                report = self._ingest(source, claim.key, check)
            except SourceChangedError:
                # Of a state of the file that an earlier inventory knew.
                self._remove(source, claim.key, check, source.fingerprint())
                report = self._ingest(source, claim.key, check)
        left_out = [f"left out {name}: {why}" for name, why in report.skipped.items()]
        return entry, "; ".join(left_out)

    def _ingest(self, source: Source, key: str, check: Check) -> Any:
        check()
        options: dict[str, Any] = {
            "on_error": self.config.on_error,
            "progress": lambda done, total: check(),
            "memory_limit": self.memory_limit,
        }
        if self.config.compression is not None:
            options["compression"] = self.config.compression
        if self.config.link_files:
            return self.con.link(source, key, unlinkable="ingest", **options)
        return self.con.ingest(source, key, chunk_size=self.config.chunk_size, **options)

    def _remove(self, source: Source, key: str, check: Check, kept: str | None) -> None:
        """Delete the datasets that were made of the file, but for those of one state of it."""
        outdated = []
        for name in self.con.names_in(key):
            origin = self.con[name].origin or {}
            if origin.get("source") == source.location and origin.get("fingerprint") != kept:
                outdated.append(name)
        if outdated and self.con.instance.keeps_groups:
            # Before the datasets, which tell the next worker that there is something to remove.
            groups = {key, *(f"{key}/{name}" for name in source.groups() if name)}
            groups |= {g for name in outdated for g in parents(name) if g.startswith(f"{key}/")}
            for group in sorted(groups):
                check()
                if self.con.get_group_attrs(group):
                    self.con.set_group_attrs(group, {})
        for name in outdated:
            check()
            self.con.del_dataset(name)

    def compare(self, claim: Claim, check: Check) -> Verdict:
        unseen = []
        with self.source(claim) as (source, _):
            there = set(self.con.names_in(claim.key))
            fingerprint = source.fingerprint()
            for name in source.names():
                check()
                target = f"{claim.key}/{name}"
                described = source.describe(name)
                if described.refused:
                    unseen.append(f"{name} ({described.refused})")
                elif target not in there:
                    return Verdict(f"{name}: not in the target")
                else:
                    found = self._difference(target, source, described, fingerprint, check)
                    if found is not None:
                        return Verdict(f"{name}: {found}")
                there.discard(target)
            if there:
                return Verdict(f"{min(there)}: in the target, and not in the file")
            return Verdict(self._other_groups(source, claim.key), unseen)

    def _difference(
        self,
        target: str,
        source: Source,
        described: ArrayDescription,
        fingerprint: str,
        check: Check,
    ) -> str | None:
        try:
            ds = self.con[target]
        except (DatasetNotFoundError, FormatError) as error:
            return f"cannot be opened: {error}"
        if (ds.origin or {}).get("fingerprint") != fingerprint:
            raise OutdatedError(f"{source.location} is now of {fingerprint}")
        if ds.incomplete:
            return "incomplete in the target"
        pairs = [
            ("shape", described.shape, ds.shape),
            ("dtype", described.dtype, ds.dtype),
        ]
        for what, wanted, found in pairs:
            if wanted != found:
                return f"{what} is {wanted} in the file, and {found} in the target"
        if (other := other_attribute(described.attrs, dict(ds.attrs))) is not None:
            return other
        return self._other_value(ds, source, described.name, check)

    def _other_value(
        self, ds: EngineDataset, source: Source, name: str, check: Check
    ) -> str | None:
        try:
            found = ds.compare(
                source[name],
                exact=True,
                progress=lambda done, total: check(),
                memory_limit=self.memory_limit,
            )
        except ChunkError as error:
            return f"in the target {error}"
        if found.first is None:
            return None
        at = found.first
        wanted, there = source[name][at], ds[at]
        return f"{found}: {wanted!r} in the file, and {there!r} in the target"

    def _other_groups(self, source: Source, key: str) -> str | None:
        if not self.con.instance.keeps_groups:
            return None
        kept = {"", *(g for name in source.names() for g in parents(name))}
        for name, attrs in source.groups().items():
            if name not in kept and self.config.on_error == "skip":
                continue
            there = self.con.get_group_attrs(f"{key}/{name}" if name else key)
            if (other := other_attribute(attrs, there)) is not None:
                return f"group {name or '/'}: {other}"
        return None


def other_attribute(wanted: Any, there: Any) -> str | None:
    """Say in which attribute two owners differ first, if in any."""
    one, other = encode_attrs(wanted), encode_attrs(there)
    for name in sorted({*one, *other}):
        if name not in other:
            return f"attribute {name!r} is not in the target"
        if name not in one:
            return f"attribute {name!r} is in the target, and not in the file"
        if one[name] != other[name]:
            return (
                f"attribute {name!r} is {wanted[name]!r} in the file, and {there[name]!r} in the "
                "target"
            )
    return None


def open_target(config: Config, bucket: Bucket) -> Target:
    """Give the target that the configuration names.

    Raises
    ------
    ConfigurationError
        It names none, or one that cannot be.
    DosnaError
        It cannot be reached.
    """
    if config.tgt_folder is None:
        config.require("target")
        return DosnaTarget(config, bucket)
    try:
        from dosna.loader.hsds import HsdsTarget
    except ImportError as error:
        raise MissingDependencyError(
            f"HSDS as a target needs {error.name}: pip install 'dosna[hsds]'"
        ) from error
    return HsdsTarget(config, bucket)
