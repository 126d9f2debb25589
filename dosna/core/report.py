"""Reports of ingests."""

from __future__ import annotations

from dataclasses import dataclass, field

from dosna.core.names import printable

__all__ = ["IngestReport"]


@dataclass
class IngestReport:
    """The result of `Connection.ingest` or `Connection.link`.

    Parameters
    ----------
    source : str
        The location of the source.
    made : list of str
        The names of the datasets that this call completed.
    resumed : list of str
        The names in `made` of datasets that an interrupted ingest had begun.
    present : list of str
        The names of the datasets that an earlier ingest of the same source had completed.
    linked : list of str
        The names in `made` and `present` of datasets whose data stay in the source.
    skipped : dict of str to str
        The reason for each array that was left out, by name. Names that end in '/' are groups
        whose attributes were left out.
    links : dict of str to str
        Further names of arrays in the source, each with the name of the dataset.
    notes : dict of str to list of str
        The conversions that were made, by dataset.
    nbytes : int
        The bytes of the elements of `made`, without linked datasets.
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
