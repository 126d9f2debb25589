"""The routes of trees: what they list, count and tell, and what they refuse."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import struct
import threading

import numpy as np
import pytest
from kept_trees import put_tree
from support import HANG, require

import dosna as dn
from dosna.core.stopping import Stop
from dosna.errors import Stopped

require("starlette")
ak = require("awkward")

from asking import Asking, httpx  # noqa: E402
from starlette.applications import Starlette  # noqa: E402

from dosna.serve.served import Served  # noqa: E402
from dosna.serve.trees.filling import HistogramRequest, Variable  # noqa: E402
from dosna.serve.trees.routes import filled, links, routes  # noqa: E402
from dosna.web import HANDLERS  # noqa: E402

ARRAYS = {
    "run": np.arange(500) // 100,
    "x": np.linspace(0, 1, 500),
    "pt": [[float(n)] * (n % 3) for n in range(500)],
    "jet/": ak.Array(
        [{"eta": n / 10, "tags": ["b"] * (n % 2), "at": {"x": n}} for n in range(500)]
    ),
    "a b": np.where(np.arange(500) == 3, np.nan, 2.0**60),
    "id": np.arange(500) + (1 << 60),
    "hits": [[[1, 2]] * (n % 2) for n in range(500)],
    "name": ["<i>"] * 500,
}


@pytest.fixture(scope="module")
def con():
    with dn.Connection(secrets.token_hex(8), backend="ram", engine="cpu") as con:
        put_tree(con, "a/Events", ARRAYS, 60, chunk_entries=60)
        put_tree(con, "a/Runs", {"run": np.arange(5)}, 60)
        con.create_dataset("other", data=[1])
        yield con


def asking(con, below=""):
    return Asking(Starlette(routes=routes(Served(con, below)), exception_handlers=HANDLERS))


@pytest.fixture(scope="module")
def ask(con):
    return asking(con)


def test_trees_and_their_branches(con, ask):
    assert [(t["name"], t["entries"]) for t in ask("/trees/list").json()] == [
        ("a/Events", 500),
        ("a/Runs", 5),
    ]
    assert [t["name"] for t in asking(con, "a/Runs")("/trees/list").json()] == ["a/Runs"]
    found = ask("/trees/branches", tree="a/Events").json()
    branches = {one["name"]: one for one in found["branches"]}
    assert [one["kind"] for one in branches.values()] == [
        "flat", "flat", "list", "record", "flat", "flat", "nested", "text",
    ]  # fmt: skip
    assert branches["pt"]["type"] == "var * float64"
    assert [[*one.values()] for one in branches["jet/"]["fields"]] == [
        ["eta", "`jet/.eta`", "flat"],
        ["tags", "`jet/.tags`", "text"],
        ["at", "`jet/.at`", "record"],
        ["at.x", "`jet/.at.x`", "flat"],
    ]
    assert branches["a b"]["expression"] == "`a b`"


def test_a_histogram_is_json_events_and_a_picture(ask):
    asked = {"tree": "a/Events", "x": "pt", "where": "run >= 2", "xbins": 7}
    found = ask("/trees/histogram", **asked).json()
    values = [value for n in range(200, 500) for value in ARRAYS["pt"][n]]
    assert found["metadata"]["entries"] == sum(found["storage"]["values"]) == len(values)
    assert found["axes"][0]["bins"] == 7
    events = ask("/trees/histogram", stream=1, **asked)
    assert events.headers["content-type"].startswith("text/event-stream")
    told = re.findall(r"event: (\w+)\ndata: (.*)\n\n", events.text)
    assert {kind for kind, _ in told[:-1]} == {"progress"}
    assert (told[-1][0], json.loads(told[-1][1])) == ("histogram", found)
    require("matplotlib")
    for more in ({}, {"log": 1}, {"y": "run"}, {"y": "run", "log": 1}, {"where": "run > 99"}):
        picture = ask("/trees/histogram.png", **{**asked, **more})
        assert picture.headers["content-type"] == "image/png"
        assert picture.content.startswith(b"\x89PNG")
        assert min(struct.unpack(">II", picture.content[16:24])) > 400


def test_an_axis_of_very_many_bins_or_too_long_has_no_picture(ask):
    require("matplotlib")
    asked = {"tree": "a/Events", "x": "x", "xmin": -1e308, "xmax": 1e308}
    assert ask("/trees/histogram", **asked).status_code == 200
    assert ask("/trees/histogram.png", **asked).status_code == 415
    for edge in (4e299, 1e-300):
        asked |= {"xmin": -edge, "xmax": edge}
        assert ask("/trees/histogram.png", **asked).status_code == 200
    asked["xbins"] = 10_001
    assert ask("/trees/histogram", **asked).status_code == 200
    assert ask("/trees/histogram.png", **asked).status_code == 415


def test_fields_and_odd_names(ask):
    for text, count in (
        ("`jet/.eta`", 500),
        ("`jet/.at.x`", 500),
        ("`a b`", 500),
        ("a b", 500),
        ("hits", 1000 // 2),
    ):
        found = ask("/trees/histogram", tree="a/Events", x=text).json()
        assert found["metadata"]["entries"] == count
    limits = ask("/trees/histogram", tree="a/Events", x="x", xmin="0.25", xmax="0.75").json()
    assert (limits["axes"][0]["lower"], limits["axes"][0]["upper"]) == (0.25, 0.75)
    pair = ask("/trees/histogram", tree="a/Events", x="x", y="pt", ybins=3).json()
    assert pair["axes"][1]["bins"] == 3


@pytest.mark.parametrize(
    ("parameters", "status"),
    [
        ({"x": "nothing"}, 404),
        ({"x": "x +"}, 400),
        ({"x": "name"}, 400),
        ({"x": ""}, 400),
        ({"x": "x", "xbins": "0"}, 400),
        ({"x": "x", "xbins": "many"}, 400),
        ({"x": "x", "xmin": "1"}, 400),
        ({"x": "x", "xmin": "1", "xmax": "nan"}, 400),
        ({"x": "x", "y": "run", "xbins": "1000", "ybins": "1000"}, 400),
        ({"x": "x", "where": "x" * 10_001}, 400),
        ({"x": "x", "tree": "other"}, 404),
        ({"x": "x", "tree": "../a"}, 400),
    ],
)
def test_refused(ask, parameters, status):
    answer = ask("/trees/histogram", **{"tree": "a/Events", **parameters})
    assert answer.status_code == status
    assert answer.json()["error"]


def test_refusals_are_events_too(ask):
    events = ask("/trees/histogram", tree="a/Events", x="pt", y="hits", stream=1).text
    assert events.endswith("\n\n")
    assert "event: refusal" in events
    assert "differ in length" in events


def test_histograms_that_wait_leave_threads_for_others(ask, monkeypatch):
    from dosna.serve.trees import routes as module

    may, fill = threading.Event(), module.filled
    monkeypatch.setattr(module, "filled", lambda *args: (may.wait(HANG), fill(*args))[1])
    asked = {"tree": "a/Events", "x": "run"}

    async def work():
        transport = httpx.ASGITransport(ask.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            waiting = [
                asyncio.ensure_future(client.get("/trees/histogram", params=asked | more))
                for more in ({"stream": 1}, {})
                for _ in range(45)
            ]
            await asyncio.sleep(0.2)
            assert not any(one.done() for one in waiting)
            listed = await asyncio.wait_for(client.get("/trees/list"), HANG / 2)
            may.set()
            return listed, await asyncio.gather(*waiting)

    try:
        listed, answers = asyncio.run(work())
    finally:
        may.set()
    assert listed.status_code == 200
    assert all("storage" in answer.text for answer in answers)


def test_only_what_is_below_is_told(con):
    ask = asking(con, "a/Runs")
    assert ask("/trees/branches", tree="a/Events").status_code == 404
    assert ask("/trees/entries", tree="a/Events").status_code == 404
    assert ask("/trees/histogram", tree="a/Runs", x="run").status_code == 200


def test_a_client_that_has_gone_stops_it(con):
    stop, seen = Stop(), []

    def tell(done, total):
        seen.append(done)
        stop.set("the client has gone")

    with pytest.raises(Stopped):
        filled(Served(con), HistogramRequest("a/Events", (Variable("x"),)), stop, tell)
    assert seen == [0]


def test_entries(ask):
    found = ask("/trees/entries", tree="a/Events", columns="run, pt, a b", count=4)
    assert found.status_code == 400
    found = ask("/trees/entries", tree="a/Events", columns="run, pt, `a b`", count=4).json()
    assert found["columns"] == ["run", "pt", "a b"]
    assert found["rows"][2] == [0, [2.0, 2.0], 2.0**60]
    assert found["rows"][3] == [0, [], "nan"]
    assert found["next"] == 4
    every = ask("/trees/entries", tree="a/Events", start=499).json()
    assert len(every["columns"]) == 8
    row = dict(zip(every["columns"], every["rows"][0], strict=True))
    assert (row["id"], row["name"]) == (str((1 << 60) + 499), "<i>")
    assert row["jet/"] == {"eta": 49.9, "tags": ["b"], "at": {"x": 499}}
    assert every["next"] is None


def test_dates_of_entries():
    days = np.array([0, 10**9, "NaT"], "M8[D]")
    short = np.array([1, "NaT", 3], "M8[ns]")
    dates = {"day": days, "short": short, "lists": ak.unflatten(short, [2, 0, 1])}
    with dn.Connection(secrets.token_hex(8), backend="ram", engine="cpu") as con:
        put_tree(con, "Events", {**dates, "span": short - short[0]}, 3)
        rows = asking(con)("/trees/entries", tree="Events").json()["rows"]
    first, third = "1970-01-01T00:00:00.000000001", "1970-01-01T00:00:00.000000003"
    assert rows == [
        ["1970-01-01", first, [first, None], "0 nanoseconds"],
        ["2739877-01-03", None, [], None],
        [None, third, [third], "2 nanoseconds"],
    ]


def test_selected_entries(ask):
    asked = {"tree": "a/Events", "columns": "pt", "where": "count(pt) == 2", "count": 10}
    rows, start = [], 0
    while start is not None:
        found = ask("/trees/entries", start=start, **asked).json()
        rows += found["rows"]
        start = found["next"]
    assert [row[0][0] for row in rows] == [float(n) for n in range(2, 500, 3)]
    with dn.Connection(secrets.token_hex(8), backend="ram", engine="cpu") as con:
        put_tree(con, "Late", {"x": np.arange(9000)}, 9000)
        asked = {"tree": "Late", "where": "x == 7 || x >= 3000", "count": 20}
        found = asking(con)("/trees/entries", **asked).json()
        assert [row[0] for row in found["rows"]] == [7, *range(3000, found["next"])]
        assert 3000 < found["next"] <= 3019
    assert ask("/trees/entries", start="x", tree="a/Events").status_code == 400
    assert ask("/trees/entries", tree="a/Events", where="x").status_code == 400


def test_the_page_and_its_files(ask):
    page = ask("/trees/")
    names = re.findall(r'(?:href|src)="([^":]+)"', page.text)
    assert set(names) == {"../?path=/", "page.css", "page.js"}
    for name in ("page.css", "page.js", "plot.js"):
        assert ask(f"/trees/{name}").status_code == 200
    assert "<script>" not in page.text
    assert ask("/trees").headers["location"] == "trees/"


def test_links(con):
    served = Served(con)
    (link,) = links(served, "a/Events")
    assert link.href == "trees/?tree=a%2FEvents"
    (link,) = links(served, "a/Events/pt")
    assert link.href == "trees/?tree=a%2FEvents&x=pt"
    (link,) = links(served, "a/Events/pt/content")
    assert link.href == "trees/?tree=a%2FEvents"
    assert not link.front
    assert list(links(served, "other")) == list(links(served, "a")) == []


def test_a_tree_that_is_shown_alone_is_the_first_page(con):
    from dosna.serve.page import routes as page_routes

    for below, first in (("a/Runs", "trees/?tree=a%2FRuns"), ("a", None), ("other", None)):
        ask = Asking(Starlette(routes=page_routes(Served(con, below))))
        answer = ask("/")
        assert (answer.status_code, answer.headers.get("location")) == (
            (200, None) if first is None else (303, first)
        )
        assert ask("/", path="/").status_code == 200
