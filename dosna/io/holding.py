"""Contexts of locks that Ctrl-C cannot leave held.

An interrupt may come between the end of a block and the first line of the function that releases
the lock. With `contextlib.contextmanager`, its traceback then keeps the generator, and thus the
lock, for as long as somebody keeps the exception: the rest of the call, which has to tidy up, or a
notebook, which keeps the last one. All others wait for that lock.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar, cast

__all__ = ["holding"]

P = ParamSpec("P")
T = TypeVar("T")


def holding(
    function: Callable[P, Iterator[T]],
) -> Callable[P, AbstractContextManager[T, bool | None]]:
    """Make a context of a generator, as `contextlib.contextmanager` does.

    Whatever interrupts the beginning or the end of the block, the generator has ended when the
    exception leaves the ``with`` statement. This does not hold for an `ExitStack`.

    Parameters
    ----------
    function : callable
        A function that takes a lock, yields once, and releases the lock in a ``finally``.

    Returns
    -------
    callable
        A function that returns the context.
    """

    @wraps(function)
    def make(*args: P.args, **kwargs: P.kwargs) -> AbstractContextManager[T, bool | None]:
        made = _Holding(function(*args, **kwargs))
        return cast("AbstractContextManager[T, bool | None]", made)

    return make


class _Holding:
    """A context that only the ``with`` statement refers to while its block ends."""

    def __init__(self, steps: Any) -> None:
        self.steps = steps
        self.inner = contextmanager(lambda: steps)()

    def __enter__(self) -> Any:
        try:
            return self.inner.__enter__()
        except BaseException:
            self.steps.close()  # An interrupt may come after the lock was taken.
            raise

    @property
    def __exit__(self) -> Callable[..., bool | None]:
        # The function is given no strong reference: an interrupt before its first line keeps its
        # arguments. The statement drops this object then, and with it the generator.
        leave: Any = partial(_leave, weakref.ref(self))
        leave.holding = self
        return leave  # type: ignore[no-any-return]


def _leave(holding: weakref.ref[_Holding], *raised: Any) -> bool | None:
    try:
        return holding().inner.__exit__(*raised)  # type: ignore[union-attr]
    except BaseException:
        holding().steps.close()  # type: ignore[union-attr]
        raise
