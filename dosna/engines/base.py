"""The interface of an engine: a runner, and little more.

A runner is given *work*, a callable that takes an iterable of tasks, and the tasks. It may call
the work once with all tasks, or many times with some of them each, in threads, processes or
ranks. Tasks are independent of each other: no two touch the same stored object.
"""

from __future__ import annotations

import functools
import inspect
import pickle
import sys
import traceback
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from dosna.core.progress import Progress, reporting
from dosna.errors import DosnaError, OutcomeUnknown, WorkerError
from dosna.io.parallel import call_in_callers_thread

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
R = TypeVar("R")

_NAMED = 20

Report = Callable[[int], object]
"""A function that is called with the number of tasks that are done."""


class Tasks(Protocol[T_co]):
    """An iterable whose length is known, for instance a `dosna.core.plan.Plan`."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[T_co]: ...


class Runner(ABC):
    """The part of an engine that does the work.

    The keywords of its constructor are the engine's ``engine_kw``.
    """

    shares_memory: ClassVar[bool] = True
    """True if all workers of `spread` see this process's memory. An instance may override it."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        own = cls.__dict__.get("spread")
        if own is not None and "travels" in inspect.signature(own).parameters:
            warnings.warn(
                f"{cls.__name__}.spread has the parameter 'travels', which is now 'picklable'",
                DeprecationWarning,
                stacklevel=2,
            )

            def spread(self: Runner, *args: Any, picklable: bool = True, **others: Any) -> Any:
                return own(self, *args, travels=picklable, **others)

            cls.spread = spread  # type: ignore[method-assign]

    def __init__(self) -> None:
        self.threads = 1
        """The number of threads that `map` may use; 1 runs in the caller's own."""
        self.workers = 1
        """The number of tasks that `spread` works on at the same time for this process."""

    @property
    def sharers(self) -> int:
        """The number of tasks at the same time that share a memory limit."""
        return self.workers

    @property
    def params(self) -> Mapping[str, Any]:
        """The keywords that would make this runner again."""
        return {}

    @abstractmethod
    def map(self, work: Callable[[Iterable[T]], R], tasks: Tasks[T]) -> list[R]:
        """Do this process's own request; `work` may write straight into shared arrays.

        Parameters
        ----------
        work : callable
            A function that takes an iterable of tasks.
        tasks : sized iterable
            The tasks.

        Returns
        -------
        list
            The results of `work` for each of the parts.
        """

    @abstractmethod
    def spread(
        self,
        work: Callable[[Iterable[T]], R],
        tasks: Tasks[T],
        *,
        workers: int | None = None,
        picklable: bool = True,
        report: Report | None = None,
    ) -> list[R]:
        """Share tasks out over all workers, and return when all have succeeded.

        Parameters
        ----------
        work : callable
            A function that takes an iterable of tasks. If its attribute `repeatable` is False, no
            task may run twice; see `outcome_unknown`.
        tasks : sized iterable
            The tasks.
        workers : int, optional
            The most tasks at the same time in one process, to stay within a memory limit.
        picklable : bool
            False if `work` cannot be sent to another process: it holds a file, or an array that
            would have to be copied whole. It then runs in this process's threads.
        report : callable, optional
            A function that is called in the caller's thread with the number of tasks done so far.

        Returns
        -------
        list
            The results of `work` for each of the parts, in no particular order.

        Raises
        ------
        OutcomeUnknown
            A worker process was lost within work that is not repeatable.
        WorkerError
            A worker process was lost within other work.
        """

    def agree(self, what: str, *arguments: Any) -> None:  # noqa: B027  one process agrees with itself
        """Check that all processes are about to do the same, with the same arguments.

        Parameters
        ----------
        what : str
            The name of the call.
        *arguments
            The arguments of the call.

        Raises
        ------
        dosna.errors.CollectiveError
            The processes differ. All of them raise it.
        """

    def once(self, func: Callable[[], R]) -> R:
        """Run a function in one process; all processes return its result, or raise its error.

        Parameters
        ----------
        func : callable
            The function, without arguments.

        Returns
        -------
        object
            The result of `func`.
        """
        return func()

    def reporting(
        self, progress: Progress, total: int, what: str, unit: str = "chunk"
    ) -> AbstractContextManager[Report | None]:
        """Open a display of progress; see `dosna.core.progress.reporting`.

        Parameters
        ----------
        progress : bool or callable, optional
            True for a progress bar, or a callback ``(done, total)``.
        total : int
            The number of units.
        what : str
            The name of the work.
        unit : str
            The name of a unit.

        Returns
        -------
        context manager
            Its value is a function that takes the number of units done, or None.
        """
        return reporting(progress, total, what, unit)

    def __reduce__(self) -> tuple[Any, ...]:
        # Pools and locks stay here; the other side makes its own.
        return _make, (type(self), dict(self.params))


F = TypeVar("F", bound=Callable[..., Any])


def collective(method: F) -> F:
    """Mark a method that all processes call, of an object with `runner` and `identity`.

    What follows in the method may then rely on equal arguments: if it refuses something, it
    refuses it in all processes. Only `progress` may differ, because one process reports it for
    all.
    """

    @functools.wraps(method)
    def agreed(self: Any, *args: Any, **kwargs: Any) -> Any:
        shared = {name: value for name, value in kwargs.items() if name != "progress"}
        self.runner.agree(method.__name__, self.identity, args, shared)
        return method(self, *args, **kwargs)

    return agreed  # type: ignore[return-value]


