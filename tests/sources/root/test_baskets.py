"""Baskets of numbers and lists that are decoded without uproot's objects: as uproot does."""

from __future__ import annotations

import numpy as np
import pytest
from support import require

import dosna as dn
from dosna.errors import SourceError

ak, uproot = require("awkward"), require("uproot")

from uproot.interpretation.jagged import AsJagged  # noqa: E402
from uproot.interpretation.numerical import AsDtype  # noqa: E402

from dosna.columns.layout import form_of  # noqa: E402
from dosna.columns.splitting import decompose  # noqa: E402
from dosna.sources.root.baskets import (  # noqa: E402
    VECTOR_HEADER,
    Header,
    _decompress,
    plain_rows,
)
from dosna.sources.root.ttree import TTreePart  # noqa: E402

KINDS = {
    "i1": "i1",
    "u2": "u2",
    "i8": "i8",
    "f4": "f4",
    "f8": "f8",
    "flag": "bool",
    "bytes": "var * uint8",
    "lists": "var * float32",
    "long": "var * int64",
}
CODECS = {
    "none": None,
    "zlib": uproot.ZLIB(1),
    "lz4": uproot.LZ4(1),
    "zstd": uproot.ZSTD(1),
    "lzma": uproot.LZMA(1),
}


def write(path, codec, steps=(40, 0, 1, 25)):
    """Write a file with a basket of each branch for each step."""
    random = np.random.default_rng(3)
    with uproot.recreate(path, compression=codec) as file:
        tree = file.mktree("T", KINDS)
        for count in steps:
            lengths = random.integers(0, 4, count)
            lists = ak.unflatten(random.integers(0, 9, lengths.sum()), lengths)
            tree.extend(
                {
                    name: ak.values_astype(lists, kind[6:])
                    if kind.startswith("var")
                    else random.integers(0, 2, count).astype(kind)
                    for name, kind in KINDS.items()
                }
            )
    return str(path)


@pytest.fixture
def part(tmp_path):
    with uproot.open({write(tmp_path / "t.root", uproot.LZ4(1)): None}) as file:
        yield TTreePart(file["T"])


def native(rows):
    return rows.dtype.newbyteorder("=")


def same(rows, expected):
    return rows.keys() == expected.keys() and all(
        np.array_equal(rows[path], values)
        and (path == "offsets" or native(rows[path]) == native(values))
        for path, values in expected.items()
    )


@pytest.mark.parametrize("codec", CODECS)
def test_rows_are_those_of_uproot(tmp_path, codec):
    with uproot.open({write(tmp_path / "t.root", CODECS[codec]): None}) as file:
        part = TTreePart(file["T"])
        for name in KINDS:
            for start, stop in [(0, 66), (0, 40), (40, 41), (41, 66)]:
                rows = part.rows(name, start, stop)
                if codec == "lzma" and rows is None:
                    continue  # which uproot decodes
                layout = part.read(name, start, stop)
                assert same(rows, decompose(layout, form_of(part.form(name)))), name


def vectors(name):
    """Yield the trees of a file of scikit-hep-testdata, with their branches of vectors."""
    with uproot.open({require("skhep_testdata").data_path(name): None}) as file:
        for tree in file.keys(filter_classname="TTree"):
            part = TTreePart(file[tree])
            found = [
                branch
                for branch in part._found
                if type(it := part._found[branch].interpretation) is AsJagged
                and it.header_bytes == VECTOR_HEADER
                and type(it.content) is AsDtype
            ]
            yield part, found


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("uproot-small-evnt-tree-fullsplit.root", 8),
        ("uproot-issue38b.root", 9),
        ("uproot-issue64.root", 23),
        ("uproot-stl_containers.root", 1),
    ],
)
def test_vectors_are_those_of_uproot(name, count):
    compared = 0
    for part, found in vectors(name):
        for branch in found:
            edges = part.edges(branch)
            for start, stop in {(0, edges[-1]), (edges[-2], edges[-1])}:
                rows = part.rows(branch, start, stop)
                layout = part.read(branch, start, stop)
                assert same(rows, decompose(layout, form_of(part.form(branch)))), branch
            compared += 1
    assert compared == count


def test_vectors_with_other_counts_are_left_to_uproot(monkeypatch):
    def spoilt(data, out):
        assert _decompress(data, out)
        out[VECTOR_HEADER - 1] ^= 1  # the least byte of the first count
        return True

    for part, _ in vectors("uproot-small-evnt-tree-fullsplit.root"):
        assert part.rows("evt/StlVecI32", 0, 100) is not None
        monkeypatch.setattr("dosna.sources.root.baskets._decompress", spoilt)
        assert part.rows("evt/StlVecI32", 0, 100) is None


