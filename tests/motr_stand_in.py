"""A stand-in, in memory, for the thin interface to Motr (`dosna.backends.sage.records.Motr`).

It refuses what would end the process in the real library, and does what was seen of a real one:
the index goes by the clocks of its clients. A change that is dated before what is there is passed
over, without a word, and a deleted record stays as a mark that a listing counts.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left, insort


class Cluster:
    """What all clients see."""

    def __init__(self):
        self.objects = {}
        self.records = {}
        self.keys = []
        self.lock = threading.Lock()

    @property
    def alive(self):
        """Keys of the records that are not deleted."""
        return [key for key in self.keys if self.records[key][1] is not None]


class MotrStandIn:
    """A client.

    Parameters
    ----------
    cluster : Cluster, optional
    ahead : float
        Seconds that its clock is ahead.
    """

    block = 4096

    def __init__(self, cluster=None, ahead=0.0):
        self.cluster = cluster or Cluster()
        self.ahead = ahead

    def request(self, kind):
        """Called before each request; tests replace it."""

    def create(self, oid, data):
        self.request("create")
        self._check(oid)
        assert data
        assert len(data) % self.block == 0
        with self.cluster.lock:
            if oid in self.cluster.objects:
                return False
            self.cluster.objects[oid] = bytes(data)
            return True

    def read(self, oid, start, stop):
        self.request("read")
        self._check(oid)
        data = self.cluster.objects.get(oid)
        if data is None:
            return None
        assert 0 <= start < stop <= len(data), "read beyond what was written"
        assert start % self.block == stop % self.block == 0
        return data[start:stop]

    def remove(self, oid):
        self.request("remove")
        self._check(oid)
        return self.cluster.objects.pop(oid, None) is not None

    def make_catalogue(self):
        self.request("make_catalogue")

    def insert(self, key, value):
        self.request("insert")
        return self._put(key, value, False)

    def replace(self, key, value):
        self.request("replace")
        self._put(key, value, True)

    def lookup(self, key):
        self.request("lookup")
        return self.cluster.records.get(key, (0, None))[1]

    def discard(self, keys):
        self.request("discard")
        date = self._date()
        with self.cluster.lock:
            for key in keys:
                found = self.cluster.records.get(key)
                if found is not None and found[1] is not None and found[0] < date:
                    self.cluster.records[key] = date, None

    def following(self, start, most):
        self.request("following")
        with self.cluster.lock:
            at = bisect_left(self.cluster.keys, start)
            keys = self.cluster.keys[at : at + most]
            found = [(key, self.cluster.records[key][1]) for key in keys]
        records = [(key, value) for key, value in found if value is not None]
        return records, keys[-1] + b"\0" if len(keys) == most else None

    def check_process(self):
        """Nothing: it is of memory, which a fork copies."""

    def close(self):
        self.request("close")

    def _put(self, key, value, overwrite):
        assert 0 < len(key) < 2000
        assert 0 < len(value) <= 16_000
        date = self._date()
        with self.cluster.lock:
            found = self.cluster.records.get(key)
            if found is None:
                insort(self.cluster.keys, key)
            elif date <= found[0]:
                return True
            elif found[1] is not None and not overwrite:
                return False
            self.cluster.records[key] = date, bytes(value)
            return True

    def _date(self):
        return time.time_ns() + int(self.ahead * 1e9)

    def _check(self, oid):
        # Motr keeps 32 bits of the upper half, and has ids up to 0x100000 for itself.
        assert 0 < oid.dataset < 2**32
        assert 0 <= oid.number < 2**64
