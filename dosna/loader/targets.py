"""Targets: places into which files are loaded, and with which they are compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from dosna import open_url
from dosna.array.dataset import EngineDataset
from dosna.backends.absent import Absent
from dosna.backends.linked.dataset import LinkedDataset
from dosna.core.metadata import DatasetMetadata, new_metadata
from dosna.core.names import parents
from dosna.core.report import IngestReport
from dosna.core.request import IngestRequest
from dosna.core.url import Url
from dosna.core.values import encode_attrs
from dosna.errors import (
    ChunkError,
    ConfigurationError,
    DatasetNotFoundError,
    FormatError,
    SourceChangedError,
)
from dosna.ingest.running import ingest
from dosna.io.s3.options import S3Options
from dosna.loader.bucket import Bucket, Entry
from dosna.loader.config import Config
from dosna.loader.inventory import Claim
from dosna.loader.target import (
    Check,
    OutdatedError,
    Target,
    Verdict,
    compare_arrays,
    other_attribute,
    other_description,
)
from dosna.registry import needing
from dosna.sources.base import ArrayDescription, Source
from dosna.sources.naming import legal_name, legal_names

__all__ = ["open_target"]


@dataclass
class _Outdated:
    """A rule that finds datasets of other states of a file, or of an earlier load of it.

    Parameters
    ----------
    location, fingerprint : str
        The location and the fingerprint of the file.
    loads : int
        The number of times that the file was loaded to its end. A file is loaded once more
        because it has changed, or because its datasets may be damaged.
    """

    location: str
    fingerprint: str
    loads: int
    found: bool = False

    @property
    def note(self) -> Mapping[str, Any]:
        return {"loads": self.loads} if self.loads else {}

    def is_outdated(self, there: DatasetMetadata) -> bool:
        origin = there.origin or {}
        outdated: bool = origin.get("source") == self.location and (
            origin.get("fingerprint") != self.fingerprint or origin.get("loads", 0) < self.loads
        )
        self.found = self.found or outdated
        return outdated


class DosnaTarget(Target):
    """A connection of dosna, where the names of a file's datasets begin with its key."""

    def __init__(self, config: Config, bucket: Bucket) -> None:
        super().__init__(config, bucket)
        assert config.target is not None
        parsed = Url.parse(config.target)
        place = str(Url(parsed.backend, parsed.path.rstrip("/") + "//", parsed.options))
        engine, options = "cpu", dict[str, Any]()
        if config.scheduler is not None:
            engine, options = "dask", {"address": config.scheduler}
        self.con, _ = open_url(place, engine=engine, engine_kw=options)
        if not self.con.instance.holds_trees:
            raise ConfigurationError(
                f"target {config.target} cannot be used: each dataset would be a bucket, and "
                "files hold several. Name a bucket for all of them, s3://BUCKET/NAME"
            )
        instance: Any = self.con.instance
        server = getattr(instance, "settings", None)
        # A profile that the URL names has keys of its own.
        if isinstance(server, S3Options) and server.profile_name == S3Options.profile_name:
            instance.settings = replace(server, keys=config.s3_keys)
        self.con.make_place()
        self.con.connect()
        self._looks = ThreadPoolExecutor(config.jobs, "dosna-look")

    def close(self) -> None:
        self._looks.shutdown()
        self.con.disconnect()

    def load(self, claim: Claim, check: Check) -> tuple[Entry, str]:
        self.con.instance.check_name(claim.key)
        look = None
        if self.con.instance.creates_together:  # what is in the file's place is found meanwhile
            look = self._looks.submit(self.con.instance.absent, [f"{claim.key}/x"]).result
        try:
            return self._load(claim, check, look)
        except SourceChangedError:  # what was read of the file's former state is let go
            return self._load(claim, check, begun=True)

    def _load(
        self,
        claim: Claim,
        check: Check,
        look: Callable[[], Absent] | None = None,
        begun: bool = False,
    ) -> tuple[Entry, str]:
        with self.source(claim) as (source, entry):
            begun = begun or self._is_begun(claim, look)
            report = self._ingest(source, claim, check, begun, look)
        left_out = [f"left out {name}: {why}" for name, why in report.skipped.items()]
        return entry, "; ".join(left_out)

    def _is_begun(self, claim: Claim, look: Callable[[], Absent] | None) -> bool:
        """Return True if an earlier attempt at the file may have left something.

        The attempts of a claim do not tell: they count anew after a change of the file, and those
        of workers that gave it back do not count.
        """
        if claim.loads or claim.attempts > 1:
            return True
        if look is not None and claim.key in look():
            return False
        return bool(self.con.names_in(claim.key))

    def _ingest(
        self,
        source: Source,
        claim: Claim,
        check: Check,
        begun: bool,
        look: Callable[[], Absent] | None = None,
    ) -> IngestReport:
        """Make the file's datasets, each in the place of a dataset from another load."""
        check()
        con, config = self.con, self.config
        renewal = _Outdated(source.location, source.fingerprint(), claim.loads)
        if begun:
            self._clear_ways(source, claim.key, renewal, check)
        options = {} if config.compression is None else {"compression": config.compression}
        report = ingest(
            con,
            source,
            IngestRequest(
                claim.key,
                chunk_size=None if config.link_files else config.chunk_size,
                on_error="skip" if config.on_error == "skip" else "raise",
                progress=_checking(check),
                memory_limit=self.memory_limit,
                options=options,
                unlinkable="ingest" if config.link_files else None,
                renewal=renewal,
            ),
            look,
        )
        if begun or renewal.found:
            self._settle(source, claim.key, renewal, check)
        return report

    def _outdated(self, key: str, renewal: _Outdated) -> list[str]:
        names = self.con.names_in(key)
        return [n for n in names if renewal.is_outdated(self.con[n].instance.metadata)]

    def _clear_ways(self, source: Source, key: str, renewal: _Outdated, check: Check) -> None:
        """Delete outdated datasets where a group must be, or above which a dataset must be."""
        wanted = {*_datasets_of(source, key).values()}
        groups = {group for name in wanted for group in parents(name)}
        for name in self._outdated(key, renewal):
            if name in groups or not wanted.isdisjoint(parents(name)):
                check()
                self.con.del_dataset(name)

    def _settle(self, source: Source, key: str, renewal: _Outdated, check: Check) -> None:
        """Delete attributes of groups, and datasets, that the file no longer has."""
        outdated = self._outdated(key, renewal)
        if self.con.instance.keeps_groups:
            wanted = {_group_of(key, name): attrs for name, attrs in source.groups().items()}
            groups = {key, *wanted}
            groups |= {g for name in outdated for g in parents(name) if g.startswith(f"{key}/")}
            for group in sorted(groups):
                check()
                there, new = self.con.get_group_attrs(group), wanted.get(group, {})
                if there and encode_attrs(there) != encode_attrs(new):
                    self.con.set_group_attrs(group, new)
        for name in outdated:
            check()
            self.con.del_dataset(name)

    def compare_source(self, source: Source, entry: Entry, claim: Claim, check: Check) -> Verdict:
        prefix = f"{claim.key}/"
        fingerprint = source.fingerprint()
        targets = _datasets_of(source, claim.key)
        own = {target: name for name, target in targets.items()}
        there = self.con.names_in(claim.key)
        names = [own.get(target, target.removeprefix(prefix)) for target in there]
        found = compare_arrays(
            source,
            names,
            lambda described: self._difference(
                targets[described.name], source, described, fingerprint, check
            ),
            check,
            lambda described: self._refusal(targets[described.name], described),
        )
        if found.difference is not None:
            return found
        return Verdict(self._other_groups(source, claim.key), found.unseen)

    def _refusal(self, target: str, described: ArrayDescription) -> str:
        """Return why an array was left out; empty if the target can store it."""
        if self.config.on_error != "skip":
            return ""
        instance = self.con.instance
        try:
            instance.check_name(target)
            dtype = instance.storable(described.dtype)
            metadata = new_metadata(described.shape, dtype, None, None, described.attrs)
            instance.check_dataset(target, metadata)
        except (TypeError, ValueError) as error:
            return str(error)
        return ""

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
        linked = ds.instance
        if (
            isinstance(linked, LinkedDataset)
            and linked.remote
            and "profile_name" not in linked.link.options
        ):
            linked.keys = self.config.s3_keys
        if (ds.origin or {}).get("fingerprint") != fingerprint:
            raise OutdatedError(f"{source.location} has changed: it is now {fingerprint}")
        if ds.incomplete:
            return "incomplete in the target"
        stored = replace(described, dtype=source[described.name].as_stored(ds.dtype).dtype)
        if (other := other_description(stored, ds)) is not None:
            return other
        return self._other_value(ds, source, described.name, check)

    def _other_value(
        self, ds: EngineDataset, source: Source, name: str, check: Check
    ) -> str | None:
        try:
            found = ds.compare(
                source[name],
                exact=True,
                progress=_checking(check),
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
            there = self.con.get_group_attrs(_group_of(key, name))
            if (other := other_attribute(attrs, there)) is not None:
                return f"group {name or '/'}: {other}"
        return None


def _datasets_of(source: Source, key: str) -> dict[str, str]:
    """Return the names of the datasets for the arrays of a file."""
    names = source.names()
    renamed = legal_names(names)
    return {name: f"{key}/{renamed.get(name, name)}" for name in names}


def _group_of(key: str, name: str) -> str:
    """Return the name of the group for one of a file; '' is its outermost one."""
    return f"{key}/{legal_name(name)}" if name else key


def _checking(check: Check) -> Callable[[int, int], None]:
    """Return a callback that checks when something was done; engines also tell that they wait."""
    last = -1

    def tell(done: int, total: int) -> None:
        nonlocal last
        if done != last:
            last = done
            check()

    return tell


def open_target(config: Config, bucket: Bucket) -> Target:
    """Return the target that the configuration names.

    Raises
    ------
    ConfigurationError
        The configuration names no target, or one that is not possible.
    DosnaError
        The target cannot be reached.
    """
    if config.tgt_folder is None:
        config.require("target")
        return DosnaTarget(config, bucket)
    with needing("a target in HSDS needs", "hsds"):
        from dosna.loader.hsds import HsdsTarget
    return HsdsTarget(config, bucket)
