"""The page of trees in a real browser: what it lists, draws and says."""

from __future__ import annotations

import re
import secrets

import numpy as np
import pytest
from kept_trees import put_tree
from support import require

import dosna as dn

for package in ("starlette", "uvicorn", "h5grove", "playwright", "PIL"):
    require(package)
ak = require("awkward")

from browser import SIZE, Pages  # noqa: E402

pytestmark = pytest.mark.slow

ENTRIES = 3000
RANDOM = np.random.default_rng(0)
COUNTS = RANDOM.integers(0, 4, ENTRIES)
MASS = RANDOM.normal(91, 2.5, ENTRIES)
PT = ak.unflatten(RANDOM.exponential(20, COUNTS.sum()), COUNTS)
ETA = ak.unflatten(RANDOM.normal(size=COUNTS.sum()), COUNTS)


@pytest.fixture(scope="module")
def pages(browser, pictures):
    arrays = {
        "nMuon": COUNTS,
        "mass": MASS,
        "Muon_pt": PT,
        "Muon_eta": ETA,
        "jet": ak.Array([{"m": n / 10} for n in range(ENTRIES)]),
        "name": ["<b>bold</b>"] * ENTRIES,
    }
    with dn.Connection(f"{secrets.token_hex(6)}/demo", backend="ram") as con:
        put_tree(con, "run1/Events", arrays, 500, chunk_entries=500)
        put_tree(con, "run1/Lumi", {"block": np.arange(9)}, 5)
        with con.serve() as server:
            context = browser.new_context(viewport=SIZE, reduced_motion="reduce")
            yield Pages(context, server, pictures)
            context.close()


@pytest.fixture
def page(pages):
    root, _, token = pages.server.url.partition("?")
    pages.page.goto(f"{root}trees/?tree=run1%2FEvents&{token}")
    pages.page.locator("#branches li").first.wait_for()
    return pages.page


def choose(page, expression):
    page.locator(f'li[data-expression="{expression}"] button.name').click()


def says(page, text):
    page.locator("#message", has_text=text).wait_for()


def hovered(page, x, y):
    """Return what is shown for a place on the plot, in parts of its axes."""
    box = page.locator("#plot").bounding_box()
    area = page.evaluate("() => { const p = document.querySelector('#plot'); return p.width; }")
    assert area > 100
    page.mouse.move(box["x"] + 72 + x * (box["width"] - 172), box["y"] + y * box["height"])
    return page.locator("#hover").inner_text()


def test_links_lead_from_the_page_to_a_tree(pages):
    page = pages.open("run1/Events/Muon_pt/content")
    with page.expect_popup() as opened:
        page.get_by_text("open as a tree").click()
    opened.value.locator("#branches li").first.wait_for()
    assert "tree=run1%2FEvents" in opened.value.url
    opened.value.close()
    assert pages.faults == []


def test_a_click_draws_a_branch(pages, page):
    page.get_by_text("3,000 entries, 6 branches").wait_for()
    assert page.locator("#branches li").count() == 7
    choose(page, "mass")
    says(page, "3,000 values")
    image = pages.drawn()
    assert np.ptp(image) > 100
    shown = hovered(page, 0.5, 0.5)
    low, high, count = map(
        float, re.search(r"mass: (\S+) to (\S+)\nentries: (\d+)", shown).groups()
    )
    assert count == ((low - 1e-9 <= MASS) & (high - 1e-9 > MASS)).sum() > 0
    pages.picture("tree")


def test_a_selection_and_a_logarithmic_scale(pages, page):
    page.fill("#where", "nMuon >= 2 && any(Muon_pt > 20)")
    choose(page, "Muon_pt")
    chosen = (COUNTS >= 2) & np.asarray(ak.any(PT > 20, axis=1))
    says(page, f"{ak.count(PT[chosen]):,} values from {chosen.sum():,} of 3,000 entries")
    linear = pages.drawn()
    page.check("#log")
    while np.array_equal(linear, pages.drawn()):
        page.wait_for_timeout(50)
    with page.expect_download() as download:
        page.get_by_text("JSON").click()
    assert f'"entries":{ak.count(PT[chosen])}' in download.value.path().read_text()
    pages.picture("tree-selection")


