"""Queries in other languages, translated to expressions of dosna."""

from dosna.query.expressions.doors.arrow import from_pyarrow
from dosna.query.expressions.doors.foreign import Translated
from dosna.query.expressions.doors.polars import from_polars
from dosna.query.expressions.doors.skyhook import SkyhookQuery, from_skyhook
from dosna.query.expressions.doors.uproot import from_uproot

__all__ = [
    "SkyhookQuery",
    "Translated",
    "from_polars",
    "from_pyarrow",
    "from_skyhook",
    "from_uproot",
]
