"""The attributes of a group that describe the levels of images, as in OME-Zarr 0.5.

The specification is https://ngff.openmicroscopy.org/0.5/index.html. The coordinate of element
``i`` on an axis of a level is ``scale * i + translation``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dosna.array.connection import EngineConnection
from dosna.core.names import parents
from dosna.errors import ConfigurationError

__all__ = [
    "VERSION",
    "Levels",
    "axes_of",
    "entry_of",
    "group_of",
    "level_name",
    "levels_of",
    "with_entry",
]

VERSION = "0.5"

_DEFAULT = "tczyx"
_KINDS = {"t": "time", "time": "time", "c": "channel", "channel": "channel"}
_PATH = "_levels/"


@dataclass(frozen=True)
class Levels:
    """The levels of a dataset's pyramid.

    Parameters
    ----------
    group : str
        The name of the group whose attributes describe them.
    index : int
        The index in the group's list of images.
    entry : mapping
        The description: ``axes``, ``datasets``, …
    """

    group: str
    index: int
    entry: Mapping[str, Any]

    @property
    def names(self) -> list[str]:
        """Names of the datasets, from the largest to the smallest."""
        before = f"{self.group}/" if self.group else ""
        return [before + level["path"] for level in self.entry["datasets"]]


def group_of(name: str) -> tuple[str, str]:
    """Return the group of a dataset, and its name in that group."""
    group, _, own = name.rpartition("/")
    return group, own


def level_name(name: str, level: int) -> str:
    """Return the name of a level's dataset; level 0 is the dataset itself."""
    return f"{name}{_PATH}{level}" if level else name


def axes_of(
    shape: Sequence[int], names: Sequence[str] | None, unit: str | None, what: str
) -> list[dict[str, Any]]:
    """Return the axes of an image: two or three of space, which come last.

    Raises
    ------
    ConfigurationError
        The array has too few axes, too many, or names in another order.
    """
    if not 2 <= len(shape) <= 5:
        raise ConfigurationError(
            f"{what} has {len(shape)} axes, but images of OME-Zarr have two to five: it cannot "
            "have a pyramid"
        )
    given = list(_DEFAULT[-len(shape) :] if names is None else names)
    are_names = all(isinstance(name, str) and name for name in given)
    if len(given) != len(shape) or not are_names or len(set(given)) != len(given):
        raise ConfigurationError(
            f"axes must be {len(shape)} different names for the axes of {what}, not {given}"
        )
    kinds = [_KINDS.get(name.lower(), "space") for name in given]
    # An axis of another kind may precede three of space.
    for axis in range(max(0, len(kinds) - 3)):
        if kinds[axis] == "space":
            kinds[axis] = "channel" if "channel" not in kinds else "time"
    space = kinds.count("space")
    order = ["time", "channel", "space"]
    if not 2 <= space <= 3 or kinds != sorted(kinds, key=order.index) or kinds[1:2] == ["time"]:
        raise ConfigurationError(
            f"the axes {', '.join(given)} of {what} are of {', '.join(kinds)}: OME-Zarr has time, "
            "channel and two or three axes of space, in this order. Pass their names as axes="
        )
    found = []
    for name, kind in zip(given, kinds, strict=True):
        axis_of: dict[str, Any] = {"name": name, "type": kind}
        if unit is not None and kind == "space":
            axis_of["unit"] = unit
        found.append(axis_of)
    return found


def entry_of(
    name: str,
    axes: list[dict[str, Any]],
    spans: Sequence[Sequence[int]],
    scale: Sequence[float],
    method: str,
) -> dict[str, Any]:
    """Describe the levels of a dataset.

    Parameters
    ----------
    name : str
        The name of the dataset in its group.
    axes : list
        The axes.
    spans : sequence of sequence of int
        The number of elements of the dataset that an element of each level represents, for each
        axis.
    scale : sequence of float
        The distance between neighbouring elements of the dataset, for each axis.
    method : str
        The method by which the levels were computed.
    """
    datasets = []
    for level, span in enumerate(spans):
        steps: list[dict[str, Any]] = [
            {"type": "scale", "scale": [s * n for s, n in zip(scale, span, strict=True)]}
        ]
        middle = [0.0 if method == "stride" else (n - 1) / 2 for n in span]
        if any(middle):
            places = [s * m for s, m in zip(scale, middle, strict=True)]
            steps.append({"type": "translation", "translation": places})
        datasets.append({"path": level_name(name, level), "coordinateTransformations": steps})
    return {"name": name, "axes": axes, "datasets": datasets, "type": method}


def _multiscales_in(attrs: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the descriptions of images in the attributes of a group."""
    ome = attrs.get("ome")
    found = ome.get("multiscales") if isinstance(ome, Mapping) else None
    images = found if isinstance(found, list) else []
    return [image for image in images if isinstance(image, Mapping) and _is_image(image)]


def _is_image(image: Mapping[str, Any]) -> bool:
    levels = image.get("datasets")
    return (
        isinstance(levels, list)
        and bool(levels)
        and all(isinstance(one, Mapping) and isinstance(one.get("path"), str) for one in levels)
    )


def with_entry(
    attrs: Mapping[str, Any], name: str, entry: Mapping[str, Any] | None, group: str
) -> dict[str, Any]:
    """Return the attributes of a group with a new description of a dataset's levels, or without.

    Raises
    ------
    ConfigurationError
        The attributes of the group follow another version of OME-Zarr.
    """
    ome = dict(attrs.get("ome") or {})
    if ome.get("version", VERSION) != VERSION:
        raise ConfigurationError(
            f"group {group!r} has attributes of OME-Zarr {ome['version']}, but pyramids need "
            f"{VERSION}: put the dataset into another group"
        )
    images = [one for one in _multiscales_in(attrs) if one["datasets"][0]["path"] != name]
    if entry is not None:
        images.append(entry)
    rest = {key: value for key, value in ome.items() if key not in ("version", "multiscales")}
    if images:
        rest["multiscales"] = images
    found = {key: value for key, value in attrs.items() if key != "ome"}
    return found | ({"ome": {"version": VERSION, **rest}} if rest else {})


def levels_of(con: EngineConnection, name: str) -> Levels | None:
    """Return the levels of a dataset, whether dosna or another program created them.

    Parameters
    ----------
    con : Connection
        The connection.
    name : str
        The name of the dataset.

    Returns
    -------
    Levels or None
        The levels; None if there are none.
    """
    if not con.instance.keeps_groups:
        return None
    for group in ["", *parents(name)][::-1]:
        own = name[len(group) + 1 :] if group else name
        for index, image in enumerate(_multiscales_in(con.get_group_attrs(group))):
            if image["datasets"][0]["path"] == own:
                return Levels(group, index, image)
    return None
