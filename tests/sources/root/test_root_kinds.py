"""Unusual branches and trees: read as uproot reads them, or refused one by one."""

from __future__ import annotations

import secrets
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from support import require

import dosna as dn
from dosna.errors import FormatError, RefusedError, SourceError

ak, uproot = require("awkward"), require("uproot")

from uproot import containers  # noqa: E402
from uproot.interpretation.jagged import AsJagged  # noqa: E402
from uproot.interpretation.numerical import AsDouble32, AsDtype, AsFloat16  # noqa: E402
from uproot.interpretation.objects import AsObjects, AsStridedObjects  # noqa: E402
from uproot.source.chunk import Chunk  # noqa: E402
from uproot.source.cursor import Cursor  # noqa: E402

from dosna.columns import get_tree  # noqa: E402
from dosna.columns.layout import form_of, plain_form  # noqa: E402
from dosna.columns.splitting import decompose  # noqa: E402
from dosna.sources import open_source  # noqa: E402
from dosna.sources.root import checks as rootchecks  # noqa: E402
from dosna.sources.root.checks import checked  # noqa: E402
from dosna.sources.root.source import to_awkward  # noqa: E402
from dosna.sources.root.tree import part_of  # noqa: E402
from dosna.sources.root.ttree import TTreePart  # noqa: E402


@pytest.fixture
def con():
    with dn.Connection(secrets.token_hex(8), backend="ram", engine="cpu") as con:
        yield con
        for name in list(con):
            del con[name]


@pytest.fixture
def path(tmp_path):
    """A file with a tree of a few branches, and a second tree."""
    path = tmp_path / "events.root"
    with uproot.recreate(path, compression=uproot.ZLIB(1)) as file:
        for name in ("first", "second"):
            file.mktree(name, {"good": "i4", "bad": "i4", "lists": "var * float32"}).extend(
                {
                    "good": np.arange(100, dtype="i4"),
                    "bad": np.arange(100, dtype="i4"),
                    "lists": ak.Array([np.arange(i % 5, dtype="f4") for i in range(100)]),
                }
            )
    return str(path)


@pytest.fixture
def interpreted(monkeypatch):
    """Let branches of a name have another interpretation, or none that can be made."""
    found = uproot.TBranch.interpretation

    def let(name, other):
        def interpretation(branch):
            if branch.name != name:
                return found.fget(branch)
            if isinstance(other, Exception):
                raise other
            return other

        monkeypatch.setattr(uproot.TBranch, "interpretation", property(interpretation))

    return let


# -- variants, whose elements are counted from the beginning of a cluster -----------------------

VARIANTS = {
    "v": [i if i % 2 else "s" * (i % 5) for i in range(60)],
    "three": [(i, "s" * i, [1.5] * i)[i % 3] for i in range(60)],
    "lists": [[j if j % 2 else "s" * j for j in range(i % 4)] for i in range(60)],
    "inside": [{"x": i, "v": i if i % 3 else str(i)} for i in range(60)],
    "number": list(range(60)),
}


@pytest.mark.parametrize("steps", [[0, 10, 20, 30, 60], [0, 1, 2, 3, 60], [0, 60]])
def test_variants_of_several_clusters(con, tmp_path, steps):
    path = tmp_path / "variants.root"
    with uproot.recreate(path) as file:
        tree = file.mkrntuple("T", {n: ak.Array(v).type.content for n, v in VARIANTS.items()})
        for start, stop in pairwise(steps):
            tree.extend({n: ak.Array(v)[start:stop] for n, v in VARIANTS.items()})
    con.ingest(str(path))
    whole = to_awkward(con, "T")
    for name, values in VARIANTS.items():
        assert whole[name].to_list() == values
        assert to_awkward(con, "T", name, 7, 41)[name].to_list() == values[7:41]


# -- what uproot would misread ------------------------------------------------------------------


@pytest.mark.parametrize("content", [AsDouble32(0, 1, 16, (5,)), AsFloat16(0, 1, 12, (2, 3))])
def test_truncated_numbers_in_lists_with_extents_are_refused(con, path, interpreted, content):
    interpreted("lists", AsJagged(content))
    report = con.ingest(path + ":first", on_error="skip")
    assert sorted(con) == ["first/bad", "first/good", "first/nlists"]
    extents = "".join(f"[{n}]" for n in content.to_dims)
    assert list(report.skipped) == ["first/lists"]
    assert "uproot misreads" in report.skipped["first/lists"]
    assert extents in report.skipped["first/lists"]


