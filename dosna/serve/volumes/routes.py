"""The routes of volumes; see `dosna.serve.volumes`."""

from __future__ import annotations

import asyncio
import importlib.util
import re
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from dosna.errors import ChunkError, DatasetError, DatasetNotFoundError, DosnaError
from dosna.io.cache import Cache
from dosna.serve.page import Link
from dosna.serve.served import Served
from dosna.serve.volumes.levels import View, key_of, shown_as, view_of
from dosna.web import Refusal, Streamed

__all__ = ["links", "routes"]

_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".wasm": "application/wasm",
}
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*(\.css|\.html|\.js|\.wasm)")
_LEVEL = re.compile(r"[0-9]{1,4}")
_CHUNK = re.compile(r"c((?:/\d{1,9})+)")
_OWN = {"": ("page.html", "text/html"), "page.js": ("page.js", "text/javascript")}

# Its decoders are WebAssembly, and it starts workers from its files.
_POLICY = {
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self' "
        "'unsafe-inline'; img-src 'self' data: blob:; worker-src 'self' blob:; object-src 'none'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    )
}
_METERS = {
    "angstrom": 1e-10,
    "nanometer": 1e-9,
    "micrometer": 1e-6,
    "millimeter": 1e-3,
    "centimeter": 1e-2,
    "meter": 1.0,
}
_NO_ICON = '<link rel="icon" href="data:,">'
_BEAT_SECONDS = 15.0
_PIXELS = 300
"""Pixels of a screen that the longest axis has at first."""


@cache
def client_folder() -> Path | None:
    """Return the folder of Neuroglancer's built client; None if it is not installed."""
    # Not imported, because that would load its own server.
    spec = importlib.util.find_spec("neuroglancer")
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        folder = Path(place) / "static" / "client"
        if (folder / "index.html").is_file():
            return folder
    return None


def routes(served: Served) -> Sequence[BaseRoute]:
    """Return the routes of volumes.

    Parameters
    ----------
    served : Served
        The datasets that are served.

    Returns
    -------
    sequence of BaseRoute
        The routes.
    """
    views: Cache[View] = Cache(100)

    def view(request: Request, *, fresh: bool = False) -> View:
        key = request.path_params["key"]
        if fresh:
            views.put(key, view_of(served, key))
        return views.get(key, lambda: view_of(served, key))

    def chunk(request: Request, number: int, idx: tuple[int, ...]) -> bytes | None:
        shown = view(request)
        try:
            return shown.chunk(number, idx)
        except (DatasetError, ChunkError):  # it was changed since it was opened
            try:
                return view(request, fresh=True).chunk(number, idx)
            except (DatasetNotFoundError, Refusal) as error:
                if isinstance(error, Refusal) and error.status != 404:
                    raise
                # Clients that have its document would take 404 for a chunk of fill values.
                raise Refusal(409, "the dataset was deleted meanwhile") from None

    def group(request: Request) -> Response:
        document = view(request, fresh=True).group()
        if document is None:
            raise Refusal(404, "the dataset cannot be an image of OME-Zarr")
        return _json(document)

    def level(request: Request) -> Response:
        name, rest = request.path_params["level"], request.path_params["rest"]
        # Not a number of the route's pattern: Python refuses to read one of thousands of digits.
        if not _LEVEL.fullmatch(name):
            raise Refusal(404, "there is no such object")
        number = int(name)
        if rest == "zarr.json":
            return _json(view(request, fresh=True).array(number))
        found = _CHUNK.fullmatch(rest)
        data = None
        if found is not None:
            data = chunk(request, number, tuple(map(int, found[1].split("/")[1:])))
        if data is None:
            raise Refusal(404, "there is no such object")
        return Response(data, media_type="application/octet-stream")

    def state(request: Request) -> Response:
        if client_folder() is None:
            raise Refusal(
                501, "volumes are shown by Neuroglancer, which is not installed", _install()
            )
        return _json(state_of(View(served, request.query_params.get("name", ""))))

    return [
        *(Route("/volume/" + path, _own(*of), methods=["GET"]) for path, of in _OWN.items()),
        Route("/volume/state", state, methods=["GET"]),
        Route("/levels/{key}/zarr.json", group, methods=["GET", "HEAD"]),
        Route("/levels/{key}/{level}/{rest:path}", level, methods=["GET", "HEAD"]),
        Route("/events/dosna", _silent, methods=["GET"]),
        Route("/v/dosna/{file:path}", _client, methods=["GET"]),
    ]


