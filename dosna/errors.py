"""Every error that dosna raises, in one tree.

::

    DosnaError
    ├── ConfigurationError (ValueError)        an unknown or unusable backend, engine or option
    │   └── IncompatibleError                  an engine and a backend that cannot work together
    ├── MissingDependencyError (ImportError)   a package that is not installed; names the extra
    ├── ConnectionError (builtin ConnectionError)
    │   └── NotConnectedError                  used before connect or after disconnect
    ├── ReadOnlyError (PermissionError)        a change by mode 'r', or of a linked dataset
    ├── DatasetNameError (ValueError)          a dataset name that is not legal
    ├── DatasetError
    │   ├── DatasetNotFoundError (KeyError)
    │   ├── DatasetExistsError (FileExistsError)
    │   ├── StaleDatasetError (RuntimeError)   changed by somebody else under this handle
    │   └── FormatError (ValueError)           metadata of a newer, foreign or broken format
    ├── ChunkError
    │   ├── ChunkNotFoundError (KeyError)      a chunk that was written is gone
    │   ├── ChunkIndexError (IndexError)       outside of the chunk grid
    │   ├── ChunkExistsError (FileExistsError)
    │   └── ChunkCorruptError (ValueError)     wrong length, header or checksum
    ├── StorageError (OSError)                 the store failed: disk full, no permission, …
    │   ├── LockError                          a file system without locks
    │   ├── StoreTimeoutError (TimeoutError)
    │   └── OutcomeUnknown                     a write that may or may not have happened
    ├── SourceError (ValueError)               what data come from: unknown, damaged, changed
    │   ├── SourceNotFoundError (FileNotFoundError)
    │   ├── SourceChangedError                 no longer what was ingested or linked
    │   └── RefusedError (TypeError)           an array that a dataset cannot represent
    ├── MemoryLimitError (ValueError)          a memory limit too small for one chunk
    ├── WorkerError (RuntimeError)             a worker process died or could not start
    └── CollectiveError (ValueError)           processes called different things together

Each is also the built-in exception that a caller would reach for, so ``except KeyError``
and ``except dosna.errors.DatasetNotFoundError`` both work. There is one warning of its own,
IncompleteDatasetWarning (UserWarning): a dataset is read before all of its data were written.
"""

from __future__ import annotations

import builtins

__all__ = [
    "ChunkCorruptError",
    "ChunkError",
    "ChunkExistsError",
    "ChunkIndexError",
    "ChunkNotFoundError",
    "CollectiveError",
    "ConfigurationError",
    "ConnectionError",
    "DatasetError",
    "DatasetExistsError",
    "DatasetNameError",
    "DatasetNotFoundError",
    "DosnaError",
    "FormatError",
    "IncompatibleError",
    "IncompleteDatasetWarning",
    "LockError",
    "MemoryLimitError",
    "MissingDependencyError",
    "NotConnectedError",
    "OutcomeUnknown",
    "ReadOnlyError",
    "RefusedError",
    "SourceChangedError",
    "SourceError",
    "SourceNotFoundError",
    "StaleDatasetError",
    "StorageError",
    "StoreTimeoutError",
    "WorkerError",
]


class DosnaError(Exception):
    """Base of every error of dosna."""

    def __str__(self) -> str:
        # KeyError shows the repr of its argument; a sentence reads better as it is.
        return str(self.args[0]) if len(self.args) == 1 else super().__str__()


class ConfigurationError(DosnaError, ValueError):
    """An unknown or unusable backend, engine or option."""


class IncompatibleError(ConfigurationError):
    """An engine and a backend that cannot work together."""


class MissingDependencyError(DosnaError, ImportError):
    """A package that a backend, engine or feature needs is not installed."""


class ConnectionError(DosnaError, builtins.ConnectionError):
    """The store cannot be reached, or refuses the connection."""


class NotConnectedError(ConnectionError):
    """A connection is used before ``connect`` or after ``disconnect``."""


class ReadOnlyError(DosnaError, PermissionError):
    """A change was asked of a connection opened with mode 'r', or of a linked dataset."""


class DatasetNameError(DosnaError, ValueError):
    """A dataset name that is not legal."""


class DatasetError(DosnaError):
    """Something is wrong with a dataset."""


class DatasetNotFoundError(DatasetError, KeyError):
    """There is no dataset of that name."""


class DatasetExistsError(DatasetError, FileExistsError):
    """A dataset of that name exists already."""


class StaleDatasetError(DatasetError, RuntimeError):
    """The dataset was resized or replaced by somebody else under this handle."""


class FormatError(DatasetError, ValueError):
    """The stored metadata is of a newer format, of another program, or broken."""


class ChunkError(DosnaError):
    """Something is wrong with a chunk."""


class ChunkNotFoundError(ChunkError, KeyError):
    """A chunk that was written is gone from the store."""


class ChunkIndexError(ChunkError, IndexError):
    """There is no such chunk in the grid."""


class ChunkExistsError(ChunkError, FileExistsError):
    """The chunk was written before."""


class ChunkCorruptError(ChunkError, ValueError):
    """A stored chunk has a wrong length, header or checksum."""


class StorageError(DosnaError, OSError):
    """The store failed: a full disk, a missing permission, an I/O error."""


class LockError(StorageError):
    """The file system cannot lock, so that concurrent writes could be lost."""


class StoreTimeoutError(StorageError, TimeoutError):
    """The store did not answer in time; nothing was changed."""


class OutcomeUnknown(StorageError):
    """A write may or may not have happened: the answer was lost. Read back before retrying."""


class SourceError(DosnaError, ValueError):
    """A source of data cannot be read: of an unknown kind, damaged, or still being written."""


class SourceNotFoundError(SourceError, FileNotFoundError):
    """There is no such source, or it has nothing of that name."""


class SourceChangedError(SourceError):
    """A source is no longer what it was when its ingest began, or when it was linked."""


class RefusedError(SourceError, TypeError):
    """An array of a source that a dataset cannot represent."""


class MemoryLimitError(DosnaError, ValueError):
    """``memory_limit`` is smaller than what one chunk needs."""


class WorkerError(DosnaError, RuntimeError):
    """A worker process died, or could not be started."""


class IncompleteDatasetWarning(UserWarning):
    """A dataset is read before all of its data have been written."""


class CollectiveError(DosnaError, ValueError):
    """Processes that work together called different operations, or with other arguments."""
