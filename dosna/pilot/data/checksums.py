"""CRC-32C of files whose parts come in any order: computed on the way, not by reading again."""

from __future__ import annotations

import functools

import crc32c

__all__ = ["Parts", "checksum_text"]

_POLYNOMIAL = 0x82F63B78
_BITS = 32


def checksum_text(value: int) -> str:
    """Return the checksum of a file as the state has it."""
    return f"crc32c:{value:08x}"


class Parts:
    """The checksum of a file of which each part is seen once, by any thread.

    Examples
    --------
    >>> parts = Parts()
    >>> parts.see(3, b"def")
    >>> parts.see(0, b"abc")
    >>> parts.text() == checksum_text(crc32c.crc32c(b"abcdef"))
    True
    """

    def __init__(self) -> None:
        self._found: dict[int, tuple[int, int]] = {}

    def see(self, start: int, data: bytes | memoryview) -> None:
        """Take in the bytes of the file that begin at `start`."""
        # What is sent again takes the place of what was sent before.
        self._found[start] = len(data), crc32c.crc32c(data)

    def text(self) -> str:
        """Return the checksum of all parts."""
        value = 0
        for start in sorted(self._found):
            length, other = self._found[start]
            value = _times(_zeros(length), value) ^ other
        return checksum_text(value)


@functools.lru_cache(maxsize=64)
def _zeros(length: int) -> tuple[int, ...]:
    """Return what so many zero bytes do to a CRC, as a matrix over GF(2) by its columns."""
    # Of one zero bit, then of two, four, and so on.
    power = (_POLYNOMIAL, *(1 << bit for bit in range(_BITS - 1)))
    found = tuple(1 << bit for bit in range(_BITS))
    bits = length * 8
    while bits:
        if bits & 1:
            found = tuple(_times(power, column) for column in found)
        power = tuple(_times(power, column) for column in power)
        bits >>= 1
    return found


def _times(matrix: tuple[int, ...], vector: int) -> int:
    found, bit = 0, 0
    while vector:
        if vector & 1:
            found ^= matrix[bit]
        vector >>= 1
        bit += 1
    return found
