"""The page in a real browser: what it says, what it draws, and what it does not ask for."""

from __future__ import annotations

import re
import secrets
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from support import require

import dosna as dn

for package in ("starlette", "uvicorn", "h5grove", "playwright", "PIL"):
    require(package)

from browser import SIZE, Pages  # noqa: E402

from dosna.cli.commands.viewing import hidden  # noqa: E402

pytestmark = pytest.mark.slow

LONG = 1_000_000
Z, Y, X = np.ogrid[:40, :60, :80]
VOLUME = np.exp(-((Z - 20) ** 2 + (Y - 30) ** 2 + (X - 20 - Z) ** 2) / 300).astype("f4")


def make(con):
    con.create_dataset("volume", data=VOLUME, chunk_size=(16, 16, 16), attrs={"units": "a.u."})
    con.create_dataset("image", data=(VOLUME[20] * 1000).astype(">i2"), chunk_size=(32, 32))
    photo = np.zeros((60, 80, 3), "u1")
    photo[:30, :, 0], photo[:, 40:, 2] = 255, 255
    image = {"CLASS": "IMAGE", "IMAGE_SUBCLASS": "IMAGE_TRUECOLOR"}
    con.create_dataset("photo", data=photo, attrs={**image, "INTERLACE_MODE": "INTERLACE_PIXEL"})
    wave = np.sin(np.arange(LONG) / 50_000).astype("f4")
    con.create_dataset("wave", data=wave, chunk_size=100_000, attrs={"units": "V"})
    table = [("run", "i4"), ("energy", "f8"), ("detector", "S4"), ("good", "?")]
    rows = [(7, 2.5, b"east", True), (8, -1.25, b"west", False)]
    con.create_dataset("table", data=np.array(rows, table))
    con.create_dataset("notes", data=["first note", "zweite Notiz äö ✓"])
    con.create_dataset("waves", data=np.exp(1j * np.arange(50) / 5).astype("c8"))
    con.create_dataset("entry/scan/counts", data=np.arange(40) ** 2)
    con.create_dataset("entry/scan/angle", data=np.linspace(0, 3.9, 40), attrs={"units": "deg"})
    con.create_dataset("entry/scan/title", data=np.array("A scan of angles", "T"))
    con.set_group_attrs("", {"default": "entry"})
    con.set_group_attrs("entry", {"NX_class": "NXentry", "default": "scan"})
    scan = {"NX_class": "NXdata", "signal": "counts", "axes": ["angle"]}
    con.set_group_attrs("entry/scan", scan)


@pytest.fixture(scope="module")
def pages(browser, pictures):
    with dn.Connection(f"{secrets.token_hex(6)}/demo", backend="ram") as con:
        make(con)
        with con.serve() as server:
            context = browser.new_context(viewport=SIZE, reduced_motion="reduce")
            found = Pages(context, server, pictures)
            found.connection = con
            yield found
            context.close()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


def numbers(text):
    return [float(found) for found in re.findall(r"-?\d+(?:\.\d+)?(?:e[+-]\d+)?", text)]


def test_volume_is_drawn_by_slices_with_values_under_the_pointer(pages):
    page = pages.open("volume")
    first = pages.drawn()
    page.get_by_role("heading", name="volume").wait_for()
    assert "token" not in page.url
    slider = page.get_by_role("slider").last
    with page.expect_response(lambda answer: "selection=1%2C" in answer.url):
        slider.press("ArrowUp")
    with page.expect_response(lambda answer: "selection=20%2C" in answer.url) as answer:
        for _ in range(19):
            slider.press("ArrowUp")
    assert np.frombuffer(answer.value.body(), "f4").size == 60 * 80
    while np.array_equal(first, pages.drawn()):
        page.wait_for_timeout(100)
    x, y, value = numbers(pages.under(0.5, 0.6))[:3]
    assert value == pytest.approx(float(VOLUME[20, int(y), int(x)]), rel=1e-3)
    pages.picture("volume")


def test_image_of_big_endian_numbers_is_drawn_and_described(pages):
    page = pages.open("image")
    assert np.ptp(pages.drawn()) > 100
    x, y, value = numbers(pages.under(0.5, 0.5))[:3]
    assert value == int(VOLUME[20, int(y), int(x)] * 1000)
    page.get_by_role("tab", name="Inspect").click()
    for text in ("Integer (signed), 16-bit, big-endian", "60 x 80 = 4800", "32 x 32"):
        page.get_by_text(text).first.wait_for()
    pages.picture("image")


