"""The loader's parts: configuration, inventory, bucket, and what verifying finds."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import tracemalloc
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from loading import Inventory, check_loaded, connect, flip, h5py, write_folder
from support import require, taking_ctrl_c

import dosna as dn
from dosna import loader
from dosna.cli import main
from dosna.errors import ConfigurationError, SourceChangedError, SourceError, StorageError
from dosna.loader.bucket import Bucket, Entry, open_bucket
from dosna.loader.config import KEYS, Config
from dosna.loader.target import OutdatedError
from dosna.loader.targets import open_target

ENTRIES = [Entry(f"raw/{n}.h5", 100 + n, f"etag {n}") for n in range(5)]


# -- configuration ------------------------------------------------------------------------


def write(path, text):
    path.write_text(text)
    return path


def test_each_place_is_stronger_than_the_one_before(tmp_path, monkeypatch):
    config = write(tmp_path / "config.yml", "src_bucket: raw\njobs: 1\nlog_level: error\n")
    assert Config.read(config, environ={}).jobs == 1
    write(tmp_path / "override.yml", "jobs: 2\nlog_level: null\nsrc_suffix: .nxs\n")
    found = Config.read(config, environ={})
    assert (found.src_bucket, found.jobs, found.log_level, found.src_suffix) == (
        *("raw", 2, "info", ".nxs"),
    )
    secrets = write(tmp_path / "secrets.yml", "hs_password: pa55\njobs: 3\n")
    found = Config.read(config, secrets=secrets, environ={})
    assert (found.jobs, found.hs_password) == (3, "pa55")
    environ = {"JOBS": "4", "HS_PASSWORD": "word", "SRC_SUFFIX": "", "HSDS_ENDPOINT": "http://h"}
    found = Config.read(config, secrets=secrets, environ=environ)
    assert (found.jobs, found.hs_password, found.src_suffix) == (4, "word", ".nxs")
    assert found.hsds_global == "http://h"
    assert Config.read(config, environ={**environ, "HSDS_GLOBAL": "x"}).hsds_global == "x"
    assert Config.read(config, environ=environ, jobs=5, src_bucket=None).jobs == 5
    other = write(tmp_path / "other.yml", "jobs: 7\n")
    assert Config.read(config, override=other, environ={}).jobs == 7
    monkeypatch.chdir(tmp_path)
    assert Config.read(environ={"DOSNA_LOADER_SECRETS": "secrets.yml"}).hs_password == "pa55"


def test_the_keys_of_the_loader_of_hdf_group_are_there():
    theirs = "src_bucket src_prefix src_suffix tgt_bucket tgt_folder link_files inventory_domain"
    theirs += " hs_username hs_password public_read aws_s3_gateway aws_region hsds_global"
    theirs += " hsds_local watchdog_sleep_time log_level"
    assert set(theirs.split()) < set(KEYS)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("src_buket: raw", "'src_buket'"),
        ("jobs: many", "'jobs'"),
        ("jobs: 0", "jobs must be at least 1"),
        ("lease_time: 0", "lease_time must be a positive number"),
        ("log_level: loud", "log_level must be one of debug"),
        ("memory_limit: 5q", "memory_limit: '5q' is not a size"),
        ("on_error: stop", "on_error must be 'raise' or 'skip'"),
        ("src_bucket: [a, b]", "src_bucket must be a single value"),
        ("just words", "keys and values"),
        ("a: b: c", "config.yml is not YAML, line 1"),
        ("target: ram:a\ntgt_folder: hdf5://home/", "tgt_folder"),
        ("hs_password: pa55", "config.yml has a secret, hs_password"),
        ("inventory: postgresql://u:pa55@h/d", "config.yml has a secret, inventory"),
        ("aws_secret_access_key: pa55", "has a secret"),
    ],
)
def test_what_is_wrong_is_said_without_secrets(tmp_path, text, words):
    with pytest.raises(ConfigurationError) as found:
        Config.read(write(tmp_path / "config.yml", text), environ={})
    assert words in str(found.value)
    assert "pa55" not in str(found.value)


def test_secrets_are_not_printed(tmp_path, monkeypatch, capsys):
    require("psycopg")
    monkeypatch.chdir(tmp_path)
    for key in ("HS_PASSWORD", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"):
        monkeypatch.setenv(key, "pa55word")
    (tmp_path / "raw").mkdir()
    assert main(["loader", "init", "--src-bucket", "./raw", "--target", "file:out"]) == 0
    shown = capsys.readouterr()
    assert "hs_password: ***" in shown.out
    assert "pa55word" not in shown.out + shown.err + repr(Config.read())
    url = "postgresql://user:pa55word@nowhere.invalid/x"
    config = Config.read(environ={"INVENTORY": url}, src_bucket="./raw")
    assert "pa55word" not in str(config.shown())
    with pytest.raises(StorageError) as found:
        loader.status(config)
    assert "user:***@nowhere.invalid" in str(found.value)
    assert "pa55word" not in str(found.value)


def test_values_are_taken_as_they_are_written(tmp_path):
    """YAML 1.1 takes 0123 for 83, 12:30 for 750 and 2024_01 for 202401."""
    values = {"src_prefix": "2024_01", "src_suffix": "1.10", "tgt_bucket": "12:30"}
    values |= {"hs_username": "no", "aws_region": "0123"}
    text = "".join(f"{key}: {value}\n" for key, value in values.items())
    config = write(tmp_path / "config.yml", f"{text}link_files: on\ntgt_folder: ~\n")
    secrets = write(tmp_path / "secrets.yml", "hs_password: 0123\n")
    found = Config.read(config, secrets=secrets, environ={})
    assert {key: getattr(found, key) for key in values} == values
    assert (found.link_files, found.tgt_folder, found.hs_password) == (True, None, "0123")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:pa55word@h/d",
        "postgresql://user:with@pa55word@h/d",
        "postgresql://h/d?user=me&password=pa55word",
        "postgresql://user:pa55word@h:port/d",
    ],
)
def test_passwords_in_urls_are_not_printed(tmp_path, url):
    text = f"inventory: {url}\n"
    with pytest.raises(ConfigurationError, match="has a secret, inventory"):
        Config.read(write(tmp_path / "config.yml", text), environ={})
    config = Config(inventory=url)
    assert "pa55word" not in f"{config!r} {config.shown()}"
    if "port" in url.rpartition(":")[2]:
        with pytest.raises(ConfigurationError, match="URL of a database") as found:
            Inventory(url)
        assert "pa55word" not in str(found.value)


@pytest.mark.parametrize("key", ["target", "aws_s3_gateway", "hsds_global", "src_bucket"])
def test_urls_with_a_password_are_refused_where_they_would_be_shown(key):
    with pytest.raises(ConfigurationError, match=f"{key} has a password in it") as found:
        Config(**{key: "s3://b/a?endpoint_url=http://me:pa55word@h:9000"})
    assert "pa55word" not in str(found.value)


def test_sizes_and_places():
    assert Config(memory_limit="512m").memory_bytes == 512 << 20
    assert [Config(src_bucket=b).in_folder for b in ("raw", "s3://raw", "./raw", "/data")] == [
        *(False, False, True, True),
    ]
    with pytest.raises(ConfigurationError, match="src_bucket is missing"):
        open_bucket(Config())
    with pytest.raises(ConfigurationError, match="name of a bucket"):
        open_bucket(Config(src_bucket="s3://raw/scans"))
    with pytest.raises(ConfigurationError, match="mysql"):
        Inventory("mysql://host/db")
    with pytest.raises(ConfigurationError, match="URL of a database"):
        Inventory("here")


# -- inventory ----------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "postgresql"])
def inventory_url(request, tmp_path):
    if request.param == "postgresql":
        return request.getfixturevalue("postgres")
    return f"sqlite:///{tmp_path}/inventory.sqlite"


@pytest.fixture
def inventory(inventory_url):
    with Inventory(inventory_url) as made:
        made.prepare()
        yield made


def states(inventory):
    return [(row.load_status, row.diff_status) for row in inventory.rows()]


def test_many_claim_at_a_time_and_each_file_is_had_once(inventory, inventory_url):
    entries = [Entry(f"{n}", n, "e") for n in range(120)]
    assert inventory.add(entries) == (120, 0)
    had, errors = [], []

    def work():
        try:
            with Inventory(inventory_url) as mine:
                mine.prepare()
                while claim := mine.claim("load", "w", 60, 3):
                    had.append(claim.key)
                    assert mine.loaded(claim, Entry(claim.key, claim.size, claim.etag))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert Counter(had) == Counter(e.key for e in entries)
    assert {row.loads for row in inventory.rows()} == {1}


def test_the_life_of_a_claim(inventory):
    assert inventory.add(ENTRIES[:1]) == (1, 0)
    assert inventory.add(ENTRIES[:1]) == (0, 0)
    lost = inventory.claim("load", "dead", -1, 3)
    held = inventory.claim("load", "living", 60, 3)
    assert (lost.attempts, held.attempts, held.key) == (1, 2, "raw/0.h5")
    assert inventory.claim("load", "third", 60, 3) is None
    assert inventory.renew([lost.token, held.token], 60) == {held.token}
    entry = ENTRIES[0]
    for change in (
        lambda: inventory.loaded(lost, entry),
        lambda: inventory.release("load", lost),
        lambda: inventory.failed("load", lost, "x", 1, 3),
        lambda: inventory.outdated(lost, "x"),
        lambda: inventory.compared(lost, True, ""),
    ):
        assert change() is False
    assert states(inventory) == [("running", "not yet")]
    assert inventory.claim("diff", "early", 60, 3) is None
    assert inventory.loaded(held, entry, "a remark")
    assert not inventory.loaded(held, entry)
    (row,) = inventory.rows()
    assert (row.load_status, row.diff_status, row.loads, row.message) == (
        *("done", "pending", 1, "a remark"),
    )
    assert row.load_start <= row.load_finish
    verified = inventory.claim("diff", "v", 60, 3)
    assert inventory.compared(verified, False, "elements differ")
    assert states(inventory) == [("done", "different")]
    assert inventory.unsettled("diff") == 0


def test_failures_are_tried_again_later_and_then_no_more(inventory):
    inventory.add(ENTRIES[:2])
    first = inventory.claim("load", "w", 60, 2)
    assert inventory.failed("load", first, "broken", 3600, 2)
    assert inventory.claim("load", "w", 60, 2).key == "raw/1.h5"
    assert inventory.claim("load", "w", 60, 2) is None  # not before an hour
    assert inventory.rows()[0].message == "broken"
    assert inventory.reset() == 0
    assert inventory.reset(every=True) == 1  # and not what is being loaded
    for _ in range(2):
        claim = inventory.claim("load", "w", 60, 2)
        assert inventory.failed("load", claim, "broken", 0, 2)
    assert states(inventory)[0] == ("failed", "not yet")
    assert inventory.unsettled("load") == 1
    assert inventory.counts().load == {"failed": 1, "running": 1}


def test_a_file_that_kills_its_workers_is_given_up(inventory):
    inventory.add(ENTRIES[:1])
    for _ in range(3):
        assert inventory.claim("load", "host/7", -1, 3)
    assert inventory.claim("load", "host/8", -1, 3) is None
    (row,) = inventory.rows("failed")
    assert row.message == "given up: 3 workers died or stalled at it, the last of them host/7"
    assert inventory.reset("raw/?.h5") == 1
    assert inventory.claim("load", "host/9", 60, 3).attempts == 1


def test_changed_files_are_loaded_again(inventory):
    inventory.add(ENTRIES[:3])
    done, loading = (inventory.claim("load", "w", 60, 3) for _ in range(2))
    assert inventory.loaded(done, ENTRIES[0])
    changed = [Entry(e.key, e.size, "new") for e in ENTRIES[:3]]
    assert inventory.add(changed, asked=1.0) == (0, 1)  # the others were opened since
    assert inventory.add(changed) == (0, 2)
    # What is being loaded stays with who has it, but is not done when that ends.
    assert states(inventory) == [
        *[("pending", "not yet"), ("running", "not yet"), ("pending", "not yet")],
    ]
    assert inventory.renew([loading.token], 60) == {loading.token}
    assert inventory.loaded(loading, ENTRIES[1])
    assert states(inventory)[1] == ("pending", "not yet")
    again = inventory.claim("load", "w", 60, 3)
    assert (again.key, again.etag, again.loads, again.attempts) == ("raw/0.h5", "new", 1, 1)
    # Newer when it was opened than when it was listed.
    newest = Entry(again.key, 7, "newest")
    assert inventory.loaded(again, newest)
    assert inventory.rows()[0].etag == "newest"
    verifying = inventory.claim("diff", "v", 60, 3)
    assert inventory.add([Entry(again.key, 7, "later still")]) == (0, 1)
    assert not inventory.compared(verifying, True, "PASSED")
    assert states(inventory)[0] == ("pending", "not yet")


@pytest.mark.parametrize("how", ["failed", "released", "died"])
def test_a_file_that_changes_during_its_last_attempt_has_all_of_them_again(inventory, how):
    inventory.add(ENTRIES[:1])
    claim = inventory.claim("load", "w", -1 if how == "died" else 60, 1)
    inventory.add([Entry("raw/0.h5", 1, "complete now")])
    if how == "failed":
        assert inventory.failed("load", claim, "truncated", 3600, 1)
    elif how == "released":
        assert inventory.release("load", claim)
    again = inventory.claim("load", "w", 60, 1)
    assert (again.etag, again.attempts) == ("complete now", 1)
    assert inventory.failed("load", again, "broken", 0, 1)
    assert states(inventory) == [("failed", "not yet")]


def test_reset_chooses(inventory):
    inventory.add([Entry(k, 1, "e") for k in ("a/1", "a/2", "b/1", "a%1")])
    for claim in [inventory.claim("load", "w", 60, 3) for _ in range(3)]:
        inventory.loaded(claim, Entry(claim.key, 1, "e"))
    for passed in (False, True, False):
        inventory.compared(inventory.claim("diff", "w", 60, 3), passed, "")
    assert inventory.reset("a%*") == 0
    assert inventory.reset("a/*", diff_only=True) == 1
    assert states(inventory)[0] == ("done", "pending")
    assert inventory.reset() == 1
    assert states(inventory)[2] == ("pending", "not yet")
    assert inventory.reset("a*", every=True) == 3
    inventory.add([Entry("A/[1]", 1, "e")])
    assert inventory.reset("a/*", every=True) == 2
    assert inventory.reset("?/[[]?]", every=True) == 0
    assert inventory.reset("?/[?]", every=True) == 1


def test_an_inventory_is_of_one_place(inventory, inventory_url):
    with Inventory(inventory_url) as other:
        other.prepare(source="s3://raw", target="file:a")
        other.prepare(source="s3://raw")
        with pytest.raises(ConfigurationError, match="source 's3://raw'"):
            other.prepare(source="s3://more")


def test_a_database_that_is_away_is_a_storage_error(tmp_path):
    with (
        Inventory(f"sqlite:///{tmp_path}/no/such/folder.sqlite") as inventory,
        pytest.raises(StorageError, match=r"folder.sqlite cannot be used: unable to open"),
    ):
        inventory.prepare()


class InventoryMachine(RuleBasedStateMachine):
    """An inventory beside a plain model of it; leases end at once, or never."""

    @initialize()
    def begin(self):
        self.path = Path(os.environ["PYTEST_FOLDER"]) / f"{id(self)}.sqlite"
        self.path.unlink(missing_ok=True)
        self.inventory = Inventory(f"sqlite:///{self.path}")
        self.inventory.prepare()
        self.model, self.claims = {}, {}

    def teardown(self):
        if hasattr(self, "inventory"):
            self.inventory.close()

    @rule(key=st.sampled_from("abc"), etag=st.integers(0, 2))
    def listed(self, key, etag):
        self.inventory.add([Entry(key, 1, str(etag))])
        row = self.model.setdefault(key, {"etag": etag, "load": "pending", "held": None})
        if row["etag"] != etag:
            row["etag"] = etag
            if row["load"] != "running":
                row |= {"load": "pending", "held": None}

    @rule(dies=st.booleans())
    def claimed(self, dies):
        claim = self.inventory.claim("load", "w", -1 if dies else 3600, 1000)
        free = {
            key
            for key, row in self.model.items()
            if row["load"] == "pending" or (row["load"] == "running" and row["dead"])
        }
        assert (claim is None) == (not free)
        if claim is not None:
            assert claim.key in free
            assert claim.etag == str(self.model[claim.key]["etag"])
            self.claims[claim.token] = claim
            self.model[claim.key] |= {"load": "running", "held": claim.token, "dead": dies}

    @rule(data=st.data(), how=st.sampled_from(["loaded", "failed", "released"]))
    def ended(self, data, how):
        if not self.claims:
            return
        token = data.draw(st.sampled_from(list(self.claims)))
        claim, row = self.claims[token], self.model[self.claims[token].key]
        holds = row["held"] == token
        if how == "loaded":
            done = self.inventory.loaded(claim, Entry(claim.key, 1, claim.etag))
        elif how == "failed":
            done = self.inventory.failed("load", claim, "why", 0, 1000)
        else:
            done = self.inventory.release("load", claim)
        assert done == holds
        if holds:
            same = claim.etag == str(row["etag"])
            row |= {"load": "done" if how == "loaded" and same else "pending", "held": None}

    @invariant()
    def agrees(self):
        if hasattr(self, "inventory"):
            found = {row.key: (row.etag, row.load_status) for row in self.inventory.rows()}
            assert found == {k: (str(row["etag"]), row["load"]) for k, row in self.model.items()}


def test_the_inventory_does_as_its_model(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTEST_FOLDER", str(tmp_path))
    run_state_machine_as_test(
        InventoryMachine, settings=settings(max_examples=15, stateful_step_count=20)
    )


# -- files --------------------------------------------------------------------------------


def test_a_folder_is_listed_page_by_page(tmp_path):
    files = {f"{n % 3}/deep/{n}.h5": b"x" * n for n in range(30)}
    for key, data in {**files, "a.txt": b"", "2/b.h5.part": b""}.items():
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / key).write_bytes(data)
    os.symlink(tmp_path, tmp_path / "0/loop")
    os.symlink("nowhere", tmp_path / "0/gone.h5")
    bucket = open_bucket(Config(src_bucket=f"{tmp_path}/", src_suffix=".h5"))
    found = {e.key: e.size for page in bucket.pages() for e in page}
    assert found == {key: len(data) for key, data in files.items()}
    some = open_bucket(Config(src_bucket=f"{tmp_path}/", src_prefix="1/deep/1"))
    assert {e.key for page in some.pages() for e in page} == {
        key for key in files if key.startswith("1/deep/1")
    }
    with pytest.raises(StorageError, match="no such folder"):
        list(open_bucket(Config(src_bucket=f"{tmp_path}/none")).pages())


class ManyKeys(Bucket):
    """A double of a bucket: lists as many keys as one likes."""

    location = "s3://many"
    count = 20_000

    def _pages(self):
        for start in range(0, self.count, 1000):
            yield [Entry(f"raw/{n:09}.h5", n, f"{n:032}") for n in range(start, start + 1000)]

    def open(self, key, size, whole=True):
        raise NotImplementedError

    def entry(self, key, file):
        raise NotImplementedError


def test_watching_holds_a_page_of_keys_however_many_there_are(tmp_path):
    from dosna.loader.watcher import watch

    def peak(count):
        config = Config(src_bucket="many")
        bucket = ManyKeys(config)
        bucket.count = count
        with Inventory(f"sqlite:///{tmp_path}/{count}.sqlite") as inventory:
            inventory.prepare()
            tracemalloc.start()
            try:
                assert watch(config, inventory, bucket, True, threading.Event()) == (count, 0)
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()

    peak(1000)
    assert peak(6000) < 1.5 * peak(2000)


# -- loading and verifying ----------------------------------------------------------------

FILES = {"one.h5": (1, False), "deep/two.nxs": (2, False), "deep/er/three.h5": (3, True)}


@pytest.fixture(params=["hdf5", "file"])
def config(request, tmp_path):
    write_folder(tmp_path / "raw", FILES)
    return Config(
        src_bucket=f"{tmp_path}/raw",
        target=f"{request.param}:{tmp_path}/out",
        inventory=f"sqlite:///{tmp_path}/inventory.sqlite",
        retry_time=0.0,
        max_attempts=2,
        memory_limit="16m",
        jobs=2,
    )


@pytest.fixture
def loaded(config):
    loader.init(config)
    assert loader.watch(config, once=True) == (3, 0)
    assert loader.load(config, once=True) == 3
    return config


def verify(config):
    """Verify all again, and give what is said of each file."""
    loader.reset(config, every=True, diff_only=True)
    loader.diff(config, once=True)
    with loader.open_inventory(config) as inventory:
        return {row.key: row.message for row in inventory.rows()}


PASSED = dict.fromkeys(FILES, "PASSED")


def test_files_become_trees_of_datasets(loaded):
    assert loader.diff(loaded, once=True) == 3
    found = loader.status(loaded)
    assert (found.counts.load, found.counts.diff) == ({"done": 3}, {"done": 3})
    assert found.failures == []
    assert found.seconds_left == 0
    with connect(loaded.target) as con:
        for key, (number, large) in FILES.items():
            check_loaded(con, key, number, large)
    assert loader.load(loaded, once=True) == 0


FRAMES = "one.h5/entry/data/frames"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda ds: ds.__setitem__((2, 3, 4), ds[2, 3, 4] ^ 1), r"in 1 elements: first at \(2, 3"),
        (lambda ds: ds.attrs.update(units="cts"), "attribute 'units' is 'counts' in the file, an"),
        (lambda ds: ds.attrs.update(more=1), "attribute 'more' is in the target, and not in"),
        (lambda ds: ds.attrs.clear(), "attribute 'units' is not in the target"),
        (lambda ds: ds.resize((3, 24, 16)), r"shape is \(3, 24, 17\) in the file, and \(3, 24, 1"),
        (lambda ds: ds.connection.del_dataset(ds.name), "frames: not in the target"),
        (
            lambda ds: ds.connection.create_dataset("one.h5/entry/more", shape=(1,)),
            "entry/more: in the target, and not in the file",
        ),
        (
            lambda ds: ds.connection.set_group_attrs("one.h5/entry", {"NX_class": "NXdata"}),
            "group entry: attribute 'NX_class' is 'NXentry' in the file, and 'NXdata' in the",
        ),
    ],
)
def test_what_differs_is_found(loaded, change, words):
    assert verify(loaded) == PASSED
    con, name = dn.open_url(f"{loaded.target}//{FRAMES}", engine="cpu")
    with con:
        change(con[name])
    found = verify(loaded)
    assert [key for key in FILES if found[key] != "PASSED"] == ["one.h5"]
    assert re.search(words, found["one.h5"])
    assert loader.status(loaded).failed == 1
    assert loader.reset(loaded) == 1


def test_a_dtype_that_differs_is_found(loaded):
    con, name = dn.open_url(f"{loaded.target}//{FRAMES}", engine="cpu")
    with con:
        data, origin, attrs = con[name][...], con[name].origin, dict(con[name].attrs)
        con.del_dataset(name)
        con.create_dataset(name, data=data.astype("i4"), origin=origin, attrs=attrs)
    assert "dtype is uint16 in the file, and int32" in verify(loaded)["one.h5"]


def test_records_are_compared_as_the_target_stores_them(config, tmp_path):
    records = np.zeros(3, [("a", ">i4"), ("b", "<f8", (2,))])
    records["a"] = [1, -2, 3]
    with h5py.File(tmp_path / "raw/records.h5", "w") as file:
        file["table"] = records
    loader.watch(config, once=True)
    loader.load(config, once=True)
    assert verify(config) == {**PASSED, "records.h5": "PASSED"}
    con, name = dn.open_url(f"{config.target}//records.h5/table", engine="cpu")
    with con:
        changed = con[name][...]
        changed["a"][1] = 2
        con[name][...] = changed
    assert "first at (1,)" in verify(config)["records.h5"]


def test_what_a_target_cannot_store_is_not_missed_there(config, tmp_path):
    config = replace(config, on_error="skip")
    with h5py.File(tmp_path / "raw/wide.h5", "w") as file:
        file["wide"], file["plain"] = np.zeros(3, np.longdouble), np.zeros(3)
    loader.watch(config, once=True)
    loader.load(config, once=True)
    con, _ = dn.open_url(f"{config.target}//wide.h5/plain", engine="cpu")
    with con:
        left_out = not con.has_dataset("wide.h5/wide")
        assert ("not compared: wide (" in verify(config)["wide.h5"]) == left_out
        assert verify(config)["wide.h5"].startswith("PASSED")
        con.del_dataset("wide.h5/plain")
        assert verify(config)["wide.h5"] == "plain: not in the target"


def test_names_that_no_dataset_can_have(config, tmp_path):
    config = replace(config, on_error="skip")
    for number in range(2):  # loaded, and loaded again
        with h5py.File(tmp_path / "raw/odd.h5", "w") as file:
            file["plain"] = np.arange(3)
            file[".hidden/x"] = np.arange(4 + number)
            file[".hidden"].attrs["number"] = number
            file[b"caf\xe9"] = np.arange(5)
            file.create_dataset(b"ref\xe9", (2,), h5py.ref_dtype)
        loader.watch(config, once=True)
        loader.load(config, once=True)
        assert verify(config)["odd.h5"].startswith("PASSED; not compared: ref? (")
    con, _ = dn.open_url(f"{config.target}//odd.h5/plain", engine="cpu")
    with con:
        assert con.names_in("odd.h5") == [
            f"odd.h5/{n}" for n in ("%2Ehidden/x", "caf%E9", "plain")
        ]
        assert con.get_group_attrs("odd.h5/%2Ehidden") == {"number": 1}
        con.del_dataset("odd.h5/%2Ehidden/x")
    assert verify(config)["odd.h5"] == ".hidden/x: not in the target"


def test_a_file_that_failed_very_often_waits_an_hour(config):
    loader.watch(config, once=True)
    with loader.open_inventory(config) as inventory:
        claim = inventory.claim("load", "worker", 60, 1)
        assert inventory.failed("load", replace(claim, attempts=5000), "again", 10, 10_000)
        (row,) = [row for row in inventory.rows() if row.key == claim.key]
    assert row.load_status == "pending"


def test_a_single_flipped_byte_is_found_wherever_it_is(loaded, tmp_path):
    assert verify(loaded) == PASSED
    with h5py.File(tmp_path / "raw/one.h5") as file:
        offset = file["entry/data/frames"].id.get_chunk_info(1).byte_offset
        energy = file["entry/energy"].id.get_offset()
    # In the source, once in compressed bytes, and once in a number.
    for place in (offset + 30, energy + 2):
        flip(tmp_path / "raw/one.h5", place)
        assert "one.h5" in {key for key, text in verify(loaded).items() if text != "PASSED"}
        flip(tmp_path / "raw/one.h5", place)
        assert verify(loaded) == PASSED
    # In each file of a dataset's chunks.
    stored = [path for path in (tmp_path / "out" / FRAMES).rglob("*") if is_chunk(path)]
    assert stored
    for path in stored:
        place = path.stat().st_size - 9
        flip(path, place)
        assert verify(loaded)["one.h5"] != "PASSED", path
        flip(path, place)
        assert verify(loaded) == PASSED


def is_chunk(path):
    return path.is_file() and (path.name.startswith("chunk_") or "/c/" in str(path))


def test_minus_zero_is_not_zero(tmp_path):
    (tmp_path / "raw").mkdir()
    with h5py.File(tmp_path / "raw/a.h5", "w") as file:
        file["x"] = np.array([1.0, -0.0, np.nan])
    inventory = f"sqlite:///{tmp_path}/i"
    config = Config(src_bucket=f"{tmp_path}/raw", target="ram:zeros", inventory=inventory, jobs=1)
    loader.watch(config, once=True)
    loader.load(config, once=True)
    assert verify(config) == {"a.h5": "PASSED"}
    with dn.Connection("zeros", backend="ram") as con:
        con["a.h5/x"][1] = 0.0
    assert "first at (1,): np.float64(-0.0) in the file, and np.float64(0.0)" in str(
        verify(config)
    )


def test_files_that_change_are_loaded_again(loaded, tmp_path):
    assert verify(loaded) == PASSED
    write_folder(tmp_path / "raw", {"one.h5": (7, True), "four.h5": (4, False)})
    # Who verifies notices before the watcher does.
    assert "to be loaded again" in verify_once(loaded)["one.h5"]
    assert loader.watch(loaded, once=True) == (1, 1)
    assert loader.load(loaded, once=True) == 2
    assert verify(loaded) == {**PASSED, "four.h5": "PASSED"}
    # And back: what the former state alone had is gone.
    write_folder(tmp_path / "raw", {"one.h5": (1, False)})
    assert loader.watch(loaded, once=True) == (0, 1)
    loader.load(loaded, once=True)
    assert verify(loaded) == {**PASSED, "four.h5": "PASSED"}
    with connect(loaded.target) as con:
        check_loaded(con, "one.h5", 1)


def write_frames(path, value, rows):
    with h5py.File(path, "w") as file:
        file["before"] = np.arange(1000 * value)  # so that chunks lie elsewhere in each state
        frames = np.full((24, 32), value, "i8") + np.arange(24)[:, None]
        file.create_dataset("frames", data=frames, chunks=(rows, 32))


def after_checks(count, act):
    """Give a check that acts when it is called for the given time."""
    left = iter(range(count))
    return lambda: act() if next(left, None) == count - 1 else None


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("checks", [2, 5])
def test_a_file_that_changes_while_it_is_loaded_is_loaded_whole(
    config, tmp_path, in_place, checks
):
    config = replace(config, src_suffix="changing.h5", chunk_size="1k")
    path = tmp_path / "raw/changing.h5"
    write_frames(path, 1, 2)
    write_frames(tmp_path / "new.h5", 2, 3)
    loader.init(config)
    loader.watch(config, once=True)

    def change():
        if in_place:
            path.write_bytes((tmp_path / "new.h5").read_bytes())
        else:
            os.replace(tmp_path / "new.h5", path)

    with loader.open_inventory(config) as inventory:
        claim = inventory.claim("load", "w", 600, 1)
        target = open_target(config, open_bucket(config))
        entry, _ = target.load(claim, after_checks(checks, change))
        target.close()
    assert entry.etag != claim.etag
    assert entry in next(open_bucket(config).pages())
    with connect(config.target) as con, h5py.File(path) as file:
        np.testing.assert_array_equal(con["changing.h5/frames"][...], file["frames"][...])
        np.testing.assert_array_equal(con["changing.h5/before"][...], file["before"][...])


def test_a_file_that_is_replaced_once_it_is_open_has_not_the_state_of_its_successor(
    config, tmp_path
):
    bucket = open_bucket(config)
    with closing(bucket.open("one.h5", 0)) as file:
        assert bucket.entry("one.h5", file) in next(bucket.pages())
        write_frames(tmp_path / "new.h5", 1, 2)
        os.replace(tmp_path / "new.h5", tmp_path / "raw/one.h5")
        with pytest.raises(SourceChangedError, match="replaced"):
            bucket.entry("one.h5", file)


def test_a_file_that_changes_while_it_is_compared_is_not_said_to_differ(loaded, tmp_path):
    write_frames(tmp_path / "new.h5", 2, 3)
    assert verify(loaded) == PASSED
    with loader.open_inventory(loaded) as inventory:
        inventory.reset("one.h5", every=True, diff_only=True)
        claim = inventory.claim("diff", "w", 600, 1)
        target = open_target(loaded, open_bucket(loaded))
        new, raw = (tmp_path / name for name in ("new.h5", "raw/one.h5"))
        with pytest.raises((OutdatedError, SourceChangedError)):
            target.compare(claim, after_checks(1, lambda: raw.write_bytes(new.read_bytes())))
        target.close()


@pytest.mark.parametrize("attempts", [1, 2])
def test_nothing_stays_of_a_state_that_was_loaded_in_part(config, tmp_path, attempts):
    config = replace(config, src_suffix="part.h5", max_attempts=attempts, retry_time=3600.0)
    path = tmp_path / "raw" / "part.h5"
    with h5py.File(path, "w") as file:
        file["a"] = np.arange(20)
        damaged = file.create_dataset("b", data=np.arange(20), chunks=(20,), fletcher32=True)
        damaged[...] = 1
        file.flush()
        offset = damaged.id.get_chunk_info(0).byte_offset
    flip(path, offset)
    loader.init(config)
    assert loader.watch(config, once=True) == (1, 0)
    with loader.open_inventory(config) as inventory:
        claim = inventory.claim("load", "w", 60, attempts)
        target = open_target(config, open_bucket(config))
        with pytest.raises(SourceError, match="damaged"):
            target.load(claim, lambda: None)
        target.close()
        assert inventory.failed("load", claim, "damaged", 3600, attempts)
    with h5py.File(path, "w") as file:
        file["b/c"] = np.arange(30)
    assert loader.watch(config, once=True) == (0, 1)
    assert loader.load(config, once=True) == 1
    assert verify(config) == {"part.h5": "PASSED"}


@pytest.mark.parametrize("link_files", [False, True])
def test_what_groups_said_of_a_former_state_is_gone(config, tmp_path, link_files):
    config = replace(config, link_files=link_files, src_suffix="groups.h5")
    path = tmp_path / "raw" / "groups.h5"
    for attrs in ({"title": "first", "run": 1}, {"title": "second"}):
        with h5py.File(path, "w") as file:
            file["entry/data"] = np.arange(20) + len(attrs)
            for group in ("/", "entry", "entry/notes"):
                file.require_group(group).attrs.update(attrs)
        assert sum(loader.watch(config, once=True)) == 1
        assert loader.load(config, once=True) == 1
        assert verify(config) == {"groups.h5": "PASSED"}


@pytest.mark.parametrize("link_files", [False, True])
def test_what_was_damaged_is_loaded_anew_after_a_reset(config, tmp_path, monkeypatch, link_files):
    monkeypatch.setattr("dosna.sources.hdf5.layout.MOST_KEPT", 0)
    config = replace(config, link_files=link_files)
    loader.watch(config, once=True)
    loader.load(config, once=True)
    assert verify(config) == PASSED
    for path in (tmp_path / "out" / FRAMES).rglob("*"):
        if is_chunk(path):
            flip(path, path.stat().st_size - 9)
    assert verify(config)["one.h5"] != "PASSED"
    assert loader.reset(config) == 1
    assert loader.load(config, once=True) == 1
    assert verify(config) == PASSED


def test_a_file_of_the_same_time_and_another_size_has_changed(config, tmp_path):
    loader.watch(config, once=True)
    path = tmp_path / "raw/one.h5"
    time = path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes() + b"more")
    os.utime(path, ns=(time, time))
    assert loader.watch(config, once=True) == (0, 1)


def verify_once(config):
    """Verify as one process does that nobody loads beside."""
    loader.reset(config, every=True, diff_only=True)
    stop = threading.Event()
    thread = threading.Thread(target=loader.diff, args=(config,), kwargs={"stop": stop})
    thread.start()
    with loader.open_inventory(config) as inventory:
        while any(row.diff_status in ("pending", "running") for row in inventory.rows()):
            thread.join(0.05)
        stop.set()
        thread.join()
        return {row.key: row.message for row in inventory.rows()}


def test_datasets_of_others_are_left_alone(config):
    con, _ = dn.open_url(f"{config.target}//", engine="cpu")
    con.make_place()
    with con:
        con.create_dataset(FRAMES, data=np.arange(5))
        loader.watch(config, once=True)
        loader.load(config, once=True)
        (failed,) = loader.status(config).failures
        assert "exists in connection" in failed.message
        assert con[FRAMES][...].tolist() == [0, 1, 2, 3, 4]


def test_what_cannot_be_loaded_is_said(config, tmp_path):
    raw = tmp_path / "raw"
    (raw / "no.h5").write_text("no HDF5")
    (raw / "a\\b.h5").write_bytes((raw / "one.h5").read_bytes())
    with h5py.File(raw / "refs.h5", "w") as file:
        file["x"] = np.arange(3)
        file.create_dataset("refs", data=[file["x"].ref], dtype=h5py.ref_dtype)
    loader.watch(config, once=True)
    assert loader.load(config, once=True) == 3
    failures = {row.key: row for row in loader.status(config).failures}
    assert "not an HDF5 file" in failures["no.h5"].message
    assert "control character or backslash" in failures["a\\b.h5"].message
    assert "elements are references" in failures["refs.h5"].message
    assert {row.load_attempts for row in failures.values()} == {2}
    skipping = Config(**{**config.__dict__, "on_error": "skip"})
    loader.reset(skipping, "refs*")
    assert loader.load(skipping, once=True) == 1
    assert loader.diff(skipping, once=True) == 4
    with loader.open_inventory(skipping) as inventory:
        (row,) = [row for row in inventory.rows() if row.key == "refs.h5"]
    assert row.load_status == "done"
    assert row.message.startswith("PASSED; not compared: refs (its elements are references")


@pytest.mark.parametrize("backend", ["hdf5", "file"])
def test_files_are_linked(tmp_path, backend):
    write_folder(tmp_path / "raw", FILES)
    given = {"src_bucket": f"{tmp_path}/raw", "inventory": f"sqlite:///{tmp_path}/i"}
    config = Config(**given, target=f"{backend}:{tmp_path}/out", link_files=True)
    loader.watch(config, once=True)
    assert loader.load(config, once=True) == 3
    assert verify(config) == PASSED
    with connect(config.target) as con:
        assert con[FRAMES].linked
        for key, (number, large) in FILES.items():
            check_loaded(con, key, number, large)
    write_folder(tmp_path / "raw", {"one.h5": (5, False)})
    assert loader.watch(config, once=True) == (0, 1)
    assert loader.load(config, once=True) == 1
    assert verify(config) == PASSED
    with connect(config.target) as con:
        check_loaded(con, "one.h5", 5)


# -- the command --------------------------------------------------------------------------


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "raw", {"a.h5": (1, False), "b.h5": (2, False)})
    (tmp_path / "raw/c.h5").write_text("no HDF5")
    (tmp_path / "config.yml").write_text(
        "src_bucket: ./raw\ntarget: file:out\nretry_time: 0\nmax_attempts: 2\nlog_level: error\n"
        "inventory_domain: hdf5://home/x\nheartbeat: alive\n"
    )

    def do(*arguments, code=0):
        assert main(["loader", *arguments]) == code
        return capsys.readouterr()

    assert json.loads(do("init", "--json").out)["target"] == "file:out"
    assert do("watch", "--once").out == "3 new files, 0 changed\n"
    assert do("load", "--once").out == "2 files loaded\n"
    assert do("diff", "--once", "--jobs", "1").out == "2 files verified\n"
    assert (tmp_path / "alive").exists()
    shown = do("status", code=1).out
    assert shown.splitlines()[1].split() == ["load", "0", "0", "2", "1", "-", "0.0"]
    assert "load failed: c.h5: " in shown
    found = json.loads(do("status", "--json", code=1).out)
    assert found["load"] == {"pending": 0, "running": 0, "done": 2, "failed": 1}
    assert found["failures"][0]["attempts"] == 2
    assert do("reset", "d*").out == "0 files will be tried again\n"
    assert do("reset").out == "1 files will be tried again\n"
    write(tmp_path / "other.yml", "nothing: 1\n")
    assert "unknown option 'nothing'" in do("status", "--override", "other.yml", code=2).err
    write(tmp_path / "other.yml", "src_bucket: ./raw\ninventory: sqlite:///x\n")
    assert "target is missing" in do("load", "--config", "other.yml", code=2).err


@pytest.mark.parametrize("ignored", [False, True])
def test_ctrl_c_ends_a_role_unless_it_was_started_to_ignore_it(ignored):
    """As it is in the background of a script, where Ctrl-C is meant for another program."""
    from dosna.cli.commands.loader import stop_event

    with taking_ctrl_c():
        if ignored:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
        with stop_event() as stop:
            signal.raise_signal(signal.SIGINT)
            assert stop.is_set() != ignored
            signal.raise_signal(signal.SIGTERM)
            assert stop.is_set()
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_key_that_the_target_calls_a_document_costs_only_that_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keys = ["2024/dataset.h5", "2024/scan.h5"]
    write_folder(tmp_path / "raw", {key: (n, False) for n, key in enumerate(keys)})
    (tmp_path / "tgt").mkdir()
    config = tmp_path / "config.yml"
    config.write_text(
        "src_bucket: ./raw\ntarget: hdf5:tgt\ninventory: sqlite:///l.sqlite\nmax_attempts: 1\n"
    )
    for role in ("init", "watch --once", "load --once"):
        main(["loader", *role.split(), "--config", str(config)])
    with dn.Connection("tgt", backend="hdf5") as con:
        check_loaded(con, "2024/scan.h5", 1)
        assert con.names_in("2024/dataset.h5") == []
