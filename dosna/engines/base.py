"""What an engine is: a runner, and little more.

A runner is given *work*, a callable that takes an iterable of tasks, and the tasks. It may
call the work once with all tasks, or many times with some of them each, in threads,
processes or ranks. Tasks are independent of each other: no two touch the same stored object.
"""

from __future__ import annotations

import functools
import pickle
import sys
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeVar

from dosna.core.progress import Progress, reporting
from dosna.errors import WorkerError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
R = TypeVar("R")

Report = Callable[[int], object]
"""Called with the number of tasks that are done."""


class Tasks(Protocol[T_co]):
    """Something to iterate over whose length is known, for instance a `dosna.core.plan.Plan`."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[T_co]: ...


class Runner(ABC):
    """Who does the work. Its constructor's keywords are the engine's ``engine_kw``."""

    shares_memory: ClassVar[bool] = True
    """Whether everything that works for `spread` sees this process's memory. An instance
    may override it."""

    def __init__(self) -> None:
        self.threads = 1
        """How many threads `map` may use; 1 runs in the caller's own."""
        self.workers = 1
        """How many tasks `spread` works on at the same time in this process's charge."""

    @property
    def params(self) -> Mapping[str, Any]:
        """The keywords that would make this runner again."""
        return {}

    @abstractmethod
    def map(self, work: Callable[[Iterable[T]], R], tasks: Tasks[T]) -> list[R]:
        """Do this process's own request; `work` may write straight into shared arrays."""

    @abstractmethod
    def spread(
        self,
        work: Callable[[Iterable[T]], R],
        tasks: Tasks[T],
        *,
        workers: int | None = None,
        travels: bool = True,
        report: Report | None = None,
    ) -> list[R]:
        """Share tasks out over all workers and know at the end that all succeeded.

        Parameters
        ----------
        work : callable
        tasks : sized iterable
        workers : int, optional
            At most so many tasks at the same time, to stay within a memory limit.
        travels : bool
            False if `work` cannot be sent to another process: it holds a file, or an array
            that would have to be copied whole. It then runs in this process's threads.
        report : callable, optional
            Called in the caller's thread with the number of tasks done so far.

        Returns
        -------
        list
            What `work` returned for each of the parts, in no particular order.
        """

    def agree(self, what: str, *arguments: Any) -> None:  # noqa: B027  one process agrees with itself
        """Make sure that all processes are about to do the same, with the same arguments.

        Raises
        ------
        dosna.errors.CollectiveError
            On all of them, if they are not.
        """

    def once(self, func: Callable[[], R]) -> R:
        """Let one process do it; all see its result, or all raise its error."""
        return func()

    def reporting(
        self, progress: Progress, total: int, what: str, unit: str = "chunk"
    ) -> AbstractContextManager[Report | None]:
        """Open what shows progress; see `dosna.core.progress.reporting`."""
        return reporting(progress, total, what, unit)

    def __reduce__(self) -> tuple[Any, ...]:
        # Pools and locks stay here; the other side makes its own.
        return _make, (type(self), dict(self.params))


F = TypeVar("F", bound=Callable[..., Any])


def collective(method: F) -> F:
    """Mark a method that all processes call, of an object with `runner` and `identity`.

    What follows in the method may then rely on equal arguments: whatever it refuses, it
    refuses everywhere. Only `progress` may differ, since one process reports it for all.
    """

    @functools.wraps(method)
    def agreed(self: Any, *args: Any, **kwargs: Any) -> Any:
        shared = {name: value for name, value in kwargs.items() if name != "progress"}
        self.runner.agree(method.__name__, self.identity, args, shared)
        return method(self, *args, **kwargs)

    return agreed  # type: ignore[return-value]


def _make(cls: Callable[..., Runner], params: Mapping[str, Any]) -> Runner:
    return cls(**params)


def reported(tasks: Iterable[T], report: Report) -> Iterator[T]:
    """Hand tasks on, and report each one as done when the next is asked for."""
    for done, task in enumerate(tasks, 1):
        yield task
        report(done)


def pack_error(error: BaseException, where: str = "In a worker") -> bytes:
    """Pickle an exception with the text of its traceback, whatever it is made of.

    What comes out of `unpack_error` is of the same type and text where that can be done at
    all, and a `WorkerError` with the type's name otherwise.
    """
    kind, text = type(error), "".join(traceback.format_exception(error))
    note = f"{where}:\n{text}"
    notes = [*getattr(error, "__notes__", []), note]
    forms = [
        _Described(kind, (), dict(error.__dict__, __notes__=notes), error),
        _Described(kind, error.args, {"__notes__": notes}),
        _Described(kind, (str(error),), {"__notes__": notes}),
    ]
    for form in forms:
        for dumps in _picklers():
            try:
                packed = dumps(form)
                if type(pickle.loads(packed)) is kind:
                    return pickle.dumps((packed, f"{kind.__qualname__}: {error}\n{note}"))
            except Exception:
                continue
    return pickle.dumps((None, f"{kind.__qualname__}: {error}\n{note}"))


def unpack_error(packed: bytes) -> BaseException:
    """Give the exception that `pack_error` packed, perhaps in another process."""
    inner, text = pickle.loads(packed)
    if inner is not None:
        # Its class may be one that only the other process can import.
        with suppress(Exception):
            error: BaseException = pickle.loads(inner)
            return error
    return WorkerError(text)


class _Described:
    """An exception by its parts; unpickles as the exception."""

    def __init__(
        self,
        kind: type[BaseException],
        args: tuple[Any, ...],
        state: dict[str, Any],
        error: BaseException | None = None,
    ) -> None:
        self.parts = (kind, args, state, error)

    def __reduce__(self) -> tuple[Any, ...]:
        return _described, self.parts


def _described(
    kind: type[BaseException],
    args: tuple[Any, ...],
    state: dict[str, Any],
    error: BaseException | None,
) -> BaseException:
    # Not by calling the type: its constructor may ask for other arguments.
    made = kind.__new__(kind) if error is None else error
    if error is None:
        made.args = args
    made.__dict__.update(state)
    return made


def _picklers() -> Iterator[Callable[[Any], bytes]]:
    yield pickle.dumps
    # Types of a function or a script; here only where an engine has loaded it anyway.
    cloudpickle = sys.modules.get("cloudpickle")
    if cloudpickle is not None:
        yield cloudpickle.dumps


@dataclass(frozen=True)
class Engine:
    """An engine: who does the work.

    Parameters
    ----------
    name : str
        In lower case.
    runner : type
        Its runner class; `params` are the keywords of its constructor.
    connection : type or str, optional
        A subclass of `dosna.Connection`, for an engine that wraps in its own way; or where it
        is, as ``module:attribute``.
    description, url : str
    params : mapping
        The keywords chosen by ``engine_kw``; empty for the engine's defaults.
    """

    name: str
    runner: type[Runner]
    connection: type | str | None = None
    description: str = ""
    url: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
