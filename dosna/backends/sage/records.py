"""What is asked of Motr, and how the records of the catalogue are written.

The catalogue is one index, which has all that is known about datasets::

    n connection 0 dataset            the dataset's id, 1 to 2**32 - 1
    d id                              whose id that is
    k id object 0 ~generation         an entry: where the bytes are, or the bytes themselves
    p id token                        the object that a thread is writing, or wrote last
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple, Protocol

from dosna.backends.stores.store import ABSENT
from dosna.errors import DatasetNameError, StorageError

__all__ = [
    "DOCUMENT",
    "LAST_GENERATION",
    "TOKEN_BYTES",
    "Entry",
    "Keys",
    "Motr",
    "ObjectId",
    "Records",
    "parse",
    "slot",
    "split",
]

DOCUMENT = "zarr.json"
LAST_GENERATION = 2**64 - 1
TOKEN_BYTES = 8

_LONGEST_KEY = 1000
_OBJECT = re.compile(r"(?:(?P<root>.*)/)?(?P<rest>zarr\.json|c(?:/\d+)*)")
_HEADER = struct.Struct(">cB")
_PLACE = struct.Struct(">IQQ")

Keys = list[bytes]
Records = list[tuple[bytes, bytes]]


class ObjectId(NamedTuple):
    """The 128 bits of an object's id: those of the dataset, and the object's own."""

    dataset: int
    number: int


class Motr(Protocol):
    """What is needed of Motr: whole objects, and one ordered index.

    Every method raises an error of `dosna.errors` if it fails; one that changes something raises
    `OutcomeUnknown` if there is no telling whether it did.
    """

    block: int
    """Objects are of whole blocks of so many bytes."""

    def create(self, oid: ObjectId, data: bytes) -> bool:
        """Make an object of whole blocks; False if there is one of that id."""

    def read(self, oid: ObjectId, start: int, stop: int) -> bytes | bytearray | None:
        """Read whole blocks that were written; None if there is no such object."""

    def remove(self, oid: ObjectId) -> bool:
        """Delete an object; False if there was none."""

    def insert(self, key: bytes, value: bytes) -> bool:
        """Make a record of the index; False, and no change, if there is one of that key.

        True may be said of what was passed over, too: only to read it back tells.
        """

    def replace(self, key: bytes, value: bytes) -> None:
        """Make or replace a record that no other client changes."""

    def lookup(self, key: bytes) -> bytes | None:
        """Give the value of a record; None if there is none."""

    def discard(self, keys: Keys) -> None:
        """Delete records, some of which may be gone already."""

    def following(self, start: bytes, most: int) -> tuple[Records, bytes | None]:
        """Look at records from the key `start` on, at most so many.

        Returns
        -------
        records : list of tuple
            Key and value of those that are not deleted: deleted ones count too.
        start : bytes or None
            Where to go on; None at the end of the index.
        """

    def check_process(self) -> None:
        """Raise ConnectionError in a process that was forked from that of the client."""

    def close(self) -> None:
        """Let go of Motr."""


class Entry(NamedTuple):
    """What the catalogue says about an object of the store.

    Parameters
    ----------
    generation : int
    token : bytes
        Of this entry alone.
    ancestors : tuple of bytes
        Tokens of the generations before it, the last first.
    kind : bytes
        b'o' if the bytes are in an object of Motr, b'i' if they are in the entry, b'd' if the
        object was deleted.
    oid : ObjectId
    nbytes : int
        Length without what fills the last block.
    data : bytes
        The bytes themselves, or the mark of those that are in an object.
    """

    generation: int
    token: bytes
    ancestors: tuple[bytes, ...]
    kind: bytes
    oid: ObjectId = ObjectId(0, 0)
    nbytes: int = 0
    data: bytes = b""

    @property
    def version(self) -> str:
        return ABSENT if self.kind == b"d" else f"{self.generation:x}.{self.token.hex()}"

    def encode(self) -> bytes:
        """Give the value of the record, which its key adds the generation to."""
        parts = [_HEADER.pack(self.kind, len(self.ancestors)), self.token, *self.ancestors]
        if self.kind == b"o":
            parts.append(_PLACE.pack(*self.oid, self.nbytes))
        return b"".join([*parts, self.data])

    @classmethod
    def decode(cls, generation: int, value: bytes) -> Entry:
        """Read the value of a record."""
        try:
            kind, count = _HEADER.unpack_from(value)
            at = _HEADER.size
            end = at + (count + 1) * TOKEN_BYTES
            tokens = [value[i : i + TOKEN_BYTES] for i in range(at, end, TOKEN_BYTES)]
            if kind != b"o":
                return cls(generation, tokens[0], tuple(tokens[1:]), kind, data=value[end:])
            dataset, number, nbytes = _PLACE.unpack_from(value, end)
        except (struct.error, IndexError) as error:
            raise StorageError(f"an entry of the catalogue is damaged: {value!r}") from error
        oid = ObjectId(dataset, number)
        mark = value[end + _PLACE.size :]
        return cls(generation, tokens[0], tuple(tokens[1:]), kind, oid, nbytes, mark)


def split(key: str) -> tuple[str, str]:
    """Split a key into a dataset's and what remains: its metadata, a chunk, anything else."""
    if len(key.encode()) > _LONGEST_KEY:
        raise DatasetNameError(
            f"{key[:40]!r}… is of {len(key.encode())} bytes, and Motr's index takes {_LONGEST_KEY}"
        )
    found = _OBJECT.fullmatch(key)
    if found:
        return found["root"] or "", found["rest"]
    root, _, rest = key.rpartition("/")
    return root, rest


def slot(dataset: int, rest: str, generation: int) -> bytes:
    """Key of an entry; the newest generation is the first in order."""
    number = (LAST_GENERATION - generation).to_bytes(8)
    return b"k" + dataset.to_bytes(4) + rest.encode() + b"\0" + number


def parse(key: bytes) -> tuple[str, int]:
    """Give the object and the generation of an entry's key."""
    return key[5:-9].decode(), LAST_GENERATION - int.from_bytes(key[-8:])