def test_two_branches(pages, page):
    choose(page, "Muon_eta")
    says(page, f"{COUNTS.sum():,} values")
    page.locator('li[data-expression="Muon_pt"]').hover()
    page.locator('li[data-expression="Muon_pt"] button.second').click()
    says(page, f"{COUNTS.sum():,} pairs")
    image = pages.drawn()
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 50
    assert re.match(r"Muon_eta: .*\nMuon_pt: .*\nentries: \d+", hovered(page, 0.5, 0.6))
    pages.picture("tree-two")


def test_an_error_takes_the_place_of_what_was_drawn(pages, page):
    choose(page, "mass")
    says(page, "3,000 values")
    pages.drawn()
    for _ in range(2):
        page.fill("#where", "nosuch > 2")
        page.click("#draw")
        says(page, "nosuch")
        for place in ("#plot", "#listing", "#json", "#png"):
            assert not page.locator(place).is_visible()
        page.fill("#where", "")
        page.click("#show")
        page.locator("#listing").wait_for()
    assert pages.faults == []


def test_zoom_by_dragging(pages, page):
    choose(page, "mass")
    says(page, "3,000 values")
    pages.drawn()
    box = page.locator("#plot").bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.4, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, middle)
    with page.expect_response(lambda answer: "xmin" in answer.url):
        page.mouse.up()
    assert 80 < float(page.input_value("#xmin")) < float(page.input_value("#xmax")) < 102
    with page.expect_response(lambda answer: "/histogram?" in answer.url) as answer:
        page.dblclick("#plot")
    assert "xmin" not in answer.value.url
    assert pages.faults == []


def test_entries_and_other_trees(pages, page):
    page.fill("#where", "nMuon == 3")
    page.click("#show")
    page.locator("#rows tr").first.wait_for()
    heads = page.locator("#head th").all_inner_texts()
    assert heads == ["nMuon", "mass", "Muon_pt", "Muon_eta", "jet", "name"]
    counts = page.locator("#rows td:first-child").all_inner_texts()
    assert set(counts) == {"3"}
    assert page.locator("#rows td:last-child").first.inner_text() == "<b>bold</b>"
    pages.picture("tree-entries")
    page.select_option("#tree", "run1/Lumi")
    page.get_by_text("9 entries, 1 branch").wait_for()
    choose(page, "block")
    says(page, "9 values")
    assert pages.faults == []


def test_all_is_within_a_narrow_window(page):
    page.set_viewport_size({"width": 390, "height": 700})
    choose(page, "mass")
    says(page, "3,000 values")
    assert page.locator("#plot").bounding_box()["width"] > 330
    assert page.locator("#where").bounding_box()["width"] > 200
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.set_viewport_size(SIZE)


def test_errors_are_said(pages, page):
    page.fill("#x", "Muon_pr")
    page.click("#draw")
    says(page, "did you mean 'Muon_pt'")
    page.fill("#x", "mass")
    page.fill("#where", "Muon_pt > 3")
    page.click("#draw")
    says(page, "any(")
    assert pages.faults == []


def test_a_server_that_has_ended_is_named(browser, pictures):
    with dn.Connection(f"{secrets.token_hex(6)}/demo", backend="ram") as con:
        put_tree(con, "Lumi", {"block": np.arange(9)}, 5)
        con.create_dataset("other", data=np.arange(9))
        with con.serve() as server:
            context = browser.new_context(viewport=SIZE)
            first, second = (Pages(context, server, pictures).open("Lumi") for _ in range(2))
            second.goto(server.url.replace("/?", "/trees/?tree=Lumi&"))
            second.locator("#branches li").first.wait_for()
            first.get_by_role("treeitem", name="other").wait_for()
        choose(second, "block")
        says(second, "The server does not answer")
        first.get_by_role("treeitem", name="other").click()
        first.get_by_text("The server does not answer").wait_for()
        context.close()