@pytest.mark.parametrize("content", [AsDouble32(0, 1, 16), AsFloat16(0, 1, 12)])
def test_truncated_numbers_in_plain_lists_are_not(path, content):
    assert rootchecks.misread(AsJagged(content)) == ""
    assert rootchecks.misread(content) == ""


def lists_of(entries, counts=None):
    """Return the bytes of entries that are std::vector<int>, and where each begins."""
    data, ends = b"", [0]
    for number, entry in enumerate(entries):
        count = len(entry) if counts is None else counts[number]
        data += b"\x40\0\0\0\0\x09" + np.array(count, ">u4").tobytes()
        data += np.array(entry, ">i4").tobytes()
        ends.append(len(data))
    return np.frombuffer(data, "u1"), np.array(ends, "i4")


def decoded(interpretation, data, ends):
    library = uproot.interpretation.library.Awkward()
    basket = SimpleNamespace(basket_num=0, byte_offsets=ends)
    return interpretation.basket_array(data, ends, basket, None, {}, 0, library, {})


def test_lists_that_are_not_as_their_headers_say():
    interpretation = checked(AsJagged(AsDtype(">i4"), 10, "std::vector<int32_t>"))
    found = decoded(interpretation, *lists_of([[1, 2], [], [3]]))
    assert found.offsets.tolist() == [0, 2, 2, 3]
    assert found.content.tolist() == [1, 2, 3]
    # Elements of another size, whose number of bytes may nevertheless be a multiple.
    with pytest.raises(RefusedError, match="misread it: entry 1 of basket 0 has 16 bytes"):
        decoded(interpretation, *lists_of([[1], [2, 3, 4, 5]], counts=[1, 2]))
    data, ends = lists_of([[1], [2]])
    with pytest.raises(RefusedError, match="entry 1 of basket 0 has 3 bytes"):
        decoded(interpretation, data[:-1], np.array([*ends[:-1], ends[-1] - 1]))
    plain = checked(AsJagged(AsDtype(">i4")))
    with pytest.raises(RefusedError, match="entry 0 of basket 0 has 6 bytes"):
        decoded(plain, data[:8], np.array([0, 6, 8]))


def test_a_count_that_cannot_fit_its_bytes():
    class Items(containers.AsContainer):
        """Elements of a byte."""

        read_so_far = 0
        typename = "item"

        def read(self, chunk, cursor, *rest, **options):
            Items.read_so_far += 1
            return cursor.bytes(chunk, 1, {})

    vector = containers.AsVector(False, Items())
    model = checked(AsObjects(vector, None)).model

    def read(count, nbytes):
        data = np.array(count, ">u4").tobytes() + b"x" * nbytes
        chunk = Chunk.wrap(None, np.frombuffer(data, "u1"))
        cursor = Cursor(0)
        return model.read(chunk, cursor, {}, None, None, None), cursor

    found, cursor = read(3, 3)
    assert (len(found), cursor.index) == (3, 7)
    Items.read_so_far = 0
    with pytest.raises(RefusedError, match="9 elements"):
        read(9, 3)
    assert Items.read_so_far == 0


def test_objects_are_read_through_the_guard(con, monkeypatch):
    path = require("skhep_testdata").data_path("uproot-vectorVectorDouble.root")
    with uproot.open({path: None}) as file:
        expected = file["t"]["x"].array()
    con.ingest(path)
    assert ak.array_equal(to_awkward(con, "t").x, expected)

    def field(cursor, chunk, format, context, move=True):
        raise RefusedError("9 elements are said to follow")

    monkeypatch.setattr(rootchecks._BoundedCursor, "field", field)
    report = con.ingest(path, "again", on_error="skip")
    assert set(report.skipped.values()) == {"9 elements are said to follow"}


def test_no_memory_for_a_branch_costs_that_branch(con, path, monkeypatch):
    rows = TTreePart.rows

    def short(part, name, start, stop):
        if name == "lists":
            raise MemoryError
        return rows(part, name, start, stop)

    monkeypatch.setattr(TTreePart, "rows", short)
    report = con.ingest(path + ":first", on_error="skip")
    assert {"first/good", "first/bad"} <= set(con)
    assert "more memory than there is" in str(report.skipped)
    with pytest.raises(SourceError, match="more memory than there is"):
        con.ingest(path + ":first", "other", select="lists")


# -- one bad branch, or tree --------------------------------------------------------------------


