"""Where the objects of a pool lie: hashes as the monitor's, hosts by the map, and no errors."""

from __future__ import annotations

import secrets
from collections import Counter

import numpy as np
import pytest
from support import require

import dosna as dn

rados = require("rados")

from services.admin import administrator, command, send  # noqa: E402

from dosna.backends.ceph import places  # noqa: E402
from dosna.backends.ceph.cluster import Cluster, Settings  # noqa: E402
from dosna.backends.ceph.places import group_of, hash_of  # noqa: E402
from dosna.backends.ceph.store import CephStore  # noqa: E402

NAMES = [
    *(f"entry/tomo/c/{i}/{i * i}/0" for i in range(100)),
    *("x" * n for n in range(1, 40)),
    "größe/c/0",
    "漢字/c/1/2",
]


@pytest.fixture
def make_pool(ceph):
    """Return a function that makes a pool which ends with the test."""
    made = []

    def make(groups):
        pool = f"places-{secrets.token_hex(4)}"
        command(ceph, "osd pool create", pool=pool, pg_num=groups, pgp_num=groups)
        made.append(pool)
        return pool

    yield make
    for pool in made:
        remove(ceph, pool)


def remove(ceph, pool):
    sure = {"pool2": pool, "yes_i_really_really_mean_it": True}
    command(ceph, "osd pool delete", pool=pool, **sure)


@pytest.fixture
def open_store(ceph):
    """Return a function that opens the store of a pool."""
    opened = []

    def open_store(pool, **kwargs):
        settings = {"conffile": ceph.conf, "client_id": None, "timeout": 60, **kwargs}
        opened.append(CephStore(Settings(pool, **settings)))
        return opened[-1]

    yield open_store
    for store in opened:
        store.close()


@pytest.fixture
def asked(monkeypatch):
    """Count the commands to monitors."""
    counts = Counter()

    def ask(self, prefix, _ask=Cluster.ask, **arguments):
        counts[prefix] += 1
        return _ask(self, prefix, **arguments)

    monkeypatch.setattr(Cluster, "ask", ask)
    return counts


def hosts_by_map(ceph, pool, names):
    """Give the hosts of each name, as an administrator looks for them."""
    hosts = {}
    with administrator(ceph) as admin:
        of = {about["id"]: about["hostname"] for about in send(admin, "osd metadata")}
        for name in names:
            found = send(admin, "osd map", pool=pool, object=name)
            osds = dict.fromkeys([found["acting_primary"], *found["acting"]])
            hosts[name] = tuple(of[osd] for osd in osds)
    return hosts


@pytest.mark.parametrize("groups", [1, 8, 11])
@pytest.mark.parametrize("namespace", ["", "beamline"])
def test_hashes_are_those_of_the_monitor(ceph, make_pool, groups, namespace):
    pool = make_pool(groups)
    more = {"nspace": namespace} if namespace else {}
    with administrator(ceph) as admin:
        for name in NAMES:
            found = send(admin, "osd map", pool=pool, object=name, **more)
            hashed = hash_of(name, namespace)
            assert found["raw_pgid"] == f"{found['pool_id']}.{hashed:x}"
            assert found["pgid"] == f"{found['pool_id']}.{group_of(hashed, groups):x}"


def test_hosts_are_those_of_the_acting_set_the_primary_first(ceph, make_pool, open_store, asked):
    pool = make_pool(11)
    store = open_store(pool)
    found = {name: store.locations(name) for name in NAMES}
    assert found == hosts_by_map(ceph, pool, NAMES)
    assert {len(hosts) for hosts in found.values()} == {3}
    assert len({hosts[0] for hosts in found.values()}) > 1
    groups = {group_of(hash_of(name), 11) for name in NAMES}
    # Others may change the map meanwhile.
    maps = asked["osd pool get"]
    assert asked["osd map"] <= len(groups) * maps < len(NAMES)
    assert asked["osd metadata"] == 3 * maps


def test_a_new_map_is_noticed(ceph, make_pool, open_store, monkeypatch):
    pool = make_pool(8)
    store = open_store(pool)
    before = {name: store.locations(name) for name in NAMES}
    (first, *_) = before["x"]
    osd = int(first.rpartition("-")[2])
    command(ceph, "osd primary-affinity", id=osd, weight=0.0)
    try:
        monkeypatch.setattr(store._places, "_fresh_until", 0.0)
        after = {name: store.locations(name) for name in NAMES}
        assert after == hosts_by_map(ceph, pool, NAMES)
        assert all(hosts[0] != first for hosts in after.values())
    finally:
        command(ceph, "osd primary-affinity", id=osd, weight=1.0)


