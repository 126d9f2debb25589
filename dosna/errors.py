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
SkippedDatasetWarning (UserWarning): a dataset cannot be read and is left out of an export.
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
    "SkippedDatasetWarning",
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
    """A package that a backend, engine or feature needs and that is not installed."""


class ConnectionError(DosnaError, builtins.ConnectionError):
    """A store that cannot be reached, or that refuses the connection."""


class NotConnectedError(ConnectionError):
    """A use of a connection before ``connect`` or after ``disconnect``."""


class ReadOnlyError(DosnaError, PermissionError):
    """An attempt to change a dataset of a connection with mode 'r', or a linked dataset."""


class DatasetNameError(DosnaError, ValueError):
    """A dataset name that is not legal."""


class DatasetError(DosnaError):
    """Base of the errors about a dataset."""


class DatasetNotFoundError(DatasetError, KeyError):
    """A dataset that does not exist."""


class DatasetExistsError(DatasetError, FileExistsError):
    """A dataset that exists already."""


class StaleDatasetError(DatasetError, RuntimeError):
    """A dataset that was resized or replaced through another handle since this one was opened."""


class FormatError(DatasetError, ValueError):
    """Stored metadata of a newer format, of another program, or broken."""


class ChunkError(DosnaError):
    """Base of the errors about a chunk."""


class ChunkNotFoundError(ChunkError, KeyError):
    """A chunk that was written and is missing from the store."""


class ChunkIndexError(ChunkError, IndexError):
    """The index of a chunk that is not in the chunk grid."""


class ChunkExistsError(ChunkError, FileExistsError):
    """A chunk that was written before."""


class ChunkCorruptError(ChunkError, ValueError):
    """A stored chunk with a wrong length, header or checksum."""


class StorageError(DosnaError, OSError):
    """A failure of the store: a full disk, a missing permission, an I/O error."""


class LockError(StorageError):
    """A file system without locks, so that concurrent writes could be lost."""


class StoreTimeoutError(StorageError, TimeoutError):
    """A store that did not answer in time. Nothing was changed."""


class OutcomeUnknown(StorageError):
    """A write that may or may not have happened, because the answer was lost.

    Read the data back before writing them again.
    """


class SourceError(DosnaError, ValueError):
    """A source of data that cannot be read: it is unknown, damaged, or still being written."""


class SourceNotFoundError(SourceError, FileNotFoundError):
    """A source that does not exist, or a name that is not in the source."""


class SourceChangedError(SourceError):
    """A source that has changed since its ingest began, or since it was linked."""


class RefusedError(SourceError, TypeError):
    """An array of a source that a dataset cannot represent."""


class MemoryLimitError(DosnaError, ValueError):
    """A ``memory_limit`` that is smaller than one chunk needs."""


class WorkerError(DosnaError, RuntimeError):
    """A worker process that died or could not be started."""


class IncompleteDatasetWarning(UserWarning):
    """A dataset that is read before all of its data have been written."""


class SkippedDatasetWarning(UserWarning):
    """A dataset that cannot be read and is left out of an export."""


class CollectiveError(DosnaError, ValueError):
    """Different calls, or different arguments, in processes that work together."""
