"""The language of queries: one tree of expressions, whatever it was written in.

`parse` reads text, `bind` checks a tree against the columns that there are, `evaluate` computes it
on arrays, and `bounds` tells from least and greatest values what it can be.
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