def test_a_branch_without_an_interpretation_costs_that_branch(con, path, interpreted):
    interpreted("bad", AttributeError("'NoneType' object has no attribute 'name'"))
    con.ingest(path, "chosen", select=["good"])
    assert sorted(con) == ["chosen/first/good", "chosen/second/good"]
    report = con.ingest(path, on_error="skip")
    assert list(report.skipped) == ["first/bad", "second/bad"]
    assert "AttributeError" in report.skipped["first/bad"]
    assert {"first/good", "first/lists/offsets"} <= set(con)
    with pytest.raises(RefusedError, match="'first/bad'"):
        con.ingest(path, "raises")


def damage(path, tree):
    """Make a tree unreadable, and nothing else."""
    with uproot.open({path: None}) as file:
        start = file.key(tree).data_cursor.index
    with open(path, "r+b") as raw:
        raw.seek(start)
        raw.write(b"\0" * 60)


def test_an_unreadable_tree_hides_no_other(con, path):
    damage(path, "first")
    with uproot.open({path: None}) as file:
        expected = file["second"].arrays()
    assert con.ingest(path, "chosen", select="second/*").skipped == {}
    report = con.ingest(path, on_error="skip")
    assert list(report.skipped) == ["first"]
    assert "first" in report.skipped["first"]
    assert ak.array_equal(to_awkward(con, "second"), expected)
    assert ak.array_equal(to_awkward(con, "chosen/second"), expected)
    with pytest.raises(RefusedError, match="'first'"):
        con.ingest(path, "raises")
    damage(path, "second")
    with pytest.raises(SourceError, match="cannot be read by uproot"):
        con.ingest(path, "none", on_error="skip")


def test_reasons_are_the_right_ones(con, path):
    with pytest.raises(RefusedError, match=r"before version 1\.0 of RNTuple"):
        part_of(SimpleNamespace(classname="ROOT::Experimental::RNTuple"))
    with pytest.raises(RefusedError, match="a TH1F is not a tree"):
        part_of(SimpleNamespace(classname="TH1F"))
    with uproot.open({path: None}) as file:
        branch = file["first"]["good"]
        key = branch.basket(0)
        start = int(branch.member("fBasketSeek")[0]) + int(key.member("fKeylen"))
    with open(path, "r+b") as raw:
        raw.seek(start)
        assert raw.read(2) == b"ZL"
        raw.seek(start)
        raw.write(b"CS")
    report = con.ingest(path + ":first", on_error="skip")
    assert list(report.skipped) == ["first/good"]
    assert "unsupported compression algorithm" in report.skipped["first/good"]
    assert "damaged" not in report.skipped["first/good"]


def test_contents_that_are_shorter_than_their_offsets(con, path, monkeypatch):
    offsets = ak.index.Index64(np.array([0, 2, 5]))
    short = ak.contents.ListOffsetArray(offsets, ak.contents.NumpyArray(np.arange(5.0)))
    form = form_of(plain_form(short.form))
    assert decompose(short, form)["content"].tolist() == [0, 1, 2, 3, 4]
    short._content = ak.contents.NumpyArray(np.arange(4.0))
    with pytest.raises(FormatError, match="'content' has 4 elements where 5 are counted"):
        decompose(short, form)
    even = ak.contents.RegularArray(ak.contents.NumpyArray(np.arange(6.0)), 3)
    even._content = ak.contents.NumpyArray(np.arange(5.0))
    nested = ak.contents.ListOffsetArray(ak.index.Index64(np.array([0, 2])), even)
    with pytest.raises(FormatError, match="'content' has 1 elements where 2 are counted"):
        decompose(nested, form_of(plain_form(nested.form)))
    read = TTreePart.read

    def shorter(part, name, start, stop):
        found = read(part, name, start, stop)
        if name == "lists":
            found = ak.contents.ListOffsetArray(found.offsets, found.content[:-7])
        return found

    monkeypatch.setattr(ak.contents.ListOffsetArray, "__init__", _unchecked)
    monkeypatch.setattr(TTreePart, "read", shorter)
    monkeypatch.setattr(TTreePart, "rows", lambda *args: None)
    report = con.ingest(path + ":first", on_error="skip")
    assert set(report.skipped) == {"first/lists/content", "first/lists/offsets"}


def _unchecked(self, offsets, content, *, parameters=None):
    self._offsets, self._content = offsets, content
    self._init(parameters, content.backend)


# -- what is equal, and what is nothing ---------------------------------------------------------


