"""The interface to Motr, and the encoding of the catalogue's records.

The catalogue is one index, which holds everything that is known about datasets::

    n connection 0 dataset            the id of the dataset, 1 to 2**32 - 1
    d id                              the name of the dataset with this id
    k id object 0 ~generation         an entry: the place of the bytes, or the bytes themselves
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
    """The 128 bits of an object's id: the dataset's id, and the object's own number."""

    dataset: int
    number: int


class Motr(Protocol):
    """The part of Motr that is used: whole objects, and one ordered index.

    Every method raises an error of `dosna.errors` if it fails. A method that changes something
    raises `OutcomeUnknown` if it is unknown whether it did.
    """

    block: int
    """The size of a block in bytes; objects consist of whole blocks."""

    def create(self, oid: ObjectId, data: bytes) -> bool:
        """Create an object of whole blocks; return False if one with that id exists."""

    def read(self, oid: ObjectId, start: int, stop: int) -> bytes | bytearray | None:
        """Read whole blocks that were written; return None if the object does not exist."""

    def remove(self, oid: ObjectId) -> bool:
        """Delete an object; return False if it did not exist."""

    def make_catalogue(self) -> None:
        """Create the index, if it does not exist. Until then it has no records."""

    def insert(self, key: bytes, value: bytes) -> bool:
        """Create a record of the index; return False, without a change, if the key exists.

        It may also return True if Motr has passed over the record. Only reading it back tells.
        """

    def replace(self, key: bytes, value: bytes) -> None:
        """Create or replace a record that no other client changes."""

    def lookup(self, key: bytes) -> bytes | None:
        """Return the value of a record; None if it does not exist."""

    def discard(self, keys: Keys) -> None:
        """Delete records, some of which may be gone already."""

    def following(self, start: bytes, most: int) -> tuple[Records, bytes | None]:
        """List records from the key `start` on.

        Parameters
        ----------
        start : bytes
            The first key.
        most : int
            The most records to look at, including deleted ones.

        Returns
        -------
        records : list of tuple
            The keys and values of the records that are not deleted.
        start : bytes or None
            The key to continue from; None at the end of the index.
        """

    def check_process(self) -> None:
        """Raise ConnectionError in a process that was forked from the client's."""

    def close(self) -> None:
        """Release Motr."""


class Entry(NamedTuple):
    """The catalogue's entry for an object of the store.

    Parameters
    ----------
    generation : int
        The number of the entry; each change of the object makes the next one.
    token : bytes
        A token that no other entry has.
    ancestors : tuple of bytes
        The tokens of the generations before it, the latest first.
    kind : bytes
        b'o' if the bytes are in an object of Motr, b'i' if they are in the entry, b'd' if the
        object was deleted.
    oid : ObjectId
        The id of the object of Motr.
    nbytes : int
        The length of the bytes in it, without the padding of the last block.
    data : bytes
        The bytes themselves, or the mark of bytes that are in an object.
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
        """Return the value of the record; the generation is in its key."""
        parts = [_HEADER.pack(self.kind, len(self.ancestors)), self.token, *self.ancestors]
        if self.kind == b"o":
            parts.append(_PLACE.pack(*self.oid, self.nbytes))
        return b"".join([*parts, self.data])

    @classmethod
    def decode(cls, generation: int, value: bytes) -> Entry:
        """Return the entry that the value of a record encodes."""
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
    """Split a key into the name of a dataset and the rest: metadata, a chunk or another object."""
    if len(key.encode()) > _LONGEST_KEY:
        raise DatasetNameError(
            f"{key[:40]!r}… has {len(key.encode())} bytes, and Motr's index takes {_LONGEST_KEY}"
        )
    found = _OBJECT.fullmatch(key)
    if found:
        return found["root"] or "", found["rest"]
    root, _, rest = key.rpartition("/")
    return root, rest


def slot(dataset: int, rest: str, generation: int) -> bytes:
    """Return the key of an entry; the newest generation comes first in order."""
    number = (LAST_GENERATION - generation).to_bytes(8)
    return b"k" + dataset.to_bytes(4) + rest.encode() + b"\0" + number


def parse(key: bytes) -> tuple[str, int]:
    """Return the object and the generation that the key of an entry names."""
    return key[5:-9].decode(), LAST_GENERATION - int.from_bytes(key[-8:])
