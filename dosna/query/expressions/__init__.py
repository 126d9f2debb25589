"""The language of queries: one tree of expressions for text and for filters of other programs.

`parse` reads text, `bind` checks a tree against the existing columns, `evaluate` computes it on
arrays, and `bounds` derives from minima and maxima which values it can have.
"""

from dosna.query.expressions.binding import Bound, bind, bind_condition, bind_projection
from dosna.query.expressions.nodes import Expr
from dosna.query.expressions.parsing import Output, parse, parse_projection
from dosna.query.expressions.running import evaluate, evaluate_mask
from dosna.query.expressions.values import Lists, Masked
from dosna.query.expressions.zones import Zone, bounds

__all__ = [
    "Bound",
    "Expr",
    "Lists",
    "Masked",
    "Output",
    "Zone",
    "bind",
    "bind_condition",
    "bind_projection",
    "bounds",
    "evaluate",
    "evaluate_mask",
    "parse",
    "parse_projection",
]