@pytest.mark.parametrize("order", [["mktree", "mkrntuple"], ["mkrntuple", "mktree"]])
def test_equal_types_of_a_tree_and_an_rntuple(con, tmp_path, order):
    values = {
        "x": np.arange(3, dtype="f4"),
        "j": ak.values_astype(ak.Array([[1], [], [2, 3]]), "f4"),
    }
    for make in order:
        with uproot.recreate(tmp_path / f"{make}.root") as file:
            getattr(file, make)("T", {"x": "f4", "j": "var * float32"}).extend(values)
    con.ingest([f"{tmp_path / make}.root:T" for make in order], select=["x", "j"])
    assert to_awkward(con, "T").j.to_list() == 2 * [[1], [], [2, 3]]
    assert to_awkward(con, "T").x.to_list() == 2 * [0, 1, 2]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_tree_that_was_never_filled_gives_nothing(con, tmp_path, place):
    paths = []
    for number in range(3):
        paths.append(tmp_path / f"{number}.root")
        with uproot.recreate(paths[-1]) as file:
            types = {} if number == place else {"x": "f8", "j": "var * int64"}
            tree = file.mkrntuple("T", types)  # uproot makes no TTree without branches
            if types:
                tree.extend({"x": np.array([number, 9.0]), "j": ak.Array([[number], []])})
    con.ingest([f"{path}:T" for path in paths])
    there = [number for number in range(3) if number != place]
    found = to_awkward(con, "T")
    assert found.x.to_list() == [x for number in there for x in (number, 9)]
    assert found.j.to_list() == [j for number in there for j in ([number], [])]
    assert [f.stop - f.start for f in get_tree(con, "T").files] == [
        0 if number == place else 2 for number in range(3)
    ]


def test_leaves_that_are_arrays_beside_others(con, tmp_path, interpreted):
    path = tmp_path / "leaves.root"
    values = np.arange(24, dtype="f4").reshape(6, 4)
    with uproot.recreate(path) as file:
        file.mktree("T", {"m": (np.dtype("f4"), (4,))}).extend({"m": values})
    leaves = np.dtype([("one", ">f4"), ("more", ">f4", (3,))])
    interpreted("m", AsDtype(leaves, leaves.newbyteorder("=")))
    con.ingest(str(path))
    found = to_awkward(con, "T").m
    assert found.one.to_list() == values[:, 0].tolist()
    assert found.more.to_list() == values[:, 1:].tolist()
    assert str(found.type) == "6 * {one: float32, more: 3 * float32}"


@pytest.mark.parametrize("make", ["mktree", "mkrntuple"])
def test_names_that_datasets_cannot_have(con, tmp_path, make):
    names = ["..", ".", "a.b", "%", "x", ".h"]
    values = {name: np.arange(3, dtype="f4") + i for i, name in enumerate(names)}
    path = tmp_path / "names.root"
    with uproot.recreate(path) as file:
        getattr(file, make)(".h/T", dict.fromkeys(names, "f4")).extend(values)
    assert con.ingest(str(path)).skipped == {}
    found = to_awkward(con, "%2Eh/T")
    assert found.fields == names
    for name in names:
        assert found[name].to_list() == values[name].tolist()
    with uproot.open({path: None}) as file:
        con.ingest(file, "open")
        con.ingest(file[".h"]["T"], "one")
    assert open_source(str(path)).tree("%2Eh/T").name == "T"
    assert to_awkward(con, "open/%2Eh/T").fields == names


def test_strided_objects_pass_the_check(con):
    # Lists of objects, with the headers of std::vector where ROOT has written these.
    path = require("skhep_testdata").data_path("uproot-HZZ-objects.root")
    with uproot.open({path: None}) as file:
        branch = file["events"]["muonp4"]
        assert isinstance(branch.interpretation.content, AsStridedObjects)
        expected = branch.array()
    assert con.ingest(path, select="muonp4").skipped == {}
    assert ak.array_equal(to_awkward(con, "events").muonp4, expected)


def test_objects_that_root_has_written_member_by_member(con):
    path = require("skhep_testdata").data_path("uproot-issue475.root")
    (branch,) = [name for name in open_source(path).names() if "fmc_tepos" in name][:1]
    report = con.ingest(path, select=branch, on_error="skip")
    assert report.made == []
    assert all("ROOT may have written them member by member" in w for w in report.skipped.values())


def test_real_leaves_that_are_arrays_beside_others(con):
    path = require("skhep_testdata").data_path("uproot-issue429.root")
    with uproot.open({path: None}) as file:
        expected = file["data_tr"]["data_ana_kk"].array()
    con.ingest(path, select="data_ana_kk")
    found = to_awkward(con, "data_tr").data_ana_kk
    assert found.type == expected.type
    assert ak.array_equal(found, expected, equal_nan=True)