def test_an_unchanged_map_is_asked_for_once_in_a_while(open_store, asked, monkeypatch):
    def ask(self, prefix, _ask=Cluster.ask, **arguments):
        answer = _ask(self, prefix, **arguments)
        return {**answer, "epoch": 7} if prefix == "osd map" else answer

    monkeypatch.setattr(Cluster, "ask", ask)
    store = open_store("kit")
    for name in NAMES:
        store.locations(name)
    asked.clear()
    monkeypatch.setattr(store._places, "_fresh_until", 0.0)
    for name in NAMES:
        store.locations(name)
    assert asked == {"osd map": 1}


def test_the_least_capabilities_suffice(secured, open_store):
    store = open_store("kit", conffile=secured.conf, client_id="dosna")
    assert {"x": store.locations("x")} == hosts_by_map(secured, "kit", ["x"])


def test_an_acting_set_that_lacks_an_osd(open_store, monkeypatch):
    store = open_store("kit")
    answers = {
        "osd map": {
            "epoch": 1,
            "pool_id": 1,
            "pgid": f"1.{group_of(hash_of('x'), 8):x}",
            "acting": [2147483647, 1, 0],
            "acting_primary": 1,
        },
        "osd pool get": {"pg_num": 8},
    }
    hosts = {0: "east", 1: "west"}
    monkeypatch.setattr(
        Cluster,
        "ask",
        lambda self, prefix, **arguments: (
            answers.get(prefix) or {"hostname": hosts[arguments["id"]]}
        ),
    )
    assert store.locations("x") == ("west", "east")


@pytest.mark.parametrize("hidden", ["osd map", "osd pool get", "osd metadata"])
def test_what_a_client_may_not_ask_is_unknown(open_store, hidden, asked, monkeypatch):
    counting = Cluster.ask

    def ask(self, prefix, **arguments):
        # A monitor refuses a command that it does not know as one that is not allowed.
        return counting(self, "no such" if prefix == hidden else prefix, **arguments)

    monkeypatch.setattr(Cluster, "ask", ask)
    store = open_store("kit")
    assert [store.locations(name) for name in NAMES] == [()] * len(NAMES)
    assert asked["no such"] == 1


def test_a_pool_that_was_deleted(ceph, make_pool, open_store, asked):
    pool = f"places-{secrets.token_hex(4)}"
    command(ceph, "osd pool create", pool=pool, pg_num=1, pgp_num=1)
    store = open_store(pool)
    remove(ceph, pool)
    assert store.locations("x") == store.locations("y") == ()
    assert asked == {"osd map": 1}


def test_slow_monitors_are_asked_for_a_while_only(open_store, asked, monkeypatch):
    store = open_store("kit")
    now = [1000.0]
    monkeypatch.setattr(places.time, "monotonic", lambda: now[0])
    counting = Cluster.ask

    def ask(self, prefix, **arguments):
        now[0] += 16
        return counting(self, prefix, **arguments)

    monkeypatch.setattr(Cluster, "ask", ask)
    known = {group_of(hash_of(name), 8) for name in NAMES if store.locations(name)}
    # Five questions for the first name, and no time is left.
    assert known == {group_of(hash_of(NAMES[0]), 8)}
    assert asked.total() == 5
    now[0] += 59
    assert store.locations(NAMES[0]) == ()
    now[0] += 2
    assert len(store.locations(NAMES[0])) == 3


def test_a_dataset_knows_the_places_of_its_objects(ceph):
    options = {"backend": "ceph", "conffile": ceph.conf, "timeout": 60}
    with dn.Connection("kit", **options) as con:
        name = f"places-{secrets.token_hex(4)}"
        ds = con.create_dataset(name, data=np.zeros((4, 6)), chunk_size=(1, 2), shards=(2, 6))
        try:
            key = f"{name}/c/1/0"
            expected = hosts_by_map(ceph, "kit", [key])
            assert {key: ds.instance.locations((1, 0))} == expected
            with dn.Connection("kit", mode="r", **options) as reading:
                assert {key: reading[name].instance.locations((1, 0))} == expected
        finally:
            con.del_dataset(name)