def links(served: Served, name: str) -> Iterable[Link]:
    """Return the link from the page to the selected volume."""
    try:
        dataset = served.dataset(name)
    except DosnaError:  # a Refusal is one
        return
    if dataset.ndim < 3 or not dataset.size or shown_as(dataset.dtype) is None:
        return
    if client_folder() is None:
        yield Link("no view in 3-D", None, f"It needs Neuroglancer: {_install()}")
    else:
        yield Link("open in 3-D", f"volume/?name={quote(name, safe='')}", "Three planes")


def _install() -> str:
    return "pip install 'dosna[volume]'"


def state_of(view: View) -> dict[str, Any]:
    """Return the initial state of Neuroglancer, and the path of the layer's source.

    Parameters
    ----------
    view : View
        The view to show.
    """
    label, shape = view.name.rpartition("/")[2], view.dataset(0).shape
    image = view.image()
    layer: dict[str, Any] = {"name": label, "type": "segmentation" if view.labels else "image"}
    if not view.labels:
        contrast = view.contrast()
        if contrast is not None:
            layer["shaderControls"] = {"normalized": {"range": list(contrast)}}
    longest = max(shape[-3:])
    state = {
        "layers": [layer],
        "layout": "4panel",
        "crossSectionScale": longest / _PIXELS,
        "projectionScale": 1.5 * longest,
    }
    dimensions = None if image is None else _dimensions(image)
    if dimensions is not None:
        state["dimensions"] = dimensions
    source = f"levels/{key_of(view.name)}/" + ("" if image is not None else "0/")
    return {"source": source, "state": state}


def _dimensions(image: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the axes of an image, the last of which runs to the right; None if unknown."""
    steps = image["datasets"][0]["coordinateTransformations"][0].get("scale")
    found = {}
    for axis, step in zip(image["axes"], steps or (), strict=False):
        unit = axis.get("unit")
        if axis.get("type") == "channel":
            continue  # which are those of the layer only
        if unit is not None and unit not in _METERS:
            return None
        found[axis["name"]] = [step, ""] if unit is None else [step * _METERS[unit], "m"]
    return dict(reversed(found.items()))


def _json(document: Any) -> Response:
    return JSONResponse(document, headers={"Cache-Control": "no-store"})


def _own(name: str, kind: str) -> Callable[[Request], Response]:
    text = (files("dosna.serve.volumes") / "static" / name).read_text("utf-8")
    headers = {"Cache-Control": "no-cache"}
    return lambda request: Response(text, media_type=kind, headers=headers)


def _client(request: Request) -> Response:
    """Return a file of Neuroglancer's client."""
    name = request.path_params["file"] or "index.html"
    folder, found = client_folder(), _FILE.fullmatch(name)
    if folder is None:
        raise Refusal(501, "Neuroglancer is not installed", _install())
    if found is None or not (folder / name).is_file():
        raise Refusal(404, "there is no such file")
    if name == "index.html":
        # It names no icon, so browsers request one from the server.
        text = (folder / name).read_text("utf-8").replace("<head>", f"<head>{_NO_ICON}", 1)
        return Response(text, media_type="text/html", headers=_POLICY)
    return Response((folder / name).read_bytes(), media_type=_TYPES[found[1]], headers=_POLICY)


async def _silent(request: Request) -> Response:
    """Return an empty stream of events, as from the Python server that the page expects."""

    async def nothing() -> AsyncGenerator[str]:
        while True:
            yield ":\n\n"
            await asyncio.sleep(_BEAT_SECONDS)

    headers = {"Cache-Control": "no-store"}
    return Streamed(nothing(), headers=headers, media_type="text/event-stream")
