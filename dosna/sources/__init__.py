"""Where data come from: files and services whose arrays become datasets.

`open_source` opens one by its path, its URL or an open object of its own library, and
`Connection.ingest` makes datasets of what it holds. A new kind of source is a subclass of
`Source`, registered by the entry point ``dosna.sources``.
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
