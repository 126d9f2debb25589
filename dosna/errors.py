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
    │   ├── StaleDatasetError (RuntimeError)   changed by another program under this handle
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
    ├── QueryError (ValueError)                a query that cannot be understood
    │   ├── UnknownNameError (KeyError)        no such column or function
    │   └── QueryTypeError (TypeError)         an operation on values that do not have it
    ├── MemoryLimitError (ValueError)          a memory limit too small for one chunk
    ├── Stopped (RuntimeError)                 stopped by another thread, between two chunks
    ├── LimitError (RuntimeError)              more time, memory or space than was allowed
    ├── WorkerError (RuntimeError)             a worker process died or could not start
    └── CollectiveError (ValueError)           processes called different things together

Each is also the built-in exception that a caller would reach for, so ``except KeyError``
and ``except dosna.errors.DatasetNotFoundError`` both work. There is one warning of its own,
IncompleteDatasetWarning (UserWarning): a dataset is read before all of its data were written.
SkippedDatasetWarning (UserWarning): a dataset cannot be read and is left out of an export.
"""

from __future__ import annotations

import builtins
from typing import Any, Self

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
    "LimitError",
    "LockError",
    "MemoryLimitError",
    "MissingDependencyError",
    "NotConnectedError",
    "OutcomeUnknown",
    "QueryError",
    "QueryTypeError",
    "ReadOnlyError",
    "RefusedError",
    "SkippedDatasetWarning",
    "SourceChangedError",
    "SourceError",
    "SourceNotFoundError",
    "StaleDatasetError",
    "Stopped",
    "StorageError",
    "StoreTimeoutError",
    "UnknownNameError",
    "WorkerError",
]


class DosnaError(Exception):
    """Base of every error of dosna: catch it for all of them.

    Each error below is also the built-in exception that its class names, which `except` may catch
    in its place.
    """

    def __str__(self) -> str:
        # KeyError shows the repr of its argument; a sentence reads better as it is.
        return str(self.args[0]) if len(self.args) == 1 else super().__str__()


class ConfigurationError(DosnaError, ValueError):
    """Raised for a backend, engine or option that is unknown or has a value that it does not take.

    Also a ValueError. The message lists the known names or the allowed values: use one of them.
    """


class IncompatibleError(ConfigurationError):
    """Raised for a connection whose engine and backend cannot work together.

    Also a ValueError. The processes of the engine would not see what the backend stores, as those
    of mpi do not see ram: choose another of the two. `dosna.compatible` tells in advance.
    """


class MissingDependencyError(DosnaError, ImportError):
    """Raised when a package is not installed that a backend, an engine or a feature needs.

    Also an ImportError. The message says what to install, such as ``pip install 'dosna[hdf5]'``.
    """


class ConnectionError(DosnaError, builtins.ConnectionError):
    """Raised when a store cannot be reached, or refuses the connection.

    Also a ConnectionError of Python. Check the address and the credentials that the message names,
    then connect again.
    """


class NotConnectedError(ConnectionError):
    """Raised for a use of a connection before ``connect`` or after ``disconnect``.

    Also a ConnectionError of Python. Call ``connect``, or use the connection in a ``with`` block.
    """


class ReadOnlyError(DosnaError, PermissionError):
    """Raised for a change of what may only be read: a connection of mode 'r', a linked dataset.

    Also a PermissionError. Connect with ``mode='a'``, or change the file that the dataset links.
    """


class DatasetNameError(DosnaError, ValueError):
    """Raised for a name of a dataset that is not legal, or that lies inside another dataset.

    Also a ValueError. The message says which part of the name is wrong: choose another name.
    """


class DatasetError(DosnaError):
    """Base of the errors about a dataset."""


class DatasetNotFoundError(DatasetError, KeyError):
    """Raised when a dataset does not exist.

    Also a KeyError. ``sorted(con)`` lists the datasets of a connection.
    """


class DatasetExistsError(DatasetError, FileExistsError):
    """Raised for the creation of a dataset that exists already.

    Also a FileExistsError. Choose another name, or delete the dataset first.
    """


class StaleDatasetError(DatasetError, RuntimeError):
    """Raised when a dataset was changed through another handle since this one was opened.

    Also a RuntimeError. It was resized, replaced or deleted: open the dataset again.
    """


class FormatError(DatasetError, ValueError):
    """Raised for stored metadata that cannot be read: broken, unknown, or of a newer format.

    Also a ValueError. The message names the document and the part: update dosna, install the
    package that has the codec, or restore the document from a copy.
    """


class ChunkError(DosnaError):
    """Base of the errors about a chunk."""


class ChunkNotFoundError(ChunkError, KeyError):
    """Raised when a chunk is missing from the store that was written.

    Also a KeyError. Restore it from a copy, or write it again.
    """


class ChunkIndexError(ChunkError, IndexError):
    """Raised for the index of a chunk that is not in the chunk grid.

    Also an IndexError. ``ds.chunk_grid`` is the number of chunks on each axis.
    """


class ChunkExistsError(ChunkError, FileExistsError):
    """Raised for the creation of a chunk that was written before.

    Also a FileExistsError. Write to the chunk that exists, or delete it first.
    """


class ChunkCorruptError(ChunkError, ValueError):
    """Raised for a stored chunk with a wrong length, header or checksum, or that does not decode.

    Also a ValueError. Restore the object that the message names from a copy, or delete the chunk
    to have fill values. ``ds.verify()`` lists all such chunks.
    """


class StorageError(DosnaError, OSError):
    """Raised when the store failed: a full disk, a missing permission, an I/O error.

    Also an OSError, whose cause is in ``__cause__``. Remove the cause and repeat the operation.
    """


class LockError(StorageError):
    """Raised on a file system without locks, where concurrent writes could be lost.

    Also an OSError. Use a file system with locks.
    """


class StoreTimeoutError(StorageError, TimeoutError):
    """Raised when a store did not answer in time. Nothing was changed.

    Also a TimeoutError. Repeat the operation, or connect with a longer ``timeout``.
    """


class OutcomeUnknown(StorageError):
    """Raised when the answer to a write was lost, so that it may or may not have happened.

    Also an OSError. Read the data back before writing them again. Where workers that changed
    chunks were lost, the attributes name the chunks.
    """

    chunks: tuple[tuple[int, ...], ...] = ()
    """The indices of the chunks that may have been changed or not."""
    untouched: tuple[tuple[int, ...], ...] = ()
    """The indices of the chunks that were certainly not changed, though they should have been."""


class SourceError(DosnaError, ValueError):
    """Raised for a source of data that is unknown, damaged, or still being written.

    Also a ValueError. Name the kind of the source, or give one that is complete.
    """


class SourceNotFoundError(SourceError, FileNotFoundError):
    """Raised for a source that does not exist, or a name that is not in the source.

    Also a FileNotFoundError. Check the location; ``names()`` of a source lists its arrays.
    """

    # Without it, tblib, which Dask uses, could not make the error again in another process.
    def __new__(cls, *args: Any) -> Self:
        return FileNotFoundError.__new__(cls, *args)


class SourceChangedError(SourceError):
    """Raised when a source has changed since its ingest began, or since it was linked.

    Also a ValueError. Ingest or link it again.
    """


class RefusedError(SourceError, TypeError):
    """Raised for an array of a source that a dataset cannot represent.

    Also a TypeError. The message says why: leave the array out, or convert it.
    """


class QueryError(DosnaError, ValueError):
    """Raised for the text of a query that is not of the language, is too long or too deep.

    Also a ValueError. The message shows the place.
    """


class UnknownNameError(QueryError, KeyError):
    """Raised for a column or a function in a query that does not exist.

    Also a KeyError. The message has the nearest names.
    """


class QueryTypeError(QueryError, TypeError):
    """Raised for an operation in a query on values that do not have it, such as ``sqrt("text")``.

    Also a TypeError. The message says what the types are.
    """


class MemoryLimitError(DosnaError, ValueError):
    """Raised for a ``memory_limit`` that is smaller than one chunk needs.

    Also a ValueError. The message says how much is needed: raise the limit, or use smaller chunks.
    """


class Stopped(DosnaError, RuntimeError):
    """Raised in work that another thread has stopped, as when the client of a request hangs up.

    Also a RuntimeError. What was read so far is dropped; nothing was changed.
    """


class LimitError(DosnaError, RuntimeError):
    """Raised when code of a user takes more time, memory or space than it was allowed.

    Also a RuntimeError. The message names the limit. It would be exceeded again: ask for less, or
    for a higher limit.
    """


class WorkerError(DosnaError, RuntimeError):
    """Raised when a worker process died or could not be started.

    Also a RuntimeError. It often had too little memory: use fewer workers or a ``memory_limit``.
    """


class IncompleteDatasetWarning(UserWarning):
    """Warned about a dataset that is read before all of its data have been written.

    Also a UserWarning. Elements that are still to come have the fill value.
    """


class SkippedDatasetWarning(UserWarning):
    """Warned about a dataset that cannot be read and is left out of an export."""


class CollectiveError(DosnaError, ValueError):
    """Raised when processes that work together called different things or with other arguments.

    Also a ValueError. Every rank of an mpi program has to make the same calls in the same order.
    """
