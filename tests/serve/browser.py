"""A browser that draws the pages: Debian's Chromium, driven by playwright."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import numpy as np
import pytest
from support import HANG, require, require_program

# Chromium draws by software where there is no GPU, and root has no sandbox.
FLAGS = [
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
]
SIZE = {"width": 900, "height": 600}


class Pages:
    """The pages of one server in a browser, and what went wrong in them.

    Parameters
    ----------
    context : playwright BrowserContext
        The context, in which all pages are opened.
    server : dosna.web.Server
        The server.
    folder : path
        The folder for pictures of the pages.
    """

    def __init__(self, context: Any, server: Any, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.faults: list[str] = []
        self.page = context.new_page()
        self.page.set_default_timeout(HANG * 1000)
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        self.page.on("request", self._see)
        self.page.on("response", self._check)

    def _hear(self, message: Any) -> None:
        slow = any(text in message.text for text in ("GPU stall", "performance warning"))
        if message.type in ("error", "warning") and not slow:
            self.faults.append(f"{message.type}: {message.text} {message.location['url']}")

    def _see(self, request: Any) -> None:
        parts = urlsplit(request.url)
        loopback = parts.hostname in ("127.0.0.1", "localhost")
        if parts.scheme not in ("data", "blob", "file") and not loopback:
            self.faults.append(f"request of {request.url}")

    def _check(self, response: Any) -> None:
        if response.status >= 400:
            self.faults.append(f"{response.status} for {response.url}")

    def open(self, name: str = "", address: str = "") -> Any:
        """Open the page of a dataset; return playwright's page."""
        query = urlencode({"path": f"/{name}"})
        self.page.goto(f"{address or self.server.url}&{query}")
        return self.page

    def picture(self, name: str) -> None:
        """Keep a picture of the page, and check that nothing went wrong in it so far."""
        self.page.screenshot(path=self.folder / f"{name}.png")
        assert self.faults == []

    def drawn(self) -> np.ndarray:
        """Wait until something is drawn on the canvas, and return it as an array."""
        from PIL import Image

        canvas = self.page.locator("canvas").first
        canvas.wait_for()
        while True:
            image = np.asarray(Image.open(io.BytesIO(canvas.screenshot())).convert("RGB"))
            if len(np.unique(image.reshape(-1, 3), axis=0)) > 3:
                return image
            self.page.wait_for_timeout(100)

    def under(self, x: float, y: float) -> str:
        """Move the pointer to a place on the canvas, in parts of it; return what is shown there.

        Places count from the lower left corner.
        """
        box = self.page.locator("canvas").first.bounding_box()
        left, top = box["x"] + x * box["width"], box["y"] + (1 - y) * box["height"]
        shown = self.page.locator('[class*="_tooltip_"]').first
        for step in count():
            self.page.mouse.move(left + step % 2, top)
            if shown.is_visible():
                break
            self.page.wait_for_timeout(50)
        return str(shown.inner_text()).replace("\u2212", "-")


# As long as it runs, playwright's event loop is that of the thread, and asyncio.run is an error.
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Give a browser."""
    require("playwright")
    from playwright.sync_api import sync_playwright

    program = require_program("chromium")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=program, args=FLAGS, timeout=0)
        yield found
        found.close()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the folder for pictures of pages; DOSNA_PICTURES names one that is kept."""
    kept = os.environ.get("DOSNA_PICTURES")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("pictures")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