def test_photo_has_its_colours(pages):
    pages.open("photo")
    colours = np.unique(pages.drawn().reshape(-1, 3), axis=0).tolist()
    for colour in ([255, 0, 0], [0, 0, 255], [255, 0, 255], [0, 0, 0]):
        assert colour in colours
    pages.picture("photo")


def test_long_line_says_what_is_shown(pages):
    page = pages.open("wave")
    image = pages.drawn()
    page.get_by_text(f"wave: least and greatest of each 62 of {LONG} values").wait_for()
    page.get_by_role("treeitem", name="[0:62500]").wait_for()
    assert (image.min(axis=2) < 128).any()
    place, value = numbers(pages.under(0.5, 0.5))[:2]
    assert value == pytest.approx(np.sin(place / 50_000), abs=0.01)
    pages.picture("wave")


def test_part_of_a_long_line_has_every_value(pages):
    page = pages.open("wave/[937500:1000000]")
    pages.drawn()
    page.get_by_text(f"wave: values 937500 to 1000000 of {LONG}").wait_for()
    place, value = numbers(pages.under(0.5, 0.5))[:2]
    assert value == pytest.approx(np.sin(place / 50_000), abs=1e-4)
    assert pages.faults == []


def test_table_and_text_are_shown(pages):
    page = pages.open("table")
    for text in ("energy", "−1.250", "east", "false"):
        page.get_by_text(text).first.wait_for()
    pages.picture("table")
    page.get_by_role("treeitem", name="notes").click()
    page.get_by_text("zweite Notiz äö ✓").wait_for()
    page.wait_for_url("**path=%2Fnotes")
    pages.picture("notes")


def test_complex_numbers_are_drawn(pages):
    page = pages.open("waves")
    assert np.ptp(pages.drawn()) > 100
    page.get_by_text("Amplitude").first.wait_for()
    assert pages.faults == []


def test_default_of_nexus_is_shown_first(pages):
    page = pages.open()
    pages.drawn()
    page.get_by_text("A scan of angles").wait_for()
    page.get_by_text("angle (deg)").wait_for()
    angle, value = numbers(pages.under(0.5, 0.5))[:2]
    assert value == pytest.approx(round(angle * 10) ** 2)
    pages.picture("nexus")


def test_search_finds_paths(pages):
    page = pages.open("notes")
    page.get_by_text("first note").wait_for()
    page.get_by_role("tab", name="Search").click()
    page.get_by_role("textbox").fill("ang")
    page.get_by_text("/entry/scan/angle").click()
    page.wait_for_url("**path=%2Fentry%2Fscan%2Fangle")
    pages.drawn()
    pages.picture("search")


def test_file_that_hides_the_token_leads_to_the_page(pages):
    with hidden(pages.server.url) as address:
        pages.page.context.clear_cookies()
        pages.page.goto(address)
        pages.page.get_by_text("A scan of angles").wait_for()
    assert pages.faults == []


def test_export_gives_the_values(pages):
    page = pages.open("image")
    pages.drawn()
    page.get_by_role("button", name="More controls").click()
    page.get_by_role("button", name="Export").click()
    with page.expect_download() as download:
        page.get_by_text("NPY").click()
    assert (np.load(download.value.path()) == (VOLUME[20] * 1000).astype("i2")).all()
    assert pages.faults == []


def test_view_is_shown_in_the_frame_of_a_notebook_of_another_site(pages, tmp_path):
    view = pages.connection["image"].view(height=400)
    (tmp_path / "favicon.ico").touch()
    (tmp_path / "notebook.html").write_text(f"<title>cell</title>{view._repr_html_()}")
    handler = partial(QuietHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as notebook:
        threading.Thread(target=notebook.serve_forever, daemon=True).start()
        # Another name is another site to a browser, as that of a notebook is.
        pages.page.goto(f"http://localhost:{notebook.server_port}/notebook.html")
        frame = pages.page.frame_locator("iframe")
        frame.get_by_role("heading", name="image").wait_for()
        frame.locator("canvas").first.wait_for()
        notebook.shutdown()
    pages.picture("notebook")
    view.stop()
