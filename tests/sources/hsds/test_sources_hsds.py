"""Domains of HSDS as a source, on a real server."""

from __future__ import annotations

import multiprocessing
import pickle

import numpy as np
import pytest
from samples import SAMPLES, write_sample
from services import hsds_environment
from support import HANG, require

import dosna as dn
from dosna import errors
from dosna.sources import open_source
from dosna.testing import SourceTests
from dosna.testing.timing import within

h5py = require("h5py")
h5pyd = require("h5pyd")


from dosna.export.hsds import load_domain  # noqa: E402
from dosna.hsds import HsdsClient, HsdsOptions  # noqa: E402
from dosna.hsds.http import Http  # noqa: E402


@pytest.fixture(scope="module")
def samples(hsds, tmp_path_factory):
    """Give the domain of the samples, and that of what is in NeXus files."""
    folder = tmp_path_factory.mktemp("hsds")
    with h5py.File(folder / "samples.h5", "w") as file:
        for name, array in SAMPLES.items():
            large = array.ndim == 3
            file.create_dataset(name, data=array, chunks=(8, 32, 32) if large else None)
    write_sample(folder / "sample.h5")
    client = HsdsClient(HsdsOptions())
    client.put("/", f"{hsds.home}/source", {"folder": True})
    load_domain(folder / "samples.h5", "hdf5://home/test/source/samples.h5")
    load_domain(folder / "sample.h5", "hdf5://home/test/source/sample.h5")
    yield folder
    for name in ("samples.h5", "sample.h5"):
        client.delete("/", f"{hsds.home}/source/{name}")


class TestHsds(SourceTests):
    @pytest.fixture
    def arrays(self):
        return SAMPLES

    @pytest.fixture
    def make_source(self, samples):
        return lambda: open_source("hdf5://home/test/source/samples.h5")


class TestHsdsOpen(SourceTests):
    @pytest.fixture
    def arrays(self):
        return SAMPLES

    @pytest.fixture
    def make_source(self, samples):
        with h5pyd.File("hdf5://home/test/source/samples.h5", "r") as file:
            yield lambda: open_source(file)


@pytest.fixture
def con():
    with dn.Connection("hsds-source", backend="ram") as con:
        yield con
        for name in list(con):
            del con[name]


def test_it_is_what_the_file_is(samples):
    with (
        open_source(samples / "sample.h5") as file,
        open_source("hdf5://home/test/source/sample.h5") as domain,
    ):
        assert domain.names() == file.names()
        assert domain.groups() == file.groups()
        for name in file.names():
            one, other = file.describe(name), domain.describe(name)
            assert bool(one.refused) == bool(other.refused), (one, other)
            if one.refused:
                continue
            assert (one.shape, one.links) == (other.shape, other.links)
            if not name.endswith("padded"):
                assert one.dtype == other.dtype
            np.testing.assert_equal(dict(other.attrs), dict(one.attrs))
            np.testing.assert_array_equal(np.asarray(domain[name]), np.asarray(file[name]))


@pytest.fixture
def url(hsds, request):
    """Give the URL of a domain that is not there."""
    yield f"hdf5:/{hsds.home}/{request.node.name}.h5"
    client = HsdsClient(HsdsOptions())
    for found in list(client.domains(hsds.home)):
        if request.node.name in found["name"]:
            client.delete("/", found["name"])


def names_at(hsds):
    return {found["name"] for found in HsdsClient(HsdsOptions()).domains(hsds.home)}