def test_branches_of_other_kinds_are_left_to_uproot(part):
    branch = part.tree["lists"]
    assert plain_rows(branch, branch.interpretation, 0, 66) is not None
    for other in (
        AsDtype(">f4", "<f8"),
        AsDtype(np.dtype([("x", ">f4")])),
        AsDtype(np.dtype((">f4", (2,)))),
        AsJagged(AsDtype(">f4"), header_bytes=10),
        AsJagged(AsDtype(np.dtype((">f4", (2,))))),
        object(),
    ):
        assert plain_rows(branch, other, 0, 66) is None
    assert plain_rows(branch, branch.interpretation, 0, 30) is None  # within a basket
    assert plain_rows(branch, AsJagged(AsDtype(">f8")), 0, 66) is None  # not its itemsize
    flat = part.tree["f4"]
    assert plain_rows(flat, AsDtype(">f8"), 0, 66) is None


@pytest.mark.parametrize("codec", ["zlib", "lz4", "zstd"])
@pytest.mark.parametrize("at", [0, 4, 7, 12, 40, -1])
def test_damage_is_told_by_uproot(tmp_path, codec, at):
    path = write(tmp_path / "t.root", CODECS[codec], [4000])
    with uproot.open({path: None}) as file:
        branch = file["T"]["lists"]
        start, size = int(branch.member("fBasketSeek")[0]), branch.basket_compressed_bytes(0)
        begin = start + int(branch.basket(0).member("fKeylen"))
    where = start + size - 1 if at < 0 else begin + at
    with open(path, "r+b") as raw:
        raw.seek(where)
        old = raw.read(1)
        raw.seek(where)
        raw.write(bytes([old[0] ^ 0x55]))
    with uproot.open({path: None}) as file:
        part = TTreePart(file["T"])
        try:
            expected = decompose(part.read("lists", 0, 4000), form_of(part.form("lists")))
        except Exception:
            assert part.rows("lists", 0, 4000) is None
        else:
            rows = part.rows("lists", 0, 4000)
            assert rows is None or same(rows, expected)


def test_offsets_that_cannot_be_right(part, monkeypatch):
    branch = part.tree["lists"]
    right = plain_rows(branch, branch.interpretation, 0, 40)
    for at, value in [(1, 3), (-2, 2), (4, 1 << 20), (5, -(1 << 20))]:

        def spoilt(data, out, at=at, value=value):
            assert _decompress(data, out)
            ends = out[-4 * 42 :].view(">i4")
            ends[at] += value
            return True

        monkeypatch.setattr("dosna.sources.root.baskets._decompress", spoilt)
        found = plain_rows(branch, branch.interpretation, 0, 40)
        assert found is None, (at, value)
    monkeypatch.undo()
    assert same(plain_rows(branch, branch.interpretation, 0, 40), right)


def test_blocks_that_are_not_what_they_say():
    block = b"L4\x01" + (30).to_bytes(3, "little") + (50).to_bytes(3, "little") + bytes(30)
    for data, size in [
        (block, 50),  # a wrong checksum
        (block, 51),  # another size than that of all blocks
        (block[:-1], 50),
        (block + b"x", 50),
        (b"CS" + block[2:], 50),
        (b"L4\x01" + (4).to_bytes(3, "little") + block[6:9] + bytes(4), 50),
    ]:
        assert not _decompress(np.frombuffer(data, np.uint8), np.empty(size, np.uint8))
    out = np.empty(3, np.uint8)
    assert _decompress(np.frombuffer(b"abc", np.uint8), out)
    assert bytes(out) == b"abc"


def test_several_blocks():
    from dosna.codecs.deflate import compress_zlib

    blocks = b""
    for text in (b"first" * 9, b"second" * 9):
        packed = compress_zlib(text, 1)
        sizes = len(packed).to_bytes(3, "little") + len(text).to_bytes(3, "little")
        blocks += b"ZL\x08" + sizes + packed
    out = np.empty(99, np.uint8)
    assert _decompress(np.frombuffer(blocks, np.uint8), out)
    assert bytes(out) == b"first" * 9 + b"second" * 9


def test_a_header_needs_its_bytes(part):
    branch = part.tree["lists"]
    chunk, _ = branch.basket_chunk_cursor(0)
    data = chunk.raw_data
    header = Header.parsed(data)
    basket = branch.basket(0)
    assert (header.entries, header.border) == (basket.num_entries, basket.border)
    assert Header.parsed(data[: header.keylen]) == header
    for length in (0, 17, header.keylen - 1):
        assert Header.parsed(data[:length]) is None


def test_a_basket_without_a_header(tmp_path):
    path = write(tmp_path / "t.root", uproot.LZ4(1))
    with uproot.open({path: None}) as file:
        start = int(file["T"]["lists"].member("fBasketSeek")[0])
    with open(path, "r+b") as raw:
        raw.seek(start)
        raw.write(bytes(18))
    with dn.Connection("no-header", backend="ram") as con:
        report = con.ingest(path, on_error="skip")
        assert set(report.skipped) == {"T/lists/content", "T/lists/offsets"}
        with pytest.raises(SourceError, match="has no header"):
            con.ingest(path, "again", select="T/lists")
        for name in list(con):
            del con[name]
