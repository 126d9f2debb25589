"""Old import paths, which work with a DeprecationWarning until the release after the next.

The modules were moved to the floor that they belong to; see ``docs/design/floors.md``.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType

__all__ = ["MOVED", "install"]

MOVED = {
    "dosna.backends.ceph_cluster": "dosna.backends.ceph.cluster",
    "dosna.backends.ceph_store": "dosna.backends.ceph.store",
    "dosna.backends.deletion": "dosna.backends.stores.deletion",
    "dosna.backends.exchange": "dosna.backends.folders.exchange",
    "dosna.backends.file": "dosna.backends.zarr.connection",
    "dosna.backends.filedata": "dosna.backends.zarr.dataset",
    "dosna.backends.filefolder": "dosna.backends.zarr.folder",
    "dosna.backends.folder": "dosna.backends.folders.connection",
    "dosna.backends.folderdata": "dosna.backends.folders.dataset",
    "dosna.backends.h5dataset": "dosna.backends.hdf5.dataset",
    "dosna.backends.h5folder": "dosna.backends.hdf5.folder",
    "dosna.backends.h5format": "dosna.backends.hdf5.chunkfile",
    "dosna.backends.h5plain": "dosna.backends.hdf5.plain",
    "dosna.backends.h5text": "dosna.backends.hdf5.text",
    "dosna.backends.h5virtual": "dosna.backends.hdf5.virtual",
    "dosna.backends.objects": "dosna.backends.stores.store",
    "dosna.backends.parts": "dosna.io.ranges",
    "dosna.backends.s3_client": "dosna.io.s3.client",
    "dosna.backends.s3_errors": "dosna.io.s3.errors",
    "dosna.backends.s3_store": "dosna.backends.s3.store",
    "dosna.backends.sage_client": "dosna.backends.sage.client",
    "dosna.backends.sage_conf": "dosna.backends.sage.configuration",
    "dosna.backends.sage_records": "dosna.backends.sage.records",
    "dosna.backends.sage_start": "dosna.backends.sage.start",
    "dosna.backends.sage_store": "dosna.backends.sage.store",
    "dosna.backends.shardeddata": "dosna.backends.stores.sharded",
    "dosna.backends.store": "dosna.backends.stores.connection",
    "dosna.backends.storedata": "dosna.backends.stores.dataset",
    "dosna.backends.workers": "dosna.io.parallel",
    "dosna.casting": "dosna.core.casting",
    "dosna.crc32c": "crc32c",
    "dosna.engines.access": "dosna.array.indexing",
    "dosna.engines.agreement": "dosna.engines.mpi.agreement",
    "dosna.engines.connection": "dosna.array.connection",
    "dosna.engines.dataset": "dosna.array.dataset",
    "dosna.engines.halo": "dosna.core.halo",
    "dosna.engines.jl": "dosna.engines.joblib",
    "dosna.fletcher32": "dosna.codecs.fletcher32",
    "dosna.hsds.h5copy": "dosna.transfer.copying",
    "dosna.hsds.transfer": "dosna.transfer.files",
    "dosna.locks": "dosna.io.locks",
    "dosna.metadata": "dosna.core.metadata",
    "dosna.plan": "dosna.core.plan",
    "dosna.selection": "dosna.core.selection",
    "dosna.shards": "dosna.codecs.zarr.shards",
    "dosna.sources.bitshuffle": "dosna.codecs.bitshuffle",
    "dosna.sources.caching": "dosna.io.cache",
    "dosna.sources.contiguous": "dosna.io.contiguous",
    "dosna.sources.converting": "dosna.sources.base",
    "dosna.sources.eventfiles": "dosna.sources.servicex.eventfiles",
    "dosna.sources.files": "dosna.io.bytefile",
    "dosna.sources.growing": "dosna.sources.servicex.growing",
    "dosna.sources.h5chunks": "dosna.backends.linked.reader",
    "dosna.sources.h5direct": "dosna.sources.hdf5.direct",
    "dosna.sources.h5links": "dosna.sources.hdf5.layout",
    "dosna.sources.h5outside": "dosna.sources.hdf5.outside",
    "dosna.sources.h5scales": "dosna.sources.hdf5.scales",
    "dosna.sources.h5tree": "dosna.sources.hdf5.tree",
    "dosna.sources.h5types": "dosna.sources.hdf5.types",
    "dosna.sources.ingest": "dosna.ingest.running",
    "dosna.sources.links": "dosna.backends.linked.dataset",
    "dosna.sources.rootchain": "dosna.sources.root.chain",
    "dosna.sources.rootchecks": "dosna.sources.root.checks",
    "dosna.sources.rootfile": "dosna.sources.root.file",
    "dosna.sources.roottree": "dosna.sources.root.tree",
    "dosna.sources.servicex_following": "dosna.sources.servicex.following",
    "dosna.sources.servicex_requests": "dosna.sources.servicex.requests",
    "dosna.sources.strings": "dosna.sources.hdf5.strings",
    "dosna.support.motr": "dosna.backends.sage.binding",
    "dosna.text": "dosna.core.text",
    "dosna.urls": "dosna.array.opening",
    "dosna.util.mpi": "dosna.engines.mpi.scripts",
    "dosna.util.options": "dosna.core.options",
    "dosna.util.patterns": "dosna.core.patterns",
    "dosna.util.processes": "dosna.io.processes",
    "dosna.util.progress": "dosna.core.progress",
    "dosna.util.sizes": "dosna.core.sizes",
    "dosna.util.timer": "dosna.core.timer",
    "dosna.xarray_backend": "dosna.integrations.xarray",
    "dosna.zarr3": "dosna.codecs.zarr",
    "dosna.zarr3attrs": "dosna.codecs.zarr.attributes",
    "dosna.zarr3types": "dosna.codecs.zarr.types",
}


# Not of the classes of importlib.abc: that module takes a sixth of the time of `import dosna`.
class _Alias:
    """A loader that imports another module in place of its own, and does not change it."""

    def __init__(self, target: str) -> None:
        self._target = target

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._target)
        self._spec = module.__spec__
        return module

    def get_code(self, fullname: str) -> CodeType | None:
        """Return the code of the other module, for ``python -m``."""
        from importlib.abc import InspectLoader
        from importlib.util import find_spec

        found = find_spec(self._target)
        assert found is not None
        assert isinstance(found.loader, InspectLoader)
        return found.loader.get_code(self._target)

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec


class _Moved:
    """A finder of modules by their old names."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        found = MOVED.get(fullname)
        if found is None:
            return None
        warnings.warn(f"{fullname} is now {found}", DeprecationWarning, stacklevel=2)
        return ModuleSpec(fullname, _Alias(found))  # type: ignore[arg-type]


def install() -> None:
    """Make Python search `MOVED` for modules that it finds nowhere else."""
    if not any(isinstance(finder, _Moved) for finder in sys.meta_path):
        sys.meta_path.append(_Moved())
