"""The backend sage on a Motr of one's own, beyond the conformance kit.

``DOSNA_SAGE_CONF=/path/sage.conf pytest tests/backends/sage/test_sage_motr.py``; `laddr` there has
three endpoints or more.
"""

from __future__ import annotations

import multiprocessing
import os
import secrets
import subprocess
import sys
import time

import numpy as np
import pytest
from support import HANG

import dosna as dn
from dosna import errors
from dosna.backends.sage import configuration as sage_conf

CONF = os.environ.get("DOSNA_SAGE_CONF")

pytestmark = pytest.mark.skipif(not CONF, reason="DOSNA_SAGE_CONF names no configuration of Motr")

WRITER = """
import sys
import dosna as dn
con = dn.Connection("dosna-tests", backend="sage", conffile=sys.argv[1])
con.connect()
ds = con[sys.argv[2]]
value = int(ds[0])
print("begun", flush=True)
while True:
    value += 1
    ds[:] = value
    ds[:100] = value
"""


def connect(conffile=CONF, **options):
    return dn.Connection("dosna-tests", backend="sage", conffile=conffile, **options)


def changed(folder, key, value):
    """Write the configuration with another value."""
    with open(CONF, encoding="utf-8") as file:
        lines = [line for line in file.read().splitlines() if key not in line]
    path = folder / "sage.conf"
    path.write_text("\n".join([*lines, f"{key} = {value}", ""]))
    return path


@pytest.fixture
def con():
    with connect() as con:
        yield con


@pytest.fixture
def name(con):
    name = f"test-{secrets.token_hex(6)}"
    yield name
    if name in con:
        con.del_dataset(name)


def read_in_child(ds, answers):
    try:
        answers.put(repr(ds[:]))
    except Exception as error:
        answers.put(type(error).__name__)


def test_a_forked_process_gets_an_error_at_once(con, name):
    ds = con.create_dataset(name, data=np.arange(10))
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=read_in_child, args=(ds, answers))
    child.start()
    assert answers.get(timeout=HANG) == "ConnectionError"
    child.join(HANG)
    assert ds[:].tolist() == list(range(10))


def test_a_writer_that_is_killed_leaves_old_or_new(con, name):
    ds = con.create_dataset(name, (300_000,), "f8", chunk_size=300_000)
    ds[:] = 0
    for pause in (0.05, 0.2, 0.5):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, CONF, name], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout.readline() == "begun\n"
            time.sleep(pause)
            writer.kill()
        # A part may have been written and the whole not, but they are of one value each time.
        found = ds[:]
        assert len(set(found.tolist())) == 1
        ds[5] = found[5]


def test_a_process_that_the_cluster_does_not_know_is_an_error(tmp_path):
    path = changed(tmp_path, "proc_fid", "<0x7200000000000001:0xdead>")
    code = (
        "import sys, dosna as dn\n"
        "try:\n"
        "    dn.Connection('dosna-tests', backend='sage', conffile=sys.argv[1]).connect()\n"
        "except dn.errors.ConnectionError as error:\n"
        "    print(error)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=HANG
    )
    assert "proc_fid" in ran.stdout
    assert ran.returncode == 0


def test_another_configuration_in_one_process_is_refused(con, tmp_path):
    path = changed(tmp_path, "block_size", 2 * sage_conf.load(CONF).block_size)
    with pytest.raises(errors.ConnectionError, match="another configuration"):
        connect(str(path)).connect()


def test_each_connection_has_its_own_timeout(con):
    with connect(timeout=7) as other:
        assert other.instance.store.motr.timeout == 7
        assert con.instance.store.motr.timeout == 30
        assert sorted(other) == sorted(con)


@pytest.mark.parametrize("nbytes", [1, 4095, 4096, 4097, 1_000_001, 20_000_000])
def test_objects_of_any_length(con, nbytes):
    store = con.instance.store
    key = f"test-{secrets.token_hex(6)}/c/0"
    data = secrets.token_bytes(nbytes)
    store.put(key, data)
    try:
        assert bytes(store.get(key).data) == data
        assert bytes(store.get(key, (nbytes // 2, nbytes)).data) == data[nbytes // 2 :]
    finally:
        assert store.delete(key)
    assert store.get(key) is None
