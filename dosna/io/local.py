"""Local files."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from dosna.errors import SourceChangedError, SourceError
from dosna.errors import SourceNotFoundError as NotFound
from dosna.io.bytefile import ByteFile
from dosna.io.locks import Descriptor, open_descriptor

__all__ = ["LocalFile", "local_fingerprint"]

_COMPARED = 256
"""The most reads after which the file is compared with its pinned state."""


class _Later(threading.local):
    """The file that this thread compares with its pinned state after several reads."""

    file: LocalFile | None = None


_later = _Later()


class LocalFile(ByteFile):
    """A local file.

    Parameters
    ----------
    path : str
        The path of the file.
    """

    def __init__(self, path: str) -> None:
        self.location = path
        self._file: Descriptor | None = None
        self._pinned: str | None = None
        self._seen: tuple[Any, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None, "_seen": ()}

    def pin(self, fingerprint: str) -> None:
        self._pinned = fingerprint

    def _opened(self) -> Descriptor:
        file = self._file
        if file is None:
            try:
                file = self._file = open_descriptor(self.location, os.O_RDONLY)
            except FileNotFoundError:
                if self._pinned is not None:
                    raise self._gone() from None
                raise NotFound(f"there is no file {self.location}") from None
            except OSError as error:
                raise self._failed("opened", error) from error
        return file

    def _failed(self, how: str, error: OSError) -> SourceError:
        return SourceError(
            f"{self.location} cannot be {how}: {error.strerror}. Check the file and the disk"
        )

    @property
    def size(self) -> int:
        return os.fstat(self._opened()).st_size

    def fingerprint(self) -> str:
        # The state of the path and not of the open file, because the file may have been replaced.
        try:
            status = os.stat(self.location)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFound(f"there is no file {self.location}") from None
        except OSError as error:
            raise self._failed("looked up", error) from error
        if self._file is not None and not os.path.samestat(status, os.fstat(self._file)):
            raise SourceChangedError(
                f"{self.location} was replaced since it was opened: open it again"
            )
        return local_fingerprint(status)

    def read(self, offset: int, size: int) -> bytes | memoryview:
        try:
            data = os.pread(self._opened(), size, offset)
        except OSError as error:
            raise self._failed("read", error) from error
        if len(data) == size and (_later.file is self or self._as_pinned()):
            return data
        again = memoryview(bytearray(size))
        self.read_into(offset, again)
        return again

    def read_into(self, offset: int, out: memoryview) -> None:
        while True:
            file, done, count = self._opened(), 0, 1
            while done < len(out) and count:
                try:
                    count = os.preadv(file, [out[done:]], offset + done)
                except OSError as error:
                    raise self._failed("read", error) from error
                done += count
            if _later.file is self or self._as_pinned():
                break
        if done < len(out):
            raise self._ends(offset, len(out))

    def for_each(self, work: Callable[[Any], object], items: Iterable[Any]) -> None:
        # The file is compared with its pinned state after many reads: looking it up takes as long
        # as reading a few rows.
        if self._pinned is None or _later.file is self:
            super().for_each(work, items)
            return
        waiting = iter(items)
        while batch := list(islice(waiting, _COMPARED)):
            while not self._done_as_pinned(work, batch):
                pass

    def _done_as_pinned(self, work: Callable[[Any], object], items: list[Any]) -> bool:
        file, _later.file = self._opened(), self
        try:
            for item in items:
                work(item)
        except Exception:
            _later.file = None
            if self._as_pinned() and self._file is file:
                raise
            return False  # what was read is not of the pinned state
        finally:
            _later.file = None
        return self._as_pinned() and self._file is file

    def _as_pinned(self) -> bool:
        """Return True if the bytes just read are of the pinned state, False to read them again."""
        if self._pinned is None:
            return True
        try:
            status = os.stat(self.location)
        except (FileNotFoundError, NotADirectoryError):
            raise self._gone() from None
        except OSError as error:
            raise self._failed("looked up", error) from error
        file = self._file
        seen = (file, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        if seen == self._seen:
            return True
        if local_fingerprint(status) != self._pinned:
            raise self._changed(self._pinned, local_fingerprint(status))
        if file is not None and os.path.samestat(status, os.fstat(file)):
            self._seen = seen  # an open file keeps its inode
            return True
        self._file, self._seen = None, ()  # replaced by another file in the same state
        return False

    def close(self) -> None:
        self._file, self._seen = None, ()


def local_fingerprint(status: os.stat_result) -> str:
    """Return a text that distinguishes a state of a local file from others."""
    return f"size {status.st_size}, mtime {status.st_mtime_ns}"
