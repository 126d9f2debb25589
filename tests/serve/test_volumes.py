"""Levels of volumes as Neuroglancer reads them, its files, and the links to it."""

from __future__ import annotations

import asyncio
import json
import re
import secrets

import numpy as np
import pytest
from support import require

import dosna as dn

require("starlette")

from asking import Asking  # noqa: E402
from starlette.applications import Starlette  # noqa: E402

from dosna.serve.served import Served  # noqa: E402
from dosna.serve.volumes import routes as volumes  # noqa: E402
from dosna.serve.volumes.levels import View, key_of  # noqa: E402
from dosna.web import HANDLERS, Limits  # noqa: E402

VOLUME = np.random.default_rng(0).integers(0, 200, (21, 18, 13), "u1")


@pytest.fixture(scope="module")
def con():
    with dn.Connection(secrets.token_hex(8), backend="ram", engine="cpu") as con:
        con.create_dataset("a/v", data=VOLUME, chunk_size=(8, 8, 8)).pyramid(
            2, scale=(2, 1, 1), unit="micrometer"
        )
        con.create_dataset("a/w", data=VOLUME.astype(">f8"), chunk_size=(8, 8, 8))
        con["a/w"].pyramid(1)
        con.create_dataset("labels", data=VOLUME.astype("i8") << 33).pyramid(1, method="mode")
        con.create_dataset("six", data=np.zeros((2, 2, 3, 3, 3, 3), "f4"))
        con.create_dataset("ints", data=VOLUME.astype("i8"))
        con.create_dataset("flags", data=VOLUME > 100)
        con.create_dataset("holes", (9, 9, 9), "f4", chunk_size=(4, 4, 4), fillvalue=np.nan)
        con.create_dataset("flat", data=VOLUME[0])
        con.create_dataset("waves", data=VOLUME * 1j)
        con.create_dataset("texts", data=np.full((2, 2, 2), "a", np.dtypes.StringDType()))
        yield con


def asking(con, below="", **limits):
    routes = volumes.routes(Served(con, below, Limits(**limits)))
    return Asking(Starlette(routes=routes, exception_handlers=HANDLERS))


@pytest.fixture(scope="module")
def ask(con):
    return asking(con)


def read(ask, name, level=0):
    """Return a level as a client would read it."""
    document = ask(f"/levels/{key_of(name)}/{level}/zarr.json").json()
    shape = document["shape"]
    chunk = document["chunk_grid"]["configuration"]["chunk_shape"]
    found = np.empty(shape, document["data_type"])
    for idx in np.ndindex(*(-(-n // c) for n, c in zip(shape, chunk, strict=True))):
        path = "/".join(map(str, idx))
        data = ask(f"/levels/{key_of(name)}/{level}/c/{path}").content
        place = tuple(slice(i * c, (i + 1) * c) for i, c in zip(idx, chunk, strict=True))
        part = found[place]
        whole = np.frombuffer(data, found.dtype.newbyteorder("<")).reshape(chunk)
        part[...] = whole[tuple(map(slice, part.shape))]
    return found


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("a/v", "u1"), ("a/w", "f4"), ("labels", "u8"), ("ints", "f4"), ("flags", "u1")],
)
def test_levels_have_the_values(con, ask, name, dtype):
    for level in range(2 if f"{name}_levels/1" in con else 1):
        found = read(ask, name, level)
        stored = con[f"{name}_levels/{level}" if level else name][...]
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, stored.astype(dtype))


def test_chunks_that_were_never_written(ask):
    document = ask(f"/levels/{key_of('holes')}/0/zarr.json").json()
    assert document["fill_value"] == "NaN"
    assert np.isnan(read(ask, "holes")).all()


def test_the_contrast_of_one_value_is_a_range():
    with dn.Connection(secrets.token_hex(8), backend="ram") as con:
        for value in (0, 7, -(2**60)):
            con.create_dataset(f"x{value}", data=np.full((2, 2, 2), value))
            low, high = View(Served(con), f"x{value}").contrast()
            assert low < value < high


