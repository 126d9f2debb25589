"""Conformance of a store of bytes."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from dosna.backends.stores.connection import ABSENT, Store, VersionConflict


class StoreTests:
    """Tests that every `dosna.backends.stores.Store` passes; subclass it with one fixture.

    ::

        class TestMyStore(StoreTests):
            @pytest.fixture
            def store(self, tmp_path):
                return MyStore(tmp_path)

    Each key begins with the test's own prefix, and is deleted after the test.
    """

    @pytest.fixture
    def store(self) -> Store:
        """Return an open store."""
        raise NotImplementedError("a subclass of StoreTests has a fixture store")

    @pytest.fixture
    def key(self, store: Store) -> Iterator[str]:
        """Yield a key for one test, which may also use keys that begin with it."""
        key = f"test-{secrets.token_hex(6)}"
        yield key
        for made in list(store.list(key)):
            store.delete(made)

    def test_what_was_put_is_got(self, store: Store, key: str) -> None:
        for data in (b"abc", b"", bytes(range(256)) * 5000):
            store.put(key, data)
            blob = store.get(key)
            assert blob is not None
            assert bytes(blob.data) == data
            assert isinstance(blob.version, str)
            assert blob.version != ABSENT

    def test_what_is_absent_is_none(self, store: Store, key: str) -> None:
        assert store.get(key) is None
        assert store.get(key, (0, 1)) is None
        store.put(key + "/a", b"x")
        assert store.get(key) is None
        assert store.get(key + "/") is None
        assert store.get(key + "/a/b") is None
        assert store.delete(key) is False

    def test_byte_ranges(self, store: Store, key: str) -> None:
        store.put(key, b"0123456789")
        whole = store.get(key)
        assert whole is not None
        for start, stop in [(0, 1), (3, 7), (0, 10), (9, 10), (5, 100)]:
            part = store.get(key, (start, stop))
            assert part is not None
            assert part.data == b"0123456789"[start:stop]
            assert part.version == whole.version
            assert part.size in (None, 10)
        for count in (1, 4, 10):
            part = store.get(key, (-count, None))
            assert part is not None
            assert part.data == b"0123456789"[-count:]
            assert part.version == whole.version

    def test_sizes_and_versions_without_bytes(self, store: Store, key: str) -> None:
        assert store.stat(key) is None
        for data in (b"", b"abc", b"x" * 100_000):
            store.put(key, data)
            blob, found = store.get(key), store.stat(key)
            assert blob is not None
            assert found == (len(data), blob.version)
        store.delete(key)
        assert store.stat(key) is None

    def test_other_bytes_have_another_version(self, store: Store, key: str) -> None:
        versions = set()
        for number in range(5):
            store.put(key, b"%d" % number)
            blob = store.get(key)
            assert blob is not None
            versions.add(blob.version)
        assert store.delete(key)
        store.put(key, b"anew")
        blob = store.get(key)
        assert blob is not None
        assert len(versions | {blob.version}) == 6
        assert store.get(key) == blob

    def test_a_put_tells_the_version_that_is_read(self, store: Store, key: str) -> None:
        for expected in (None, ABSENT):
            told = store.put(key, b"written", expected)
            blob = store.get(key)
            assert blob is not None
            assert told in (None, blob.version)
            told = store.put(key, b"again", blob.version)
            blob = store.get(key)
            assert blob is not None
            assert told in (None, blob.version)
            store.delete(key)

    def test_delete(self, store: Store, key: str) -> None:
        store.put(key, b"a")
        store.put(key + "/b", b"b")
        assert store.delete(key) is True
        assert store.get(key) is None
        assert store.delete(key) is False
        blob = store.get(key + "/b")
        assert blob is not None
        assert blob.data == b"b"

    def test_list(self, store: Store, key: str) -> None:
        assert list(store.list(key)) == []
        keys = [f"{key}/c/{n}/{m}" for n in range(12) for m in (0, 10)]
        keys += [key + "/entry.json", key + "/c-x", key + "/c", key + "y"]
        for number, made in enumerate(keys):
            store.put(made, b"%d" % number)
        assert sorted(store.list(key)) == sorted(keys)
        below = [k for k in keys if k.startswith(key + "/c/1")]
        assert sorted(store.list(key + "/c/1")) == sorted(below)
        assert sorted(store.list(key + "/c/1/")) == [f"{key}/c/1/0", f"{key}/c/1/10"]
        assert set(keys) <= set(store.list(""))
        for made in keys[::2]:
            store.delete(made)
        assert sorted(store.list(key)) == sorted(keys[1::2])

    def test_deleting_while_listing(self, store: Store, key: str) -> None:
        for number in range(30):
            store.put(f"{key}/{number}", b"")
        for made in store.list(key + "/"):
            store.delete(made)
        assert list(store.list(key)) == []

    def test_a_put_on_condition(self, store: Store, key: str) -> None:
        if not store.conditional_puts:
            pytest.skip("the store has no conditional puts")
        with pytest.raises(VersionConflict):
            store.put(key, b"0", "1")
        store.put(key, b"a", ABSENT)
        with pytest.raises(VersionConflict):
            store.put(key, b"b", ABSENT)
        first = store.get(key)
        assert first is not None
        store.put(key, b"c", first.version)
        with pytest.raises(VersionConflict):
            store.put(key, b"d", first.version)
        second = store.get(key)
        assert second is not None
        assert second.data == b"c"
        store.delete(key)
        with pytest.raises(VersionConflict):
            store.put(key, b"e", second.version)
        assert store.get(key) is None
        store.put(key, b"f", ABSENT)

    def test_of_many_conditional_puts_one_wins(self, store: Store, key: str) -> None:
        if not store.conditional_puts:
            pytest.skip("the store has no conditional puts")

        def add(number: int) -> int:
            added = 0
            while added < 20:
                blob = store.get(key)
                data = b"" if blob is None else bytes(blob.data)
                try:
                    store.put(key, data + b"%d" % number, ABSENT if blob is None else blob.version)
                except VersionConflict:
                    continue
                added += 1
            return added

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(add, range(4)))
        blob = store.get(key)
        assert blob is not None
        assert sorted(blob.data) == sorted(b"0123" * 20)

    def test_objects_are_seen_whole(self, store: Store, key: str) -> None:
        store.put(key, b"0" * 100_000)

        def look(number: int) -> int:
            if number == 0:
                for value in range(1, 60):
                    store.put(key, b"%d" % (value % 10) * 100_000)
            seen = [store.get(key) for _ in range(60)]
            return sum(b is None or len(set(b.data)) != 1 or len(b.data) != 100_000 for b in seen)

        with ThreadPoolExecutor(3) as pool:
            assert list(pool.map(look, range(3))) == [0, 0, 0]

    def test_parts_are_written_all_at_once(self, store: Store, key: str) -> None:
        if not store.most_ranges:
            pytest.skip("the store writes objects only whole")
        assert store.put_ranges(key, [(0, b"x")]) is False
        assert store.get(key) is None
        store.put(key, b"0123456789")
        before = store.get(key)
        assert before is not None
        assert store.put_ranges(key, [(1, b"ab"), (8, b"z")]) is True
        after = store.get(key)
        assert after is not None
        assert after.data == b"0ab34567z9"
        assert after.version != before.version
        if store.conditional_puts:
            with pytest.raises(VersionConflict):
                store.put(key, b"old", before.version)
        size, places = 4096, range(0, 4096 * store.most_ranges, 4096)
        store.put(key, bytes(size * store.most_ranges))

        def look(number: int) -> int:
            if number == 0:
                for value in range(1, 30):
                    assert store.put_ranges(key, [(p, bytes([value]) * size) for p in places])
            seen = [store.get(key) for _ in range(30)]
            return sum(blob is None or len(set(bytes(blob.data))) != 1 for blob in seen)

        with ThreadPoolExecutor(3) as pool:
            assert list(pool.map(look, range(3))) == [0, 0, 0]

    def test_a_mark_comes_with_the_bytes_or_not_at_all(self, store: Store, key: str) -> None:
        store.put_marked(key, b"0123456789", None, "0123abcd.1")
        whole, part, end = store.get(key), store.get(key, (2, 4)), store.get(key, (-3, None))
        assert whole is not None
        assert part is not None
        assert end is not None
        assert [bytes(b.data) for b in (whole, part, end)] == [b"0123456789", b"23", b"789"]
        assert whole.mark == part.mark == end.mark
        assert whole.mark in ("0123abcd.1", None)
        keeps = whole.mark is not None
        store.put_marked(key, b"x", None, "0123abcd.2")
        again = store.get(key)
        assert again is not None
        assert again.mark == ("0123abcd.2" if keeps else None)
        store.put(key, b"y")
        bare = store.get(key)
        assert bare is not None
        assert bare.mark is None
        if store.conditional_puts:
            with pytest.raises(VersionConflict):
                store.put_marked(key, b"z", ABSENT, "0123abcd.3")
            store.put_marked(key, b"z", bare.version, "0123abcd.3")