def _make(cls: Callable[..., Runner], params: Mapping[str, Any]) -> Runner:
    return cls(**params)


class Reported(Generic[T]):
    """Tasks, each of which is reported as done when the next is asked for.

    Parameters
    ----------
    tasks : iterable
        The tasks.
    report : callable
        A function that is called with the number of tasks done, in the caller's thread also where
        a store takes the tasks in threads of its own.

    Attributes
    ----------
    ahead : int
        The number of tasks that were asked for and are not done. Work that asks for some before it
        has done others sets it.
    """

    def __init__(self, tasks: Iterable[T], report: Report) -> None:
        self._tasks, self._report = tasks, report
        self.ahead = 0

    def __iter__(self) -> Iterator[T]:
        for number, task in enumerate(self._tasks, 1):
            yield task
            call_in_callers_thread(functools.partial(self._report, number - self.ahead))


def reported(tasks: Iterable[T], report: Report) -> Reported[T]:
    """Return tasks that are reported as done one after the other."""
    return Reported(tasks, report)


def outcome_unknown(
    work: Callable[..., Any], lost: Iterable[Any], left: Iterable[Any]
) -> OutcomeUnknown:
    """Return the error for work that must not happen twice and whose workers were lost.

    Such work has the attribute `repeatable`, which is False, and a method ``chunks_of(tasks)``.

    Parameters
    ----------
    work : callable
        The work.
    lost : iterable
        The tasks that may have been done or not.
    left : iterable
        The tasks that were not begun.

    Returns
    -------
    OutcomeUnknown
        The error, which names the chunks.
    """
    name = getattr(work, "chunks_of", list)
    chunks, untouched = sorted(name(lost)), sorted(name(left))
    shown = ", ".join(map(str, chunks[:_NAMED])) + (", …" if len(chunks) > _NAMED else "")
    rest = "All others were changed"
    if untouched:
        rest = f"{len(untouched)} others were not begun (`untouched` of this error names them)"
    error = OutcomeUnknown(
        f"workers were lost while they changed chunks, of which {len(chunks)} may have been "
        f"changed or not (`chunks` of this error names them): {shown}. {rest}. Look at the values "
        "before changing them again"
    )
    error.chunks, error.untouched = tuple(chunks), tuple(untouched)
    return error


def pack_work(work: Callable[..., Any]) -> bytes:
    """Pickle work for other processes.

    Raises
    ------
    TypeError
        The user's function, or what it refers to, cannot be pickled.
    """
    import cloudpickle

    try:
        packed: bytes = cloudpickle.dumps(work)
    except DosnaError:
        raise
    except Exception as error:
        raise TypeError(
            f"cannot send the function to other processes: {error}. Make locks, open files and "
            "connections of other libraries within the function, or use the engine cpu"
        ) from error
    return packed


def pack_error(error: BaseException, where: str = "In a worker") -> bytes:
    """Pickle an exception with the text of its traceback, whatever it is made of.

    The result of `unpack_error` is of the same type and text where that is possible, and a
    `WorkerError` with the type's name otherwise.

    Parameters
    ----------
    error : BaseException
        The exception.
    where : str
        The place of the error, which begins the note with the traceback.

    Returns
    -------
    bytes
        The pickle, for `unpack_error`.
    """
    kind, text = type(error), "".join(traceback.format_exception(error))
    note, told = f"{where}:\n{text}", text_of(error)
    others = getattr(error, "__notes__", [])
    notes = [*(others if isinstance(others, list) else [others]), note]
    forms = [
        _Described(kind, (), dict(error.__dict__, __notes__=notes), error),
        _Described(kind, error.args, {"__notes__": notes}),
        _Described(kind, (told,), {"__notes__": notes}),
    ]
    for form in forms:
        for dumps in _picklers():
            try:
                packed = dumps(form)
                if type(pickle.loads(packed)) is kind:
                    return pickle.dumps((packed, f"{kind.__qualname__}: {told}\n{note}"))
            except Exception:
                continue
    return pickle.dumps((None, f"{kind.__qualname__}: {told}\n{note}"))


def text_of(error: BaseException) -> str:
    """Return the text of an exception, also of one that fails to tell its own."""
    try:
        return str(error)
    except Exception as failed:
        return f"(its text is not known: {type(failed).__name__})"


def unpack_error(packed: bytes) -> BaseException:
    """Return the exception that `pack_error` packed, perhaps in another process."""
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
    # The type is not called: its constructor may require other arguments.
    made = kind.__new__(kind) if error is None else error
    if error is None:
        made.args = args
    made.__dict__.update(state)
    return made


def _picklers() -> Iterator[Callable[[Any], bytes]]:
    yield pickle.dumps
    # For types defined in a function or a script; used only if an engine has loaded it anyway.
    cloudpickle = sys.modules.get("cloudpickle")
    if cloudpickle is not None:
        yield cloudpickle.dumps


@dataclass(frozen=True)
class Engine:
    """An engine, which does the work of connections.

    Parameters
    ----------
    name : str
        The name, in lower case.
    runner : type
        The class of the runner; `params` are the keywords of its constructor.
    connection : type or str, optional
        A subclass of `dosna.Connection`, for an engine that wraps connections in its own way; or
        its place, as ``module:attribute``.
    description, url : str
        A short description, and the address of its documentation.
    params : mapping
        The keywords chosen by ``engine_kw``; empty for the engine's defaults.
    """

    name: str
    runner: type[Runner]
    connection: type | str | None = None
    description: str = ""
    url: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