def test_the_group_has_one_image(ask):
    for name, count in (("a/v", 3), ("a/w", 2), ("ints", 1)):
        group = ask(f"/levels/{key_of(name)}/zarr.json").json()
        (image,) = group["attributes"]["ome"]["multiscales"]
        assert [one["path"] for one in image["datasets"]] == [*map(str, range(count))]
    assert ask(f"/levels/{key_of('six')}/zarr.json").status_code == 404
    assert ask(f"/levels/{key_of('six')}/0/zarr.json").json()["shape"] == [2, 2, 3, 3, 3, 3]


def test_zarr_reads_it(con, ask, tmp_path):
    zarr = require("zarr")
    base = f"/levels/{key_of('a/v')}"
    for path in ("zarr.json", "0/zarr.json", "1/zarr.json", "1/c/0/0/0", "1/c/1/1/0"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(ask(f"{base}/{path}").content)
    group = zarr.open_group(str(tmp_path), mode="r")
    assert group["1"][0, 0, 0] == con["a/v_levels/1"][0, 0, 0]
    assert group["1"][10, 8, 6] == con["a/v_levels/1"][10, 8, 6]


def test_levels_of_what_is_shown_are_shown(con):
    ask = asking(con, "a/v")
    assert ask(f"/levels/{key_of('a/v')}/1/zarr.json").status_code == 200
    for name in ("a/w", "a/v_levels/1", "nothing", "../a/v"):
        assert ask(f"/levels/{key_of(name)}/zarr.json").status_code in (400, 404)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("0/c/9/0/0", 404),
        ("0/c/0/0", 404),
        ("0/c/0/0/x", 404),
        ("0/c/0/0/-1", 404),
        ("0/c/0/0/99999999999", 404),
        ("7/zarr.json", 404),
        ("0/.zarray", 404),
        ("9" * 5000 + "/zarr.json", 404),
        ("x/zarr.json", 404),
    ],
)
def test_what_is_not_there(ask, path, status):
    assert ask(f"/levels/{key_of('a/v')}/{path}").status_code == status


def test_refused(con, ask):
    for name in ("flat", "waves", "texts"):
        assert ask(f"/levels/{key_of(name)}/zarr.json").status_code == 415
    assert ask("/levels/$$$/zarr.json").status_code == 404
    assert ask("/levels/gA/zarr.json").status_code == 404
    small = asking(con, answer_bytes=100)
    assert small(f"/levels/{key_of('a/v')}/0/c/0/0/0").status_code == 413


def test_what_was_changed_is_opened_again():
    # One that has no image of OME-Zarr, whose document clients never ask for.
    for shape in ((2, 3, 4), (2, 2, 2, 3, 3, 3)):
        with dn.Connection(secrets.token_hex(8), backend="ram") as con:
            con.create_dataset("v", data=np.zeros(shape, "f4"))
            ask = asking(con)
            assert not read(ask, "v").any()
            del con["v"]
            con.create_dataset("v", data=np.ones(shape, "f4"))
            chunk = ask(f"/levels/{key_of('v')}/0/c{'/0' * len(shape)}")
            assert chunk.content == np.ones(shape, "<f4").tobytes()
            con["v"].resize((3, *shape[1:]))
            assert read(ask, "v").shape == (3, *shape[1:])
            del con["v"]
            assert ask(f"/levels/{key_of('v')}/0/zarr.json").status_code == 404


def test_the_state(ask):
    require("neuroglancer")
    found = ask("/volume/state", name="a/v").json()
    state = found["state"]
    assert found["source"] == f"levels/{key_of('a/v')}/"
    assert list(state["dimensions"]) == ["x", "y", "z"]
    assert state["dimensions"]["z"] == [2e-6, "m"]
    low, high = state["layers"][0]["shaderControls"]["normalized"]["range"]
    assert 0 <= low < high <= 200
    assert ask("/volume/state", name="labels").json()["state"]["layers"][0]["type"] == (
        "segmentation"
    )
    six = ask("/volume/state", name="six").json()
    assert (six["source"], "dimensions" in six["state"]) == (f"levels/{key_of('six')}/0/", False)
    assert ask("/volume/state", name="flat").status_code == 415
    assert ask("/volume/state", name="holes").status_code == 200


