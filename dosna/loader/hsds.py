"""HSDS as a target: each file becomes a domain of a folder there."""

from __future__ import annotations

import math
import posixpath
from typing import Any

import numpy as np

from dosna.core.compare import other_bytes
from dosna.core.metadata import choose_chunk_size
from dosna.core.names import check_name
from dosna.core.plan import every_chunk
from dosna.core.types import Shape
from dosna.errors import ConfigurationError, SourceChangedError, SourceNotFoundError
from dosna.export.hsds import link_domain, load_domain
from dosna.hsds import Failure, HsdsClient, HsdsOptions
from dosna.hsds.domain import grown
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
from dosna.sources.base import ArrayDescription, Source
from dosna.sources.hsds.source import HsdsSource

__all__ = ["HsdsTarget"]

_TOKEN = "loader"
"""The token of unfinished domains: a new attempt deletes what another worker left."""
_LEAST_MEMORY = 16 << 20
_BLOCK_BYTES = 4 << 20
_CONFLICT = 409
_READ_ONLY = {
    right: right == "read"
    for right in ("create", "read", "update", "delete", "readACL", "updateACL")
}


class HsdsTarget(Target):
    """A folder of HSDS, in which a file becomes the domain named by its key."""

    def __init__(self, config: Config, bucket: Bucket) -> None:
        super().__init__(config, bucket)
        if config.link_files and config.in_folder:
            raise ConfigurationError(
                f"files in the folder {config.src_bucket} cannot be linked, because HSDS does "
                "not reach it: put them into a bucket of S3, or set link_files: false"
            )
        assert config.tgt_folder is not None
        self.folder = "/" + config.tgt_folder.removeprefix("hdf5:").strip("/")
        self._load = self._options(config.hsds_local or config.hsds_global)
        self._read = self._options(config.hsds_global or config.hsds_local)
        self._client = HsdsClient(HsdsOptions(**self._load))
        self._made: set[str] = set()
        self._make_folder(self.folder)

    def _options(self, endpoint: str | None) -> dict[str, Any]:
        return {
            "endpoint": endpoint,
            "username": self.config.hs_username,
            "password": self.config.hs_password,
            "bucket": self.config.tgt_bucket,
        }

    def _make_folder(self, folder: str) -> None:
        """Create a folder, and those above it that belong to the loader."""
        if folder in self._made or folder == "/":
            return
        try:
            self._client.get("/", folder)
        except Failure as failure:
            if not failure.absent:
                raise self._client.error(failure, f"folder {folder} cannot be looked up") from None
            self._make_folder(posixpath.dirname(folder))
            try:
                self._client.put("/", folder, {"folder": 1})
            except Failure as second:
                if second.status != _CONFLICT:  # a conflict: another process has just made it
                    raise self._client.error(second, f"folder {folder} cannot be made") from None
        self._made.add(folder)

    def load(self, claim: Claim, check: Check) -> tuple[Entry, str]:
        domain = f"{self.folder}/{check_name(claim.key)}"
        self._make_folder(posixpath.dirname(domain))
        check()
        options: dict[str, Any] = {
            "overwrite": True,
            "on_error": self.config.on_error,
            "token": _TOKEN,
            "progress": lambda done, total: check(),
            "memory_limit": max(_LEAST_MEMORY, self.memory_limit),
            **self._load,
        }
        with self.source(claim) as (source, entry):
            if self.config.link_files:
                report = link_domain(source, domain, self.bucket.url(claim.key), **options)
            else:
                report = load_domain(source, domain, **options)
            now = source.fingerprint()
        if self.config.public_read:
            self._grant_public_read(domain)
        if entry.etag not in now:
            raise SourceChangedError(f"{claim.key} changed while it was loaded")
        return entry, "; ".join(f"left out {n}: {why}" for n, why in report.left_out.items())

    def _grant_public_read(self, domain: str) -> None:
        try:
            self._client.put("/acls/default", domain, _READ_ONLY)
        except Failure as failure:
            raise self._client.error(failure, f"{domain} cannot be made public") from None

    def compare_source(self, source: Source, entry: Entry, claim: Claim, check: Check) -> Verdict:
        domain = f"hdf5:/{self.folder}/{claim.key}"
        if entry.etag != claim.etag:
            raise OutdatedError(f"{source.location} has changed since it was loaded")
        with HsdsSource(domain, **self._read) as there:
            try:
                names = there.names()
            except SourceNotFoundError as error:
                return Verdict(f"not in the target: {error}")
            found = compare_arrays(
                source, names, lambda one: _difference(source, there, one, check), check
            )
            if found.difference is not None:
                return found
            groups = there.groups()
            for name, attrs in source.groups().items():
                if name not in groups:
                    return Verdict(f"group {name or '/'} is not in the target")
                if (other := other_attribute(attrs, groups[name])) is not None:
                    return Verdict(f"group {name or '/'}: {other}")
        return found


def _difference(
    source: Source, there: Source, described: ArrayDescription, check: Check
) -> str | None:
    """Return the first difference of an array of two sources, None if there is none."""
    other = there.describe(described.name)
    if other.refused:
        return f"cannot be read in the target: {other.refused}"
    if (unlike := other_description(described, other)) is not None:
        return unlike
    if not math.prod(described.shape):
        return None
    for task in every_chunk(described.shape, _blocks(described)):
        check()
        one, two = (s.read(described.name, task.out) for s in (source, there))
        differ = other_bytes(np.asarray(one, described.dtype), np.asarray(two, described.dtype))
        if differ.any():
            at = np.unravel_index(int(np.argmax(differ)), differ.shape)
            first = tuple(int(s.start + i) for s, i in zip(task.out, at, strict=True))
            return (
                f"elements differ, first at {first}: {one[at]!r} in the file, and {two[at]!r} in "
                "the target"
            )
    return None


def _blocks(described: ArrayDescription) -> Shape:
    """Return the extent of a block to compare: whole chunks, as long as they are small."""
    itemsize = described.dtype.itemsize
    if described.chunks is None:
        return choose_chunk_size(described.shape, itemsize, _BLOCK_BYTES)
    return grown(described.chunks, described.shape, itemsize, _BLOCK_BYTES)
