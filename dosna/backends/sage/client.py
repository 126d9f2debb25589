"""A client of Motr: an implementation of `dosna.backends.sage.records.Motr` by its library."""

from __future__ import annotations

import atexit
import copy
import errno
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from dosna.backends.sage.configuration import SageConfiguration
from dosna.backends.sage.records import Keys, ObjectId, Records
from dosna.errors import (
    ConnectionError,
    OutcomeUnknown,
    StorageError,
    StoreTimeoutError,
)
from dosna.io.fork import ForkGuard

__all__ = ["MotrClient", "late"]

# This index is not distributed. The cluster's first index service holds it, and decides alone
# which of two inserts succeeds. The letters of its fid are "dosna".
_CATALOGUE = (ord("i") << 56 | 0x646F736E61, 1)
_LONGEST_IO = 16 << 20
_MOST_DELETED = 8  # The servers refused a transaction of 44 as too large.
_FINI_SECONDS = 5.0


class MotrClient:
    """The library, one client of it and the catalogue.

    Parameters
    ----------
    binding : module
        The compiled binding to the library.
    conf : SageConfiguration
        The configuration of the client.
    address : str
        The endpoint, which this process has taken.
    claim : socket, optional
        The socket that keeps other processes from the endpoint.
    timeout : float
        The seconds for the start, and for each request.
    """

    def __init__(
        self,
        binding: Any,
        conf: SageConfiguration,
        address: str,
        claim: socket.socket | None,
        timeout: float,
    ) -> None:
        self.conf = conf
        self._guard = ForkGuard("Motr")
        self._guard.check()
        self.block = conf.block_size
        self.timeout = timeout
        self._ffi, self._lib = binding.ffi, binding.lib
        self._address, self._claim = address, claim
        self._stop = threading.Event()
        self._abandoned: list[Any] = []

    # -- life -----------------------------------------------------------------------------

    def start(self) -> None:
        """Start the client, or raise ConnectionError within the time limit."""
        ready = threading.Event()
        problem: list[str] = []

        def live() -> None:
            try:
                self._init()
            except ConnectionError as error:
                problem.append(str(error))
            ready.set()
            if not problem:
                self._stop.wait()
                self._lib.m0_client_fini(self._m0c[0], True)

        thread = threading.Thread(target=live, name="dosna-motr", daemon=True)
        thread.start()
        if not ready.wait(self.timeout):
            raise ConnectionError(late(self.conf, self._address, self.timeout))
        if problem:
            raise ConnectionError(problem[0])

        def stop() -> None:
            if not self._guard.inherited and not self._abandoned:
                self._stop.set()
                thread.join(_FINI_SECONDS)
            if self._claim is not None:
                self._claim.close()

        atexit.register(stop)

    def _init(self) -> None:
        ffi, lib, conf = self._ffi, self._lib, self.conf
        lib.m0_trace_set_mmapped_buffer(False)
        self._texts = [
            ffi.new("char[]", text.encode())
            for text in (self._address, conf.ha_addr, conf.proc_fid, conf.prof_id)
        ]
        self._dix = ffi.new("struct m0_idx_dix_config *")
        self._config = config = ffi.new("struct m0_config *")
        config.mc_is_oostore = True
        config.mc_local_addr, config.mc_ha_addr = self._texts[:2]
        config.mc_process_fid, config.mc_profile = self._texts[2:]
        config.mc_tm_recv_queue_min_len = conf.tm_recv_queue_min_len
        config.mc_max_rpc_msg_size = conf.max_rpc_msg_size
        config.mc_idx_service_id = lib.M0_IDX_DIX
        config.mc_idx_service_conf = self._dix
        self._m0c = ffi.new("struct m0_client **")
        rc = lib.m0_client_init(self._m0c, config, True)
        if rc:
            raise ConnectionError(
                f"Motr refused a client at {self._address}: {os.strerror(-rc)} ({rc})"
            )
        self._instance = lib.m0_get()
        self._container = ffi.new("struct m0_container *")
        uber = ffi.new("struct m0_uint128 *", lib.M0_UBER_REALM)
        lib.m0_container_init(self._container, ffi.NULL, uber, self._m0c[0])
        self._realm = ffi.addressof(self._container, "co_realm")
        rc = self._realm.re_entity.en_sm.sm_rc
        if rc:
            raise ConnectionError(f"Motr's realm cannot be opened: {os.strerror(-rc)} ({rc})")

    def with_timeout(self, timeout: float) -> MotrClient:
        """Return the same client with another timeout for requests."""
        other = copy.copy(self)
        other.timeout = timeout
        return other

    def close(self) -> None:
        """Do nothing, because the client stays as long as the process."""

    def check_process(self) -> None:
        """Raise ConnectionError in a forked process, which has none of the library's threads."""
        self._guard.check()

    @contextmanager
    def _adopted(self) -> Iterator[None]:
        """Register the calling thread with the library, so that it may use it."""
        self.check_process()
        thread = self._ffi.new("struct m0_thread *")
        self._lib.m0_thread_adopt(thread, self._instance)
        try:
            yield
        finally:
            self._lib.m0_thread_shun()

    # -- operations -----------------------------------------------------------------------

    def _run(self, op: Any, what: str, changes: bool, keep: Any) -> int:
        """Run an operation, and return its return code. `keep`: the memory that it uses."""
        lib = self._lib
        bits = 1 << lib.M0_OS_STABLE | 1 << lib.M0_OS_FAILED
        seconds = int(self.timeout)
        deadline = lib.m0_time_from_now(seconds, int((self.timeout - seconds) * 1e9))
        lib.m0_op_launch(op, 1)
        rc = int(lib.m0_op_wait(op[0], bits, deadline))
        if rc == -errno.ETIMEDOUT:
            # The operation may still be under way, and write into its memory.
            self._abandoned.append((op, keep))
            kind = OutcomeUnknown if changes else StoreTimeoutError
            raise kind(f"Motr did not finish {what} within {self.timeout} seconds")
        rc = rc or int(lib.m0_rc(op[0]))
        lib.m0_op_fini(op[0])
        lib.m0_op_free(op[0])
        return rc

    def _begin(self, op: Any, rc: int, what: str) -> None:
        if rc:
            if op[0] != self._ffi.NULL:
                self._lib.m0_op_fini(op[0])
                self._lib.m0_op_free(op[0])
            self._fail(rc, what)

    def _fail(self, rc: int, what: str) -> NoReturn:
        if rc in (-errno.ECONNREFUSED, -errno.EHOSTUNREACH, -errno.ENOTCONN):
            raise ConnectionError(f"Motr cannot be reached for {what}: {os.strerror(-rc)} ({rc})")
        raise StorageError(-rc, f"Motr failed {what}: {os.strerror(-rc)} ({rc})")

    def _entity(
        self, act: Callable[[Any, Any], int], entity: Any, what: str, changes: bool, keep: Any
    ) -> int:
        """Create, open or delete an entity; return 0, -ENOENT or -EEXIST."""
        op = self._ffi.new("struct m0_op **")
        self._begin(op, act(entity, op), what)
        rc = self._run(op, what, changes, keep)
        if rc not in (0, -errno.ENOENT, -errno.EEXIST):
            self._fail(rc, what)
        return rc

    def _create(self, entity: Any, op: Any) -> int:
        """Begin to create an object or the catalogue."""
        return int(self._lib.m0_entity_create(self._ffi.NULL, entity, op))

    # -- objects --------------------------------------------------------------------------

    @contextmanager
    def _object(self, oid: ObjectId, nbytes: int = 0) -> Iterator[Any]:
        ffi, lib = self._ffi, self._lib
        if not 0 < oid.dataset < 1 << 32 or not 0 <= oid.number < 1 << 64:
            raise StorageError(f"{oid} is not the id of an object")
        with self._adopted():
            obj = ffi.new("struct m0_obj *")
            # Layout 0 lets Motr choose the best one for oa_buf_size.
            lib.m0_obj_init(obj, self._realm, ffi.new("struct m0_uint128 *", oid), 0)
            obj.ob_attr.oa_buf_size = nbytes
            under_way = len(self._abandoned)
            try:
                yield obj
            finally:
                if len(self._abandoned) == under_way:
                    lib.m0_obj_fini(obj)

    def create(self, oid: ObjectId, data: bytes) -> bool:
        what = f"creating object {oid.dataset:#x}:{oid.number:#x}"
        with self._object(oid, len(data)) as obj:
            entity = self._ffi.addressof(obj, "ob_entity")
            if self._entity(self._create, entity, what, True, obj):
                return False
            memory = self._ffi.from_buffer(data)
            self._transfer(obj, self._lib.M0_OC_WRITE, memory, 0, len(data), what)
            return True

    def read(self, oid: ObjectId, start: int, stop: int) -> bytearray | None:
        what = f"reading object {oid.dataset:#x}:{oid.number:#x}"
        with self._object(oid) as obj:
            entity = self._ffi.addressof(obj, "ob_entity")
            if self._entity(self._lib.m0_entity_open, entity, what, False, obj):
                return None
            data = bytearray(stop - start)
            memory = self._ffi.from_buffer(data)
            if self._transfer(obj, self._lib.M0_OC_READ, memory, start, stop - start, what):
                return None
        return data

    def _transfer(
        self, obj: Any, code: int, memory: Any, start: int, nbytes: int, what: str
    ) -> int:
        """Read or write an object; return 0, or -ENOENT if the object to read does not exist."""
        ffi, lib = self._ffi, self._lib
        writes = code == lib.M0_OC_WRITE
        if start % self.block or nbytes % self.block:
            raise StorageError(f"{what}: {start} and {nbytes} are not whole blocks")
        for done in range(0, nbytes, _LONGEST_IO):
            count = min(_LONGEST_IO, nbytes - done)
            counts, index = ffi.new("m0_bcount_t[1]", [count]), ffi.new("m0_bindex_t[1]")
            index[0] = start + done
            buffers = ffi.new("void *[1]", [memory + done])
            extent = ffi.new("struct m0_indexvec *", ((1, counts), index))
            data = ffi.new("struct m0_bufvec *", ((1, counts), buffers))
            op = ffi.new("struct m0_op **")
            keep = (obj, memory, counts, index, buffers, extent, data)
            flags = lib.M0_OOF_SYNC if writes else 0
            rc = lib.m0_obj_op(obj, code, extent, data, ffi.NULL, 0, flags, op)
            self._begin(op, rc, what)
            rc = self._run(op, what, writes, keep)
            if rc == -errno.ENOENT and not writes:
                return rc
            if rc:
                self._fail(rc, what)
        return 0

    def remove(self, oid: ObjectId) -> bool:
        what = f"deleting object {oid.dataset:#x}:{oid.number:#x}"
        with self._object(oid) as obj:
            entity = self._ffi.addressof(obj, "ob_entity")
            if self._entity(self._lib.m0_entity_open, entity, what, True, obj):
                return False
            return not self._entity(self._lib.m0_entity_delete, entity, what, True, obj)

    # -- the catalogue --------------------------------------------------------------------

    @contextmanager
    def _index(self) -> Iterator[Any]:
        with self._adopted():
            index = self._ffi.new("struct m0_idx *")
            fid = self._ffi.new("struct m0_uint128 *", _CATALOGUE)
            self._lib.m0_idx_init(index, self._realm, fid)
            under_way = len(self._abandoned)
            try:
                yield index
            finally:
                if len(self._abandoned) == under_way:
                    self._lib.m0_idx_fini(index)

    def make_catalogue(self) -> None:
        with self._index() as index:
            entity = self._ffi.addressof(index, "in_entity")
            self._entity(self._create, entity, "creating the catalogue", True, index)

    def _query(
        self,
        code: int,
        keys: Keys,
        values: Keys | None,
        what: str,
        flags: int = 0,
    ) -> list[tuple[int, bytes, bytes]]:
        """Run an operation of the index; return the return code, key and value of each item."""
        ffi, lib = self._ffi, self._lib
        count = len(keys)
        key_vec, key_keep = self._vector(keys)
        val_vec, val_keep = (ffi.NULL, None) if values is None else self._vector(values)
        rcs = ffi.new("int32_t[]", count)
        op = ffi.new("struct m0_op **")
        changes = code in (lib.M0_IC_PUT, lib.M0_IC_DEL)
        with self._index() as index:
            rc = lib.m0_idx_op(index, code, key_vec, val_vec, rcs, flags, op)
            self._begin(op, rc, what)
            rc = self._run(op, what, changes, (index, key_keep, val_keep, key_vec, val_vec, rcs))
            if rc == -errno.ENOENT and not changes:
                # There is no catalogue, because nothing was written to this cluster yet.
                return [(rc, b"", b"")] * count
            if rc:
                self._fail(rc, what)
            found = []
            for at, found_rc in enumerate(rcs):
                answered = not found_rc
                key = self._taken(key_vec, at, answered and code == lib.M0_IC_NEXT)
                value = self._taken(val_vec, at, answered and not changes)
                found.append((int(found_rc), key, value))
        return found

    def _taken(self, vector: Any, at: int, answered: bool) -> bytes:
        """Return the bytes of a buffer that the library has made, and free it."""
        buffer = vector.ov_buf[at] if answered else self._ffi.NULL
        if buffer == self._ffi.NULL:
            return b""
        text = bytes(self._ffi.buffer(buffer, vector.ov_vec.v_count[at]))
        self._lib.m0_free(buffer)
        return text

    def _vector(self, texts: Keys) -> tuple[Any, Any]:
        """Return a vector of buffers; an empty text stands for one that the library makes."""
        ffi = self._ffi
        memory = [ffi.from_buffer(text) if text else ffi.NULL for text in texts]
        buffers = ffi.new("void *[]", memory)
        counts = ffi.new("m0_bcount_t[]", [len(text) for text in texts])
        vector = ffi.new("struct m0_bufvec *", ((len(texts), counts), buffers))
        return vector, (memory, buffers, counts)

    def insert(self, key: bytes, value: bytes) -> bool:
        return self._put(key, value, self._lib.M0_OIF_SYNC_WAIT)

    def replace(self, key: bytes, value: bytes) -> None:
        self._put(key, value, self._lib.M0_OIF_OVERWRITE)

    def _put(self, key: bytes, value: bytes, flags: int) -> bool:
        what = f"writing {key!r} to the catalogue"
        ((rc, _, _),) = self._query(self._lib.M0_IC_PUT, [key], [value], what, flags)
        if rc not in (0, -errno.EEXIST):
            self._fail(rc, what)
        return not rc

    def lookup(self, key: bytes) -> bytes | None:
        what = f"looking up {key!r} in the catalogue"
        ((rc, _, value),) = self._query(self._lib.M0_IC_GET, [key], [b""], what)
        if rc not in (0, -errno.ENOENT):
            self._fail(rc, what)
        return None if rc else value

    def discard(self, keys: Keys) -> None:
        for at in range(0, len(keys), _MOST_DELETED):
            page = keys[at : at + _MOST_DELETED]
            what = f"deleting {len(page)} records of the catalogue"
            for rc, _, _ in self._query(self._lib.M0_IC_DEL, page, None, what):
                if rc not in (0, -errno.ENOENT):
                    self._fail(rc, what)

    def following(self, start: bytes, most: int) -> tuple[Records, bytes | None]:
        what = f"listing the catalogue from {start!r}"
        code = self._lib.M0_IC_NEXT
        while True:
            keys, values = [start] + [b""] * (most - 1), [b""] * most
            try:
                found = self._query(code, keys, values, what)
                break
            except StorageError as error:
                # The answer would have been longer than a message may be.
                if error.errno != errno.E2BIG or most == 1:
                    raise
            most = (most + 1) // 2
        records: Records = []
        last = start
        for rc, key, value in found:
            if rc == -errno.ENOENT:
                return records, None
            if rc:
                self._fail(rc, what)
            last = key
            if value:  # For deleted records, Motr returns only the key.
                records.append((key, value))
        return records, last + b"\0"


def late(conf: SageConfiguration, address: str, timeout: float) -> str:
    """Return the message of a start that took too long."""
    return (
        f"Motr did not start a client at {address} within {timeout} seconds: does the agent at "
        f"{conf.ha_addr} answer, and are prof_id and proc_fid the cluster's?"
    )