def test_datasets_are_exported_and_come_back(hsds, con, url):
    arrays = {
        **SAMPLES,
        "words": np.array(["ä", "bcd"]),
        "texts": np.array([["ä", "bcd" * 20, ""]], "T"),
        "dates": np.array(["2020-01-01", "NaT"], "M8[s]"),
        "halves": np.arange(3, dtype="f2"),
    }
    attrs = {"unit": "mm", "list": [1, 2], "mixed": [1, "a"], "none": None, "nan": np.nan}
    for name, array in arrays.items():
        con.create_dataset(f"all/{name}", data=array, attrs=attrs)
    con.create_dataset("all/filled", (20, 30), "i4", 7, chunk_size=(10, 10))[:3] = 1
    con.set_group_attrs("all", {"NX_class": "NXentry"})
    assert len(con.export(url, compression="gzip")) == len(arrays) + 1
    with open_source(url) as source:
        assert source.names() == sorted([*(f"all/{name}" for name in arrays), "all/filled"])
        assert source.groups()["all"] == {"NX_class": "NXentry"}
        for name, array in arrays.items():
            found = source.describe(f"all/{name}")
            kind = np.dtype("T") if array.dtype.kind == "U" else array.dtype
            assert (found.shape, found.dtype) == (array.shape, kind)
            np.testing.assert_array_equal(np.asarray(source[f"all/{name}"]), array)
            expected = {**attrs, "mixed": '[1, "a"]'}
            np.testing.assert_equal(dict(found.attrs), expected)
        assert source.describe("all/z/large").chunks == con["all/z/large"].chunk_size
        assert source.describe("all/filled").fillvalue == 7
        np.testing.assert_array_equal(source["all/filled"][...], con["all/filled"][...])
    con.ingest(url, "back")
    np.testing.assert_array_equal(con["back/all/z/large"][...], arrays["z/large"])
    with pytest.raises(FileExistsError, match="overwrite=True"):
        con.export(url)
    con["all/filled"].export(url, overwrite=True)
    assert open_source(url).names() == ["all/filled"]


def test_an_export_that_fails_leaves_nothing(hsds, con, url):
    con.create_dataset("x", data=np.arange(1000), chunk_size=10)
    before = names_at(hsds)

    def stop(done, total):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        con.export(url, chunk_size=10, progress=stop)
    with pytest.raises(errors.ConfigurationError, match="'lz4'"):
        con.export(url, compression="lz4")
    with pytest.raises(errors.StorageError, match=r"is .*test/nowhere a folder"):
        con.export("hdf5://home/test/nowhere/x.h5")
    assert names_at(hsds) == before


def test_a_folder_of_domains(samples, con):
    with open_source("hdf5://home/test/source/") as source:
        names = source.names()
        assert "sample.h5/entry1/hard" in names
        assert "samples.h5/z/large" in names
        assert source.groups()["sample.h5/entry1"] == {"NX_class": "NXentry"}
        assert source.fingerprint() == open_source("hdf5://home/test/source/").fingerprint()
    report = con.ingest("hdf5://home/test/source/", select="*/z/*")
    assert report.made == ["samples.h5/z/large"]
    np.testing.assert_array_equal(con["samples.h5/z/large"][...], SAMPLES["z/large"])


def test_parts_of_a_domain(samples, con):
    con.ingest("hdf5://home/test/source/sample.h5:/entry1/number", "n")
    assert con["n"][()] == 2.5
    with open_source("hdf5://home/test/source/sample.h5:entry1") as source:
        assert "entry1/hard" in source.names()
        assert not source.single
    with h5pyd.File("hdf5://home/test/source/sample.h5", "r") as file:
        assert con.ingest(file["entry1/big_endian"], "b").made == ["b"]
    np.testing.assert_array_equal(con["b"][...], np.arange(10.0))


def test_links(samples):
    with open_source("hdf5://home/test/source/sample.h5") as source:
        assert source.describe("entry1/hard").links == ("entry1/number", "entry1/soft")
        assert "'/nothing'" in source.describe("entry1/dead").refused
        assert "'other.h5'" in source.describe("entry1/outside").refused


def test_an_external_link_leads_to_another_domain(samples, url, con):
    with h5pyd.File(url, "w") as file:
        file["there"] = h5pyd.ExternalLink("source/samples.h5", "/entry/image")
        file["loop"] = h5pyd.SoftLink("/loop")
    with open_source(url) as source:
        assert source.names() == ["loop", "there"]
        assert "link to itself" in source.describe("loop").refused
        np.testing.assert_array_equal(source["there"][...], SAMPLES["entry/image"])


def test_an_interrupted_ingest_goes_on(con, url):
    frames = np.random.default_rng(0).integers(0, 99, (12, 512, 1024), "u2")
    con.create_dataset("frames", data=frames, chunk_size=(1, 512, 1024)).export(url)

    def stop(done, total):
        if done > total / 2:
            raise KeyboardInterrupt

    where = f"{url}:/frames"
    with pytest.raises(KeyboardInterrupt):
        con.ingest(where, "again", progress=stop)
    assert con["again"].incomplete
    written = len(con["again"].written_chunks())
    assert 0 < written < 12
    assert con.ingest(where, "again").resumed == ["again"]
    np.testing.assert_array_equal(con["again"][...], frames)
    assert con.ingest(where, "again").present == ["again"]


