"""The engine of one thread: the caller's."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from dosna.engines.base import Engine, R, Report, Runner, T, Tasks, reported


class CpuRunner(Runner):
    """A runner that works in the caller's thread."""

    def map(self, work: Callable[[Iterable[T]], R], tasks: Tasks[T]) -> list[R]:
        return [work(tasks)]

    def spread(
        self,
        work: Callable[[Iterable[T]], R],
        tasks: Tasks[T],
        *,
        workers: int | None = None,
        picklable: bool = True,
        report: Report | None = None,
    ) -> list[R]:
        return [work(tasks if report is None else reported(tasks, report))]


ENGINE = Engine(name="cpu", runner=CpuRunner, description="one thread, the caller's")
