"""Sources of data: files and services whose arrays become datasets.

`open_source` opens a source by its path, its URL or an open object of its own library, and
`Connection.ingest` makes datasets of its arrays. A new kind of source is a subclass of `Source`,
registered by the entry point ``dosna.sources``.
"""

from dosna.sources.base import ArrayDescription, Source, SourceArray, Stream
from dosna.sources.kinds import Claims, SourceKind, registry
from dosna.sources.opening import open_source

__all__ = [
    "ArrayDescription",
    "Claims",
    "Source",
    "SourceArray",
    "SourceKind",
    "Stream",
    "open_source",
    "registry",
]