def test_a_domain_that_was_replaced_is_noticed(con, url, tmp_path):
    for value in (1, 2):
        with h5py.File(tmp_path / "x.h5", "w") as file:
            file["x"] = value
        load_domain(tmp_path / "x.h5", url, overwrite=True)
        if value == 1:
            con.ingest(url)
            source = open_source(url)
            assert source["x"][()] == 1
    with pytest.raises(errors.SourceChangedError, match="overwrite=True"):
        con.ingest(url)
    with pytest.raises(errors.SourceNotFoundError, match="does not exist"):
        source.read("x", ())
    assert con.ingest(url, overwrite=True).made == ["x"]
    assert con["x"][()] == 2


def test_who_is_refused_is_told_so(samples):
    where = "hdf5://home/test/source/samples.h5"
    for user, password, error, said in [
        ("test", "not-mine", ConnectionError, "HS_PASSWORD"),
        ("other", "for-other", errors.StorageError, "no right to it"),
    ]:
        source = open_source(where, username=user, password=password)
        with pytest.raises(error, match=said) as caught:
            source.names()
        assert isinstance(caught.value, errors.DosnaError)
        assert password not in str(caught.value)
        assert password not in repr(source)


def test_what_is_not_there(hsds, samples, con):
    for where, said in [
        ("hdf5://home/test/nothing.h5", "nothing.h5"),
        ("hdf5://home/test/nothing/", "nothing"),
        ("hdf5://home/test/source/samples.h5:/no", "no 'no'"),
        ("hdf5://home/test/source", "is a folder.*source/"),
    ]:
        with pytest.raises(errors.SourceNotFoundError, match=said):
            con.ingest(where)
    with pytest.raises(errors.ConfigurationError, match="names no domain"):
        con.ingest("hdf5://")


def test_nobody_knows_where_the_server_is(hsds, monkeypatch):
    monkeypatch.delenv("HS_ENDPOINT")
    monkeypatch.setattr("dosna.hsds.client.get_config", dict)
    with pytest.raises(errors.ConfigurationError, match="set HS_ENDPOINT"):
        open_source("hdf5://home/test/x.h5").names()


def requests_of(monkeypatch):
    """Return a list to which the path of each request is added."""
    asked, send = [], Http.request
    monkeypatch.setattr(Http, "request", lambda s, *a: asked.append(a[1]) or send(s, *a))
    return asked


def test_values_of_a_folder_s_fingerprint_are_not_asked_for_each_array(samples, monkeypatch):
    asked = requests_of(monkeypatch)
    with open_source("hdf5://home/test/source/") as source:
        first = source.fingerprint()
        count = len(asked)
        for _ in range(100):
            assert source.fingerprint() == first
        assert len(asked) < 10 * count


def test_few_requests_bring_much(samples, monkeypatch):
    asked = requests_of(monkeypatch)
    with open_source("hdf5://home/test/source/samples.h5") as source:
        source.names()
        assert len(asked) <= len(SAMPLES) + 6
        asked.clear()
        np.testing.assert_array_equal(source["z/large"][...], SAMPLES["z/large"])
        assert len(asked) == SAMPLES["z/large"].nbytes // (2 << 20)


def test_a_server_that_goes_away_is_an_error_in_bounded_time(start_hsds, con, tmp_path):
    frames = np.random.default_rng(0).random((64, 256, 256))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", data=frames, chunks=(4, 256, 256))
    options = {"chunk_size": (4, 256, 256), "memory_limit": "24M"}
    with start_hsds() as server, hsds_environment(server):
        where = f"hdf5:/{server.home}/x.h5"
        load_domain(tmp_path / "x.h5", where)

        def kill(done, total):
            if done and server.pids:
                server.kill("hsds")

        refused = pytest.raises(ConnectionError, match=r"cannot be reached|connection broke")
        with within(20), refused as caught:
            con.ingest(where, progress=kill, retries=2, **options)
        assert isinstance(caught.value, errors.DosnaError)
        assert con["x"].incomplete
        con.create_dataset("y", data=np.arange(5))
        with pytest.raises(ConnectionError):
            con["y"].export(f"hdf5:/{server.home}/y.h5?retries=1")
        server.start("hsds")
        with hsds_environment(server):
            assert con.ingest(where, **options).resumed == ["x"]
            np.testing.assert_array_equal(con["x"][...], frames)
            server.pause("hsds")
            source = open_source(where, timeout=1, retries=1)
            with within(10), pytest.raises(TimeoutError, match="no answer in time"):
                source.names()
            server.resume("hsds")
            assert open_source(where).names() == ["x"]


