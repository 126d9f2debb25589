"""A stand-in, in memory, for the thin interface to Motr (`dosna.backends.sage_store.Motr`).

It refuses what would end the process in the real library, and does what was seen of a real one.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, insort


class MotrStandIn:
    """Objects and one index, which all stores that are given it share."""

    def __init__(self, block=4096):
        self.block = block
        self.objects = {}
        self.records = {}
        self.keys = []
        self.lock = threading.Lock()
        self.closed = 0

    def request(self, kind):
        """Called before each request; tests replace it."""

    def create(self, oid, data):
        self.request("create")
        self._check(oid)
        assert data
        assert len(data) % self.block == 0
        with self.lock:
            if oid in self.objects:
                return False
            self.objects[oid] = bytes(data)
            return True

    def read(self, oid, start, stop):
        self.request("read")
        self._check(oid)
        data = self.objects.get(oid)
        if data is None:
            return None
        assert 0 <= start < stop <= len(data), "read beyond what was written"
        assert start % self.block == stop % self.block == 0
        return data[start:stop]

    def remove(self, oid):
        self.request("remove")
        self._check(oid)
        return self.objects.pop(oid, None) is not None

    def insert(self, key, value):
        self.request("insert")
        assert 0 < len(key) < 2000
        assert 0 < len(value) <= 16_000
        with self.lock:
            if key in self.records:
                return False
            self.records[key] = bytes(value)
            insort(self.keys, key)
            return True

    def lookup(self, key):
        self.request("lookup")
        return self.records.get(key)

    def discard(self, keys):
        self.request("discard")
        with self.lock:
            for key in keys:
                if self.records.pop(key, None) is not None:
                    del self.keys[bisect_left(self.keys, key)]

    def following(self, start, most):
        self.request("following")
        with self.lock:
            at = bisect_left(self.keys, start)
            return [(key, self.records[key]) for key in self.keys[at : at + most]]

    def close(self):
        self.closed += 1

    def _check(self, oid):
        # Motr keeps 32 bits of the upper half, and has ids up to 0x100000 for itself.
        assert 0 < oid.dataset < 2**32
        assert 0 <= oid.number < 2**64
