"""Contexts of locks: whatever interrupts them, the lock is free when the exception is kept."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import dosna as dn
from dosna.io.files import lock_file
from dosna.io.holding import holding

# Also finalizers are interrupted, which can only ignore it.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class Interrupted(BaseException):
    """An interrupt, as by Ctrl-C."""


def interrupted_at(number, work):
    """Do work, and interrupt it where Python looks for signals for the n-th time.

    That is at the beginning of each function, and after each call of a function in C. The result
    is the exception, if there is one, and whether the work has come so far.
    """
    passed = 0

    def look(frame, event, arg):
        nonlocal passed
        if event in ("call", "c_return"):
            passed += 1
            if passed == number:
                sys.setprofile(None)
                raise Interrupted

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        work()
    except Interrupted as error:
        return error, True
    finally:
        sys.setprofile(before)
    return None, passed >= number


def interruptions(work, prepare=lambda: None, step=1):
    """Yield the exceptions of all interruptions of work, or of each `step`-th."""
    number, so_far = 1, True
    while so_far:
        prepare()
        error, so_far = interrupted_at(number, work)
        if error is not None:  # and not within a finalizer, which ignores it
            yield error
        number += step


def is_free(path):
    with lock_file(str(path)).attempt() as free:
        return free


@pytest.mark.parametrize("method", ["hold", "exclusive", "attempt"])
def test_no_interrupt_leaves_a_lock_held(tmp_path, method):
    locks = lock_file(str(tmp_path))
    arguments = (3,) if method == "hold" else ()

    def use():
        with getattr(locks, method)(*arguments):
            len("")

    # The exception is still there: its traceback must not keep the lock.
    found = [is_free(tmp_path) for _ in interruptions(use)]
    assert all(found)
    assert len(found) > 10


@pytest.mark.parametrize("raised", [None, ValueError, StopIteration])
def test_it_passes_on_what_is_raised(raised):
    ended = []

    @holding
    def context(value):
        try:
            yield value
        except KeyError:
            pass
        finally:
            ended.append(value)

    def use(kind):
        with context(3) as value:
            if kind is not None:
                raise kind(value)

    if raised is None:
        use(raised)
    else:
        with pytest.raises(raised, match="3"):
            use(raised)
    use(KeyError)  # which the context suppresses
    assert ended == [3, 3]


@pytest.mark.parametrize("backend", ["file", "hdf5"])
def test_no_interrupt_of_a_write_leaves_a_lock_held(tmp_path, backend):
    with dn.Connection(str(tmp_path), backend=backend) as con:
        ds = con.create_dataset("a", data=np.zeros((4, 3)), chunk_size=(3, 3))

        def write():
            ds[2, 1] = 1

        found = [is_free(tmp_path / "a") for _ in interruptions(write)]
        assert all(found)
        assert len(found) > 50


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["file", "hdf5"])
def test_an_append_that_is_interrupted_has_changed_nothing(tmp_path, backend):
    with dn.Connection(str(tmp_path), backend=backend) as con:
        ds = con.create_dataset("a", data=np.zeros((4, 3)), chunk_size=(3, 3))

        def append():
            ds.append(np.ones((1, 3)))

        def take_back():
            ds.refresh()
            ds.resize((4, 3))

        count = 0
        for _ in interruptions(append, take_back, step=17):
            assert is_free(tmp_path / "a")
            with dn.Connection(str(tmp_path), backend=backend) as other:
                found = other["a"][...]
            # All was done if the interrupt came at the very end.
            assert found.shape in ((4, 3), (5, 3))
            assert (found[4:] == 1).all()
            count += 1
        assert count > 30
