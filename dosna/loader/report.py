"""The state of the loader's work, for people and for programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dosna.core.sizes import format_size
from dosna.loader.inventory import Counts, Inventory, Row
from dosna.loader.inventory.tables import DIFFERENT, DONE, FAILED, NOT_YET, PENDING, RUNNING

__all__ = ["Status"]

_STATES = (PENDING, RUNNING, DONE, FAILED)


@dataclass(frozen=True)
class Status:
    """The state of an inventory at a moment.

    Parameters
    ----------
    counts : Counts
        The numbers of files by state, and the rates.
    failures : list of Row
        The files that failed or differ, up to the number asked for.
    running : list of Row
        The files that workers have now, up to the number asked for.
    """

    counts: Counts
    failures: list[Row]
    running: list[Row]

    @classmethod
    def of(cls, inventory: Inventory, most: int | None = 10) -> Status:
        """Return the state of an inventory, with at most `most` rows in each list."""
        failures = [*inventory.rows(FAILED, most), *inventory.rows(DIFFERENT, most)]
        return cls(inventory.counts(), failures[:most], inventory.rows(RUNNING, most))

    @property
    def failed(self) -> int:
        """The number of files that failed or differ."""
        found = self.counts
        return found.load.get(FAILED, 0) + found.diff.get(FAILED, 0) + found.diff.get(DIFFERENT, 0)

    @property
    def seconds_left(self) -> float | None:
        """The time that loading will take at the rate of the last minute; None if that is 0."""
        left = sum(self.counts.load.get(state, 0) for state in (PENDING, RUNNING))
        if not left:
            return 0.0
        return left / self.counts.rate if self.counts.rate else None

    def to_json(self) -> dict[str, Any]:
        """Return the state as values of JSON, for programs."""
        counts = self.counts
        return {
            "files": counts.files,
            "bytes": counts.nbytes,
            "bytes_loaded": counts.nbytes_loaded,
            "load": {state: counts.load.get(state, 0) for state in _STATES},
            "diff": {state: counts.diff.get(state, 0) for state in (NOT_YET, *_STATES, DIFFERENT)},
            "files_per_second": counts.rate,
            "verified_per_second": counts.diff_rate,
            "seconds_left": self.seconds_left,
            "failures": [
                {
                    "key": row.key,
                    "phase": _phase(row),
                    "status": row.diff_status if _phase(row) == "diff" else row.load_status,
                    "attempts": row.diff_attempts if _phase(row) == "diff" else row.load_attempts,
                    "message": row.message,
                }
                for row in self.failures
            ],
            "running": [
                {"key": row.key, "load": row.load_worker, "diff": row.diff_worker}
                for row in self.running
            ],
        }

    def __str__(self) -> str:
        counts = self.counts
        rows = [["", "waiting", "at work", "done", "failed", "different", "files/s"]]
        for name, found, rate in (
            ("load", counts.load, counts.rate),
            ("diff", counts.diff, counts.diff_rate),
        ):
            waiting = found.get(PENDING, 0) + found.get(NOT_YET, 0)
            numbers = [waiting, *(found.get(s, 0) for s in (RUNNING, DONE, FAILED))]
            other = str(found.get(DIFFERENT, 0)) if name == "diff" else "-"
            rows.append([name, *map(str, numbers), other, f"{rate:.1f}"])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.rjust, row, widths)).rstrip() for row in rows]
        loaded = f"{format_size(counts.nbytes_loaded)} of {format_size(counts.nbytes)}"
        lines.append(f"{counts.files} files, {loaded} loaded{self._left()}")
        lines += [f"at work: {row.key}" for row in self.running]
        lines += [f"{_phase(row)} failed: {row.key}: {row.message}" for row in self.failures]
        if self.failed > len(self.failures):
            lines.append(f"and {self.failed - len(self.failures)} more")
        return "\n".join(lines)

    def _left(self) -> str:
        seconds = self.seconds_left
        if not seconds:
            return "" if seconds is None else ", none left"
        hours, rest = divmod(round(seconds), 3600)
        return f", {hours}:{rest // 60:02}:{rest % 60:02} left"


def _phase(row: Row) -> str:
    return "load" if row.load_status == FAILED else "diff"
