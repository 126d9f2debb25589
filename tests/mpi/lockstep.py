"""An engine under which the ranks run a test as if they were one, the conformance kit above all.

It is mpi, but what is local there is common here. One rank makes a change, each time another
one, and all have its outcome. All ranks read, and must read the same. So a test goes the same
way everywhere, also where something fails, and each change is seen by those who did not make it.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
from conftest import WORLD, together

from dosna.array.dataset import EngineDataset
from dosna.array.ranks import MpiConnection, MpiDataset
from dosna.engines import Engine
from dosna.engines import registry as engines
from dosna.engines.base import pack_error, unpack_error
from dosna.engines.mpi.runner import MpiRunner

NAME = "lockstep"

_turn = 0
_inside = False


def _by_itself() -> bool:
    """Whether a call is part of another one, or of what ranks do apart: work, and threads."""
    return (
        WORLD.size == 1
        or _inside
        or MpiRunner._working is not None
        or threading.current_thread() is not threading.main_thread()
    )


def _outcome(call: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    global _inside
    _inside = True
    try:
        return call(), None
    except Exception as error:
        return None, error
    finally:
        _inside = False


def in_turn(method: Any) -> Any:
    """Let one rank do it for all."""

    @wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        global _turn
        if _by_itself():
            return method(self, *args, **kwargs)
        together()
        _turn = (_turn + 1) % WORLD.size
        result, packed = None, None
        if WORLD.rank == _turn:
            result, error = _outcome(lambda: method(self, *args, **kwargs))
            packed = None if error is None else pack_error(error, f"On rank {_turn}")
        result, packed = WORLD.bcast((result, packed), _turn)
        if packed is not None:
            raise unpack_error(packed)
        return result

    return call


def by_all(method: Any) -> Any:
    """Let all ranks do it, and fail everywhere where they find different things."""

    @wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        if _by_itself():
            return method(self, *args, **kwargs)
        result, error = _outcome(lambda: method(self, *args, **kwargs))
        found = together(_digest(result) if error is None else type(error).__qualname__)
        if len(set(found)) > 1:
            shown = together(f"{error!r}" if error else f"{result!r}")
            raise AssertionError(
                f"{method.__name__}{args} differs:\n"
                + "\n".join(f"rank {rank}: {text}" for rank, text in enumerate(shown))
            ) from error
        if error is not None:
            raise error
        return result

    return call


def _digest(result: Any) -> str:
    if isinstance(result, (np.ndarray, np.generic)):
        # The bytes of texts and objects are where they lie in this rank's memory.
        raw = repr(result.tolist()).encode() if result.dtype.hasobject else result.tobytes()
        digest = hashlib.sha256(raw).hexdigest()
        return f"{type(result).__name__} {result.dtype} {result.shape} {digest}"
    return repr(result.identity if isinstance(result, EngineDataset) else result)


class LockstepRunner(MpiRunner):
    def agree(self, what: str, *arguments: Any) -> None:
        if not _by_itself():
            together()
        super().agree(what, *arguments)


class LockstepDataset(MpiDataset):
    __getitem__ = by_all(MpiDataset.__getitem__)
    read = by_all(MpiDataset.read)
    read_chunk = by_all(MpiDataset.read_chunk)
    has_chunk = by_all(MpiDataset.has_chunk)
    written_chunks = by_all(MpiDataset.written_chunks)

    __setitem__ = in_turn(MpiDataset.__setitem__)
    write_chunk = in_turn(MpiDataset.write_chunk)
    del_chunk = in_turn(MpiDataset.del_chunk)


class LockstepConnection(MpiConnection):
    dataset_class = LockstepDataset

    get_dataset = by_all(MpiConnection.get_dataset)
    has_dataset = by_all(MpiConnection.has_dataset)
    __len__ = by_all(MpiConnection.__len__)

    def __iter__(self) -> Any:
        return iter(self._names())

    @by_all
    def _names(self) -> list[str]:
        return list(super().__iter__())


engines.register(Engine(NAME, LockstepRunner, LockstepConnection))
