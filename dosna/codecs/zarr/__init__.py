"""Documents of Zarr: ``zarr.json``, its dtypes and attributes, and shards."""

from dosna.codecs.zarr.attributes import attributes_in
from dosna.codecs.zarr.creating import new_array, options_of
from dosna.codecs.zarr.document import (
    array_in,
    check_json,
    dims_of,
    from_json,
    id_of,
    revised,
    revision_of,
    to_json,
)
from dosna.codecs.zarr.groups import (
    GROUP,
    group_attributes,
    node_type,
    with_attributes,
    without_consolidated,
)
from dosna.codecs.zarr.layout import Layout, is_sharded, layout, stored_alike
from dosna.codecs.zarr.parsing import DOCUMENT, VERSION_2

__all__ = [
    "DOCUMENT",
    "GROUP",
    "VERSION_2",
    "Layout",
    "array_in",
    "attributes_in",
    "check_json",
    "dims_of",
    "from_json",
    "group_attributes",
    "id_of",
    "is_sharded",
    "layout",
    "new_array",
    "node_type",
    "options_of",
    "revised",
    "revision_of",
    "stored_alike",
    "to_json",
    "with_attributes",
    "without_consolidated",
]
