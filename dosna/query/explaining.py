"""Explanations of queries: what they would read, and where each condition is evaluated."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dosna.core.sizes import format_size
from dosna.query.branches import BranchColumn
from dosna.query.expressions import Bound
from dosna.query.planning import plan_pieces
from dosna.query.pushdown import pushed
from dosna.query.zones import Judge

if TYPE_CHECKING:
    from dosna.query.query import Query

__all__ = ["Explanation", "explain"]


@dataclass(frozen=True)
class Explanation:
    """An explanation of what a query would read. Its ``str`` is a summary to be printed.

    Of an array, the entries are its elements, the ranges its stored objects, and what zones tell
    of branches is known of the coordinates of each object.

    Parameters
    ----------
    entries : int
        The number of entries of the range.
    ranges : int
        The number of ranges of entries, along the chunks.
    pruned : int
        The number of ranges that zones rule out, and that are not read.
    certain : int
        The number of ranges in which, according to the zones, all entries satisfy the condition.
    chunks : int
        The number of chunks of the columns in the range of entries.
    read : int
        The maximum number of chunks that are read. Chunks of the columns of the result are read
        only where entries satisfy the condition.
    nbytes : int
        The bytes of these chunks after decoding.
    conditions : tuple of (str, str, str)
        Each condition, where it is evaluated, and what is known about its columns.
    """

    entries: int
    ranges: int
    pruned: int
    certain: int
    chunks: int
    read: int
    nbytes: int
    conditions: tuple[tuple[str, str, str], ...]

    def __str__(self) -> str:
        lines = [
            f"entries: {self.entries} in {self.ranges} ranges",
            f"ruled out without reading: {self.pruned} ranges; certain: {self.certain}",
            f"chunks: {self.chunks}, of which at most {self.read} are read "
            f"({format_size(self.nbytes)})",
        ]
        lines += [
            f"condition: {text} [{where}; {zones}]" for text, where, zones in self.conditions
        ]
        return "\n".join(lines)


def explain(query: Query) -> Explanation:
    """Run `Query.explain`."""
    columns = query.open()
    judge = Judge(columns, query.tests)
    ranges = query.ranges(columns)
    pieces = list(plan_pieces(ranges, judge, query.tests))
    share = (query.stop - query.start) / max(1, query.tree.entries)
    chunks = nbytes = read = 0
    for name, column in columns.items():
        count = column.chunks * share
        needed = [
            piece
            for piece in pieces
            if any(name in query.tests[number].columns for number in piece.tests)
            or any(name in output.columns for output in query.outputs)
        ]
        part = sum(p.stop - p.start for p in needed) / max(1, query.stop - query.start)
        chunks += round(count)
        read += math.ceil(count * part)
        nbytes += round(column.nbytes * share * part)
    return Explanation(
        query.stop - query.start,
        len(ranges),
        len(ranges) - len(pieces),
        sum(not piece.tests for piece in pieces) if query.tests else 0,
        chunks,
        read,
        nbytes,
        tuple(
            (str(test.expr), where(columns, test), known(judge, test.columns))
            for test in query.tests
        ),
    )


def where(columns: dict[str, BranchColumn], test: Bound) -> str:
    """Return where a condition is evaluated."""
    return "computed here" if pushed(test, columns) is None else "computed by the store"


def known(judge: Judge, names: frozenset[str]) -> str:
    """Return which of some columns have zones."""
    have = sorted(names & judge.zones.keys())
    return f"zones of {', '.join(have)}" if have else "no zones"
