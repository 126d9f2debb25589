"""URLs: taken apart and put together, and what each backend makes of a path."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import require

import dosna as dn
from dosna.core.url import Url, without_password
from dosna.errors import ConfigurationError, ConnectionError

TEXT = st.text(max_size=20)


@given(
    st.from_regex(r"[A-Za-z][A-Za-z0-9_.+-]{0,8}", fullmatch=True),
    TEXT,
    st.dictionaries(TEXT, TEXT, max_size=3),
)
def test_what_is_put_together_is_taken_apart_again(backend, path, options):
    url = Url(backend, path, options)
    assert Url.parse(str(url)) == url


def test_a_path_of_bytes_that_are_not_utf_8_survives():
    url = Url("hdf5", os.fsdecode(b"/data/\xff"), {"directory": os.fsdecode(b"\xfe")})
    assert str(url).isascii()
    assert Url.parse(str(url)) == url


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("hdf5:/data/scans", ("hdf5", "/data/scans", {})),
        ("ram:", ("ram", "", {})),
        ("file:a b?durable=yes", ("file", "a b", {"durable": "yes"})),
        ("file:50%25%3F", ("file", "50%?", {})),
        (
            "s3://b/c/d?endpoint_url=http://h:80/p?q=1&verify=/etc/ca+1.pem",
            ("s3", "//b/c/d", {"endpoint_url": "http://h:80/p?q=1", "verify": "/etc/ca+1.pem"}),
        ),
        ("ceph:pool/name?conffile=/etc/c%26d", ("ceph", "pool/name", {"conffile": "/etc/c&d"})),
    ],
)
def test_parts(text, parts):
    assert Url.parse(text) == Url(*parts)


@pytest.mark.parametrize("text", ["", "scan.nxs", "/data/scans", ":x", "1a:x", "a b:c"])
def test_what_is_no_url_is_refused(text):
    with pytest.raises(ConfigurationError, match="BACKEND:PATH"):
        Url.parse(text)


@pytest.mark.parametrize("text", ["ram:" + "a" * 70_000, "ram:\ud800", b"ram:a", None])
def test_what_no_store_could_have_for_a_name_is_refused(text):
    with pytest.raises(ConfigurationError, match="URL"):
        dn.open_url(text)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("nowhere:x", "unknown backend 'nowhere'"),
        ("ram:x?bogus=1", "unknown option 'bogus'"),
        ("ram:x?name=y", "unknown option 'name'"),
        ("ram:x?mode=w", "mode must be"),
        ("ram:x?mode", "key=value"),
        ("ram:x?mode=a&mode=r", "twice"),
    ],
)
def test_options_are_checked(url, says):
    with pytest.raises(ConfigurationError, match=says):
        dn.open_url(url)


@pytest.mark.parametrize(
    ("url", "place", "name"),
    [
        ("ram:", "ram", ""),
        ("ram:trial", "trial", ""),
        ("ram:trial/", "trial", ""),
        ("RAM:trial/entry/tomo", "trial", "entry/tomo"),
        ("ram://trial/entry/", "trial", "entry"),
    ],
)
def test_names_of_a_namespace(url, place, name):
    con, found = dn.open_url(url)
    assert (con.name, found, con.connected, con.mode) == (place, name, False, "a")


def test_a_url_leads_to_the_data():
    with dn.Connection("url-test", backend="ram") as con:
        con.create_dataset("entry/tomo", data=[1, 2, 3])
        other, name = dn.open_url("ram:url-test/entry/tomo?mode=r", engine="cpu")
        with other:
            assert other[name][1:].tolist() == [2, 3]
            assert other.mode == "r"
        con.del_dataset("entry/tomo")
    again, _ = dn.open_url("ram:url-test?mode=r", mode="a")
    assert again.mode == "a"


@pytest.mark.parametrize("backend", ["hdf5", "file"])
class TestFolders:
    @pytest.fixture
    def scans(self, backend, tmp_path, monkeypatch):
        require("h5py" if backend == "hdf5" else "numcodecs")
        (tmp_path / "scans").mkdir()
        monkeypatch.chdir(tmp_path)
        with dn.Connection("scans", backend=backend) as con:
            con.create_dataset("entry/tomo", data=np.arange(6), chunk_size=2)
        return tmp_path / "scans"

    @pytest.mark.parametrize(
        ("path", "place", "name"),
        [
            ("scans", "scans", ""),
            ("{}", "{}", ""),
            ("//{}", "{}", ""),
            ("{}/", "{}", ""),
            ("{}/entry", "{}/entry", ""),
            ("{}/entry/tomo", "{}/entry", "tomo"),
            ("{}/entry/tomo/", "{}/entry", "tomo"),
            ("//{}/entry/tomo", "{}/entry", "tomo"),
            ("scans/new", "scans", "new"),
            ("{}//entry/tomo", "{}", "entry/tomo"),
            ("//{}//new/one", "{}", "new/one"),
            ("new", ".", "new"),
            ("", ".", ""),
            (".", ".", ""),
            ("scans/..", "scans/..", ""),
            ("/", "/", ""),
            ("entry/tomo?directory=scans", "entry", "tomo"),
            ("entry?directory=scans", "entry", ""),
        ],
    )
    def test_where_the_folder_ends(self, backend, scans, path, place, name):
        con, found = dn.open_url(f"{backend}:{path.format(scans)}")
        assert (con.name, found) == (place.format(scans), name)

    def test_each_way_to_a_dataset_leads_there(self, backend, scans):
        for path in ("scans/entry/tomo", f"//{scans}/entry/tomo", "scans//entry/tomo"):
            con, name = dn.open_url(f"{backend}:{path}")
            with con:
                assert con[name][...].tolist() == list(range(6))

    def test_a_host_is_refused(self, backend):
        with pytest.raises(ConfigurationError, match="host"):
            dn.open_url(f"{backend}://server/data")

    def test_options_take_their_types(self, backend, scans):
        con, _ = dn.open_url(f"{backend}:{scans}?durable=yes")
        assert con.instance.durable is True
        with pytest.raises(ConfigurationError, match="bool"):
            dn.open_url(f"{backend}:{scans}?durable=perhaps")

    def test_the_folder_is_made_if_the_one_above_is_there(self, backend, scans):
        con = dn.Connection(f"{scans}/sub", backend=backend)
        for _ in range(2):
            con.make_place()
        with con:
            assert len(con) == 0
        nowhere = dn.Connection(f"{scans}/no/sub", backend=backend)
        with pytest.raises(dn.errors.StorageError, match=r"no folder .*no; make it first"):
            nowhere.make_place()
        with pytest.raises(ConnectionError, match="not a folder"):
            nowhere.connect()


@pytest.mark.parametrize(
    ("url", "place", "bucket", "name"),
    [
        ("s3://beam/scans", "scans", "beam", ""),
        ("s3://beam/scans/entry/tomo", "scans", "beam", "entry/tomo"),
        ("s3://beam/scans/tomo?bucket=beam", "scans", "beam", "tomo"),
        ("s3:scans/tomo?bucket=beam", "scans", "beam", "tomo"),
        ("s3:", "s3", None, ""),
        ("s3:entry/tomo", "s3", None, "entry/tomo"),
    ],
)
def test_s3_in_both_layouts(url, place, bucket, name):
    require("boto3")
    require("obstore")
    con, found = dn.open_url(url)
    assert (con.name, con.instance.bucket, found) == (place, bucket, name)


def test_options_of_s3_take_their_types():
    require("boto3")
    require("obstore")
    con, _ = dn.open_url("s3:x?endpoint_url=http://127.0.0.1:1/&timeout=2.5&retries=0&verify=no")
    settings = con.instance.settings
    assert (settings.endpoint_url, settings.timeout, settings.retries, settings.verify) == (
        *("http://127.0.0.1:1/", 2.5, 0),
        False,
    )


@pytest.mark.parametrize(
    ("url", "says"),
    [("s3://beam", "s3:beam"), ("s3://a/c?bucket=b", "differ"), ("s3://A_/c", "not valid")],
)
def test_wrong_urls_of_s3_are_refused(url, says):
    require("boto3")
    require("obstore")
    with pytest.raises(ConfigurationError, match=says):
        dn.open_url(url)


TOKEN = "a-token_of.the~tests"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"http://h:80/@{TOKEN}/zarr/x is lost", "http://h:80/***/zarr/x is lost"),
        (f"'https://h/p/%40{TOKEN}'", "'https://h/p/***'"),
        (f"http://me:{TOKEN}@h/@{TOKEN}?token={TOKEN}&x=1", "http://me:***@h/***?token=***&x=1"),
        ("https://h/@scope/package and file:/data/@a-long-name-of-a-folder", None),
    ],
)
def test_no_secret_of_a_url_is_shown(text, shown):
    assert without_password(text) == (text if shown is None else shown)


@pytest.mark.parametrize("rest", ["token=x", "bogus=1", "timeout=soon", "mode"])
def test_errors_of_urls_have_no_token(rest):
    for url in (
        f"http://h/@{TOKEN}/zarr?{rest}&token={TOKEN}",
        f"1http://h/zarr?{rest}&token={TOKEN}",
        f"http://h/@{TOKEN}/zarr?{rest}",
    ):
        with pytest.raises(ConfigurationError) as error:
            dn.open_url(url, mode="a")
        assert TOKEN not in str(error.value)
    assert TOKEN not in repr(Url.parse(f"http://h/@{TOKEN}/zarr?token={TOKEN}"))
