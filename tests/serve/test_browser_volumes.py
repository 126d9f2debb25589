"""Volumes in a real browser: Neuroglancer draws them, and asks this server alone."""

from __future__ import annotations

import re
import secrets
from itertools import count
from urllib.parse import urljoin

import numpy as np
import pytest
from support import require

import dosna as dn

for package in ("starlette", "uvicorn", "h5grove", "playwright", "PIL", "neuroglancer"):
    require(package)

from browser import SIZE, Pages  # noqa: E402

pytestmark = pytest.mark.slow

Z, Y, X = np.ogrid[:48, :64, :80]
VOLUME = (2 * Z + Y + X).astype("u1")


@pytest.fixture(scope="module")
def pages(browser, pictures):
    with dn.Connection(f"{secrets.token_hex(6)}/demo", backend="ram") as con:
        ds = con.create_dataset("scan/tomo", data=VOLUME, chunk_size=(16, 16, 16))
        ds.pyramid(1)
        con.create_dataset("scan/plain", data=VOLUME.astype("f8"), chunk_size=(24, 32, 40))
        with con.serve("scan") as server:
            context = browser.new_context(viewport=SIZE, reduced_motion="reduce")
            yield Pages(context, server, pictures)
            context.close()


@pytest.mark.parametrize("name", ["tomo", "plain"])
def test_a_volume_is_drawn_in_three_planes(pages, name):
    page = pages.open(f"scan/{name}")
    asked = []
    page.on("response", lambda answer: asked.append(answer.url))
    address = page.get_by_text("open in 3-D").get_attribute("href")
    page.goto(urljoin(page.url, address))
    page.wait_for_url("**/v/dosna/**")
    page.locator(".neuroglancer-layer-item").first.wait_for()
    planes = page.locator(".neuroglancer-rendered-data-panel")
    planes.first.wait_for()
    while len(np.unique(pages.drawn()[..., 0])) < 40:
        page.wait_for_timeout(200)
    # The pointer in the middle of a plane has the value of the middle of the volume.
    box = planes.first.bounding_box()
    value = page.locator(".neuroglancer-layer-item-value").first
    for step in count():
        x = box["x"] + box["width"] / 2 + 6 + step % 2
        page.mouse.move(x, box["y"] + box["height"] / 2 + 6)
        if re.fullmatch(r"\d+(\.\d+)?", value.inner_text().strip()):
            break
        page.wait_for_timeout(50)
    # Six pixels are two elements at most.
    assert float(value.inner_text()) == pytest.approx(2 * 24 + 32 + 40, abs=5)
    assert page.get_by_text("Disconnected").count() == 0
    levels = {found[1] for url in asked if (found := re.search(r"/levels/\w+/(\d)/", url))}
    assert levels == ({"0", "1"} if name == "tomo" else {"0"})
    pages.picture(f"3d-{name}")


def test_a_dataset_that_cannot_be_shown(pages):
    root, _, token = pages.server.url.partition("?")
    pages.page.goto(f"{root}volume/?name=nothing&{token}")
    pages.page.locator("#message.bad").wait_for()
    assert "nothing" in pages.page.locator("#message").inner_text()
    pages.faults.clear()  # the refusal is what was asked for