@pytest.mark.fault
def test_a_server_that_ends_during_an_export_has_no_such_domain(start_hsds, con):
    con.create_dataset("x", data=np.random.default_rng(0).random((64, 256, 256)))
    with start_hsds() as server, hsds_environment(server):
        url = f"hdf5:/{server.home}/x.h5"

        def kill(done, total):
            if done and server.pids:
                server.kill("hsds")

        with pytest.raises((ConnectionError, errors.StorageError)):
            con.export(f"{url}?retries=1", progress=kill)
        server.start("hsds")
        with hsds_environment(server):
            with pytest.raises(errors.SourceNotFoundError):
                open_source(url).names()
            con.export(url)
            np.testing.assert_array_equal(open_source(url)["x"][...], con["x"][...])


def test_the_command_line(con, url, tmp_path, capsys):
    from dosna.cli import main

    def run(*arguments):
        assert main(list(arguments)) == 0, capsys.readouterr()
        return capsys.readouterr().out

    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["entry/x"] = np.arange(20)
    here, back = f"file:{tmp_path}/here", f"file:{tmp_path}/back"
    run("ingest", str(tmp_path / "x.h5"), here)
    assert url in run("export", here, f"{url}?timeout=200")
    assert "1 dataset" in run("ingest", f"{url}?retries=2", back)
    run("verify", back, "--against", url)
    assert main(["ingest", "hdf5://home/test/nothing.h5", back]) == 1
    assert "nothing.h5" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_reads_too(samples):
    with open_source("hdf5://home/test/source/samples.h5") as source:
        expected = source["z/large"][...]
        with multiprocessing.get_context("fork").Pool(2) as pool:
            found = pool.map_async(_read_all, [source] * 2).get(60)
        assert [np.array_equal(expected, one) for one in found] == [True, True]
        code = multiprocessing.get_context("fork").Process(target=_check, args=(source, expected))
        code.start()
        np.testing.assert_array_equal(source["z/large"][...], expected)
        code.join(HANG)
        assert code.exitcode == 0


def _read_all(source):
    return source["z/large"][...]


def _check(source, expected):
    np.testing.assert_array_equal(source["z/large"][...], expected)


def test_a_long_folder_is_listed_page_by_page(samples, monkeypatch):
    with open_source("hdf5://home/test/source/") as source:
        names = source.names()
    monkeypatch.setattr("dosna.hsds.client._PAGE", 1)
    with open_source("hdf5://home/test/source/") as source:
        assert source.names() == names


def test_it_travels_with_its_password_and_does_not_show_it(hsds, samples):
    where = "hdf5://home/test/source/samples.h5"
    given = {"endpoint": hsds.endpoint, "username": "test", "password": "for-test"}
    source = open_source(where, **given)
    with pickle.loads(pickle.dumps(source)) as other:
        assert other["scalar"][()] == 2.5
    assert "for-test" not in f"{source!r} {source.location} {source.fingerprint()}"


def test_where_the_environment_is_another_it_asks_the_same_server(hsds, samples, monkeypatch):
    source = open_source("hdf5://home/test/source/samples.h5")
    packed = pickle.dumps(source)
    monkeypatch.setenv("HS_ENDPOINT", "http://127.0.0.1:1")
    with pickle.loads(packed) as other:
        assert other["scalar"][()] == 2.5
    assert b"for-test" not in packed


@pytest.mark.parametrize("engine_kw", [{"njobs": 2}, {"njobs": 2, "jlbackend": "loky"}], ids=str)
def test_under_parallel_engines(samples, tmp_path, engine_kw):
    require("joblib")
    with dn.Connection(str(tmp_path), backend="file", engine="joblib", engine_kw=engine_kw) as con:
        con.ingest("hdf5://home/test/source/samples.h5", select="z/*")
        np.testing.assert_array_equal(con["z/large"][...], SAMPLES["z/large"])