def test_links(con):
    require("neuroglancer")
    served = Served(con)
    (link,) = volumes.links(served, "a/v")
    assert (link.label, link.href) == ("open in 3-D", "volume/?name=a%2Fv")
    for name in ("flat", "waves", "a", "nothing"):
        assert list(volumes.links(served, name)) == []


def test_without_the_package(con, ask, monkeypatch):
    monkeypatch.setattr(volumes, "client_folder", lambda: None)
    answer = ask("/volume/state", name="a/v")
    assert answer.status_code == 501
    assert "dosna[volume]" in answer.json()["hint"]
    assert ask("/v/dosna/").status_code == 501
    (link,) = volumes.links(Served(con), "a/v")
    assert link.href is None
    assert "dosna[volume]" in link.hint


def test_the_client_of_the_package():
    """Where its files are, and the paths that it takes for its server, are not documented."""
    require("neuroglancer")
    folder = volumes.client_folder()
    page = (folder / "index.html").read_text()
    scripts = re.findall(r'src="([^"]+)"', page)
    assert scripts
    assert "<head>" in page
    text = "".join((folder / name).read_text() for name in scripts)
    assert r"/^(.*)\/v\/([^/]+)/" in text
    assert "/events/${" in text


def test_its_files(ask):
    require("neuroglancer")
    page = ask("/v/dosna/")
    assert page.headers["content-type"].startswith("text/html")
    assert 'rel="icon"' in page.text
    assert "wasm-unsafe-eval" in page.headers["content-security-policy"]
    (script, *_) = re.findall(r'src="([^"]+)"', page.text)
    assert ask(f"/v/dosna/{script}").headers["content-type"].startswith("text/javascript")
    for name in ("main.js.map", "x.js", "..%2f__init__.py", "../__init__.py", ".js"):
        assert ask(f"/v/dosna/{name}").status_code == 404
    assert json.dumps(ask("/volume/").text)
    assert ask("/volume/page.js").status_code == 200


def test_the_stream_of_events_stays_open():
    async def first():
        answer = await volumes._silent(None)
        parts = answer.body_iterator
        part = await anext(parts)
        pending = asyncio.ensure_future(anext(parts))
        await asyncio.sleep(0)
        is_open = not pending.done()
        pending.cancel()
        return answer.media_type, part, is_open

    assert asyncio.run(first()) == ("text/event-stream", ":\n\n", True)


def test_a_volume_that_was_deleted_is_not_fill(tmp_path):
    for backend in ("file", "hdf5"):
        (tmp_path / backend).mkdir()
        with dn.Connection(str(tmp_path / backend), backend=backend, engine="cpu") as con:
            con.create_dataset("v", data=VOLUME, chunk_size=(8, 8, 8)).pyramid(1)
            ask, base = asking(con), f"/levels/{key_of('v')}"
            for level in (0, 1):
                assert ask(f"{base}/{level}/c/0/0/0").status_code == 200
            del con["v_levels/1"]
            for path in ("1/c/0/0/0", "1/c/0/0/1", "1/c/0/0/0"):
                answer = ask(f"{base}/{path}")
                assert answer.status_code == 409, (backend, path)
                assert "deleted" in answer.json()["error"]
            assert ask(f"{base}/0/c/0/0/0").status_code == 200
            del con["v"]
            for path in ("0/c/0/0/1", "0/c/0/0/0", "0/c/0/0/1"):
                assert ask(f"{base}/{path}").status_code == 409, (backend, path)
            assert ask(f"{base}/0/zarr.json").status_code == 404
            con.create_dataset("v", data=VOLUME[:9], chunk_size=(9, 9, 9))
            assert ask(f"{base}/0/zarr.json").json()["shape"] == [9, 18, 13]
            assert ask(f"{base}/0/c/0/0/0").status_code == 200
