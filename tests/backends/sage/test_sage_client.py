"""The configuration of the backend sage, and what is done before Motr's library is asked."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import HANG, require

import dosna as dn
from dosna import errors
from dosna.backends.sage import binding as motr
from dosna.backends.sage import configuration as sage_conf
from dosna.backends.sage import start as sage_start
from dosna.testing.timing import within

GOOD = {
    "laddr": "inet:tcp:192.0.2.10@4001",
    "ha_addr": "inet:tcp:192.0.2.1@2001",
    "prof_id": "<0x7000000000000001:0x0>",
    "proc_fid": "<0x7200000000000001:0x64>",
}


def write(path, values):
    path.write_text("".join(f"{key} = {value}\n" for key, value in values.items()))
    return str(path)


def load(tmp_path, **changes):
    return sage_conf.load(write(tmp_path / "sage.conf", {**GOOD, **changes}))


def test_a_file_is_read(tmp_path):
    path = tmp_path / "sage.conf"
    path.write_text(
        "# a comment\n\n"
        "laddr=inet:tcp:192.0.2.10@4001   inet:tcp:192.0.2.10@4002  # two\n"
        "  ha_addr = 192.0.2.1@tcp:12345:34:1\n"
        "prof_id = 0x7000000000000001:0\n"
        "proc_fid = <0x7200000000000001:0x64>\n"
        "block_size = 65536\n"
    )
    conf = sage_conf.load(str(path))
    assert conf.laddr == ("inet:tcp:192.0.2.10@4001", "inet:tcp:192.0.2.10@4002")
    assert conf.ha_addr == "192.0.2.1@tcp:12345:34:1"
    assert conf.prof_id == "<0x7000000000000001:0x0>"
    assert conf.block_size == 65536
    assert conf.max_rpc_msg_size == 131072


def test_the_sample_is_complete_and_right(pytestconfig):
    path = pytestconfig.rootpath / "sage.sample.conf"
    conf = sage_conf.load(str(path))
    assert conf.block_size == 4096
    text = path.read_text()
    assert all(key in text for key in sage_conf._FORMS)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("laddr", ""),
        ("laddr", "192.0.2.10:4001"),
        ("laddr", "inet:tcp:192.0.2.10@70000"),
        ("laddr", "inet:tcp:192.0.2.10@4001 inet:tcp:192.0.2.10@4001"),
        ("laddr", "192.0.2.10@tcp:12345:34:2000"),
        ("ha_addr", "inet:tcp:192.0.2.1@2001 inet:tcp:192.0.2.1@2002"),
        ("ha_addr", "192.0.2.1@tcp:12345:34:*"),
        ("prof_id", "0x7200000000000001:0x0"),
        ("prof_id", "<0x7000000000000001:0x0"),
        ("prof_id", "0x70000000000000010:0x0"),
        ("proc_fid", "7200000000000001:0x0"),
        ("proc_fid", "<0x7000000000000001:0x0>"),
        ("block_size", "4095"),
        ("block_size", "0"),
        ("block_size", "4k"),
        ("block_size", "-4096"),
        ("tm_recv_queue_min_len", "1"),
        ("max_rpc_msg_size", "1e5"),
    ],
)
def test_a_wrong_value_names_key_value_and_form(tmp_path, key, value):
    with pytest.raises(ValueError, match=f"line .*: {key} = ") as caught:
        load(tmp_path, **{key: value})
    assert repr(value) in str(caught.value)
    assert " is not a" in str(caught.value) or " is not the fid" in str(caught.value)
    assert isinstance(caught.value, errors.ConfigurationError)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("laddr inet:tcp:192.0.2.10@4001\n", "key = value"),
        ("nonsense = 1\n", "unknown key 'nonsense'.*laddr"),
        ("block_size = 4096\nblock_size = 4096\n", "line 2: block_size appears twice"),
        ("block_size = 4096\n", "laddr, ha_addr, prof_id, proc_fid are missing"),
        ("[motr]\n", "key = value"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, text, message):
    path = tmp_path / "sage.conf"
    path.write_text(text)
    with pytest.raises(errors.ConfigurationError, match=message):
        sage_conf.load(str(path))


@given(key=st.sampled_from(sorted(sage_conf._FORMS)), value=st.text(max_size=60))
def test_any_value_is_right_or_a_value_error(tmp_path_factory, key, value):
    path = tmp_path_factory.getbasetemp() / "any.conf"
    path.write_text(f"{key} = {value}\n", encoding="utf-8", errors="surrogatepass")
    with pytest.raises(errors.ConfigurationError):  # at least, other keys are missing
        sage_conf.load(str(path))


@given(
    host=st.from_regex(r"[a-z0-9][a-z0-9.-]{0,20}", fullmatch=True),
    port=st.integers(1, 65535),
    key=st.integers(0, 2**64 - 1),
    container=st.integers(0, 2**56 - 1),
    blocks=st.integers(1, 256),
)
def test_any_right_value_is_taken(tmp_path_factory, host, port, key, container, blocks):
    path = tmp_path_factory.getbasetemp() / "right.conf"
    fid = f"{0x72 << 56 | container:#x}:{key:#x}"
    address = f"inet:tcp:{host}@{port}"
    values = {**GOOD, "laddr": address, "proc_fid": fid, "block_size": blocks * 4096}
    conf = sage_conf.load(write(path, values))
    assert conf.laddr == (address,)
    assert conf.proc_fid == f"<{fid}>"
    assert conf.block_size == blocks * 4096


def test_a_file_for_each_process(tmp_path):
    own, rank = tmp_path / f"{socket.gethostname()}.3.sage.conf", tmp_path / "3.sage.conf"
    plain = tmp_path / "sage.conf"
    with pytest.raises(errors.ConfigurationError) as caught:
        sage_conf.find(plain, True, 3)
    assert str(own) in str(caught.value)
    assert str(rank) in str(caught.value)
    plain.touch()
    with pytest.raises(errors.ConfigurationError):
        sage_conf.find(plain, True, 3)
    rank.touch()
    assert sage_conf.find(plain, True, 3) == str(rank)
    own.touch()
    assert sage_conf.find(plain, True, 3) == str(own)
    assert sage_conf.find(plain, False, 3) == str(plain)


def test_the_rank_is_0_without_mpi(tmp_path):
    con = dn.Connection(
        "trial", backend="sage", conffile=tmp_path / "sage.conf", prefix_conffile=True
    )
    with pytest.raises(errors.ConfigurationError, match=r"0\.sage\.conf"):
        con.connect()


# -- before the library -------------------------------------------------------------------


def test_without_the_binding_the_message_says_how_to_compile_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "_dosna_motr", None)
    con = dn.Connection("trial", backend="sage", conffile=write(tmp_path / "sage.conf", GOOD))
    with pytest.raises(
        errors.MissingDependencyError, match=r"python -m dosna\.backends\.sage\.binding"
    ):
        con.connect()
    assert not con.connected


def test_an_agent_that_is_down_is_an_error_at_once(free_port):
    with within(10), pytest.raises(errors.ConnectionError, match="high-availability agent"):
        sage_start._reach(f"inet:tcp:127.0.0.1@{free_port}", 1000.0)


def test_an_agent_that_listens_is_reached():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        sage_start._reach(f"inet:tcp:127.0.0.1@{listener.getsockname()[1]}", 60.0)


def test_each_process_takes_an_endpoint_of_its_own(free_port):
    # The second is of this test alone on the host, too.
    addresses = (f"inet:tcp:127.0.0.1@{free_port}", f"192.0.2.1@tcp:12345:34:{os.getpid()}")
    code = (
        "import sys; from dosna.backends.sage import start as sage_start\n"
        f"address, claim = sage_start._take_endpoint({addresses!r})\n"
        "print(address, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline().strip() == addresses[0]
        second, claim = sage_start._take_endpoint(addresses)
        assert second == addresses[1]
        with pytest.raises(errors.ConnectionError, match=r"no endpoint is free.*prefix_conffile"):
            sage_start._take_endpoint(addresses)
        process.stdin.close()
        process.wait(HANG)
    first, again = sage_start._take_endpoint(addresses)
    assert first == addresses[0]
    again.close()
    claim.close()


def test_an_endpoint_that_another_program_has_is_passed_over():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = f"inet:tcp:127.0.0.1@{listener.getsockname()[1]}"
        with pytest.raises(errors.ConnectionError, match="in use"):
            sage_start._take_endpoint((address,))


# -- the binding --------------------------------------------------------------------------


def test_headers_that_are_missing_are_named(tmp_path, capsys):
    require("cffi")
    assert motr.main(["--prefix", str(tmp_path)]) == 1
    assert f"{tmp_path}/include/motr/motr/client.h" in capsys.readouterr().err


def test_a_library_that_is_missing_is_named(tmp_path, capsys):
    require("cffi")
    header = tmp_path / "include" / "motr" / "motr" / "client.h"
    header.parent.mkdir(parents=True)
    header.touch()
    assert motr.main(["--prefix", str(tmp_path)]) == 1
    assert f"{tmp_path}/lib/libmotr.so" in capsys.readouterr().err


def test_cffi_that_is_missing_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cffi", None)
    assert motr.main(["--prefix", str(tmp_path)]) == 1
    assert "dosna[sage]" in capsys.readouterr().err


def test_headers_that_do_not_compile_are_an_error(tmp_path, capfd):
    require("cffi")
    for name in ("include/motr/motr/client.h", "lib/libmotr.so"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("this is no C\n")
    with pytest.raises(errors.ConfigurationError, match="cannot be compiled"):
        motr.build(tmp_path, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*"))
