"""What an ingest has done."""

from __future__ import annotations

from dataclasses import dataclass, field

from dosna.core.names import printable

__all__ = ["IngestReport"]


@dataclass
class IngestReport:
    """What `Connection.ingest` or `Connection.link` has done.

    Parameters
    ----------
    source : str
    made : list of str
        Names of datasets that are now complete.
    resumed : list of str
        Those of them that an interrupted ingest had begun.
    present : list of str
        Names of datasets that an earlier ingest of the same source had completed.
    linked : list of str
        Those of `made` and `present` whose data stay where they are.
    skipped : dict of str to str
        Names of arrays that were left out, and why; also of groups, with a '/' at the end, whose
        attributes were.
    links : dict of str to str
        Further names that the source has for an array, each with the dataset's.
    notes : dict of str to list of str
        What was converted, by dataset.
    nbytes : int
        Bytes of the elements of `made`, but for those that are linked.
    """

    source: str
    made: list[str] = field(default_factory=list)
    resumed: list[str] = field(default_factory=list)
    present: list[str] = field(default_factory=list)
    linked: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    nbytes: int = 0

    def __str__(self) -> str:
        lines = [f"{self.source}: {len(self.made)} datasets, {self.nbytes} bytes"]
        if self.resumed:
            lines[0] += f", {len(self.resumed)} of them begun before"
        if self.present:
            lines[0] += f", and {len(self.present)} were there"
        if self.linked:
            lines[0] += f", {len(self.linked)} linked"
        lines += [printable(f"skipped {name}: {why}") for name, why in self.skipped.items()]
        return "\n".join(lines)
