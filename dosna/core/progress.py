"""Progress of long operations: a callback, or a bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dosna.errors import MissingDependencyError

Progress = bool | Callable[[int, int], object] | None
"""None or False for no report, True for a tqdm bar, or a callback ``(done, total)`` in chunks."""


@contextmanager
def reporting(
    progress: Progress, total: int, what: str, unit: str = "chunk"
) -> Iterator[Callable[[int], None] | None]:
    """Yield a function that takes the number of units done, or None if no progress is reported.

    Raises
    ------
    MissingDependencyError
        `progress` is True and tqdm is not installed.
    TypeError
        `progress` is neither a flag nor callable.
    """
    if progress is None or progress is False:
        yield None
    elif progress is True:
        try:
            from tqdm.auto import tqdm
        except ImportError as error:
            raise MissingDependencyError(
                "progress=True draws its bar with tqdm: pip install 'dosna[progress]', "
                "or pass a callback (done, total)"
            ) from error
        with tqdm(total=total, desc=what, unit=unit, unit_scale=unit == "B") as bar:
            yield lambda done: bar.update(done - bar.n) and None
            bar.update(total - bar.n)
    elif callable(progress):
        tell = progress
        last = -1

        def report(done: int) -> None:
            nonlocal last
            if done != last:
                last = done
                tell(done, total)

        report(0)
        yield report
        report(total)
    else:
        raise TypeError(f"progress is True or a callback (done, total), not {progress!r}")


def share_of(
    report: Callable[[int], object] | None, done: int, share: int
) -> Callable[[int, int], None] | None:
    """Return a callback that converts the progress of a part into that of the whole.

    Parameters
    ----------
    report : callable or None
        A function of the number of units done, of the whole.
    done, share : int
        The units that were done before, and those of the part.

    Returns
    -------
    callable or None
        A callback ``(done, total)`` in any unit of the part; None if there is no `report`.
    """
    if report is None:
        return None

    def of_part(part: int, total: int) -> None:
        report(done + (share * part // total if total else 0))

    return of_part
