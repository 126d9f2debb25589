"""The objects of a domain by their names, and the contents of a folder of domains."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dosna.core.types import Json
from dosna.hsds.client import Failure, HsdsClient
from dosna.hsds.types import value_of
from dosna.io.parallel import in_flight
from dosna.sources.hdf5.tree import BrokenLinkError, Node, Tree, walk_nodes
from dosna.sources.hdf5.types import kept

__all__ = ["DomainTree", "Place", "attributes", "domains_in"]

_LOOKING = 8
_MOST_LINKS = 32
_COLLECTIONS = {"g": "groups", "d": "datasets", "t": "datatypes"}


class Place(NamedTuple):
    """The place of an object: its domain, and its id there."""

    domain: str
    id: str


@dataclass
class DomainTree:
    """The objects of a domain, and of other domains to which its links lead.

    Parameters
    ----------
    client : HsdsClient
    domain : str
        The path of the domain.
    """

    client: HsdsClient
    domain: str
    _objects: dict[Place, Json] = field(default_factory=dict)
    _roots: dict[str, str] = field(default_factory=dict)
    _names: dict[str, str] = field(default_factory=dict)

    def walk(self, inner: str) -> Tree:
        """Find the arrays and groups below a group."""
        self._fetch(self._find(self.domain, inner) if inner else self._root(self.domain))
        return walk_nodes(self._look, inner)

    def dataset(self, name: str) -> tuple[Place, Json]:
        """Return the place and the description of a dataset that was found."""
        place = self._find(self.domain, name)
        return place, self._object(place)

    def named(self, reference: Any) -> str | None:
        """Return the name of the object that a reference leads to; None if it is not known."""
        text = reference.decode() if isinstance(reference, bytes) else str(reference)
        return self._names.get(text.rpartition("/")[2])

    def _look(self, name: str) -> Node:
        try:
            place = self._find(self.domain, name)
            found = self._object(place)
        except Failure as failure:
            if not failure.absent:
                raise
            raise BrokenLinkError(
                f"the object that it refers to does not exist: {failure}"
            ) from None
        if place.domain == self.domain:
            self._names.setdefault(place.id, f"/{name}")
        if place.id[0] != "g":
            return Node(place, "array" if place.id[0] == "d" else "type")
        links = sorted(found["links"].items())
        hard = [key for key, link in links if link["class"] == "H5L_TYPE_HARD"]
        linked = [key for key, link in links if link["class"] != "H5L_TYPE_HARD"]
        return Node(place, "group", attributes(found, self), hard, linked)

    def _root(self, domain: str) -> Place:
        if domain not in self._roots:
            self._roots[domain] = self.client.get("/", domain).get("root", "")
        if not self._roots[domain]:
            raise BrokenLinkError(f"{domain} is a folder")
        return Place(domain, self._roots[domain])

    def _find(self, domain: str, name: str, left: int = _MOST_LINKS) -> Place:
        """Follow a path from the outermost group of a domain."""
        at, above = self._root(domain), ""
        for key in filter(None, name.split("/")):
            links = self._object(at).get("links", {})
            link = links.get(key)
            if link is None:
                raise BrokenLinkError(f"there is no {name!r} in {domain}")
            if link["class"] == "H5L_TYPE_HARD":
                at = Place(at.domain, link["id"])
            else:
                at = self._follow(at.domain, above, link, left)
            above = f"{above}/{key}"
        return at

    def _follow(self, domain: str, above: str, link: Json, left: int) -> Place:
        path = link.get("h5path", "")
        if not left:
            raise BrokenLinkError(f"{path!r}, to which it is a link, is a link to itself")
        try:
            if link["class"] == "H5L_TYPE_SOFT":
                return self._find(domain, posixpath.join(above, path), left - 1)
            if link["class"] == "H5L_TYPE_EXTERNAL":
                other = str(link.get("h5domain") or link.get("file")).removeprefix("hdf5:/")
                other = posixpath.join(posixpath.dirname(domain), other)
                return self._find(other, path, left - 1)
        except (BrokenLinkError, Failure) as error:
            if isinstance(error, Failure) and not error.absent:
                raise
            where = f" of {link['h5domain']!r}" if "h5domain" in link else ""
            raise BrokenLinkError(
                f"{path!r}{where}, to which it is a link, cannot be opened: {error}"
            ) from None
        raise BrokenLinkError(f"it is a link of an unknown kind, {link['class']}")

    def _object(self, place: Place) -> Json:
        found = self._objects.get(place)
        if found is None:
            params = {"include_attrs": 1}
            if place.id[0] == "g":
                params["include_links"] = 1
            path = f"/{_COLLECTIONS[place.id[0]]}/{place.id}"
            found = self._objects[place] = self.client.get(path, place.domain, **params)
        return found

    def _fetch(self, start: Place) -> None:
        """Request all objects that hard links lead to, several at a time."""
        ahead = {start}
        while ahead:
            in_flight(self._object, ahead, _LOOKING)
            links = {
                Place(start.domain, link["id"])
                for place in ahead
                for link in self._object(place).get("links", {}).values()
                if link["class"] == "H5L_TYPE_HARD"
            }
            ahead = links - self._objects.keys()


def attributes(found: Json, tree: DomainTree) -> dict[str, Any]:
    """Return the attributes of an object in the form of the HDF5 source."""

    def read(attribute: Json) -> Any:
        kind = attribute["type"]
        value = value_of(attribute)
        if isinstance(kind, dict) and kind.get("class") == "H5T_REFERENCE":
            listed = getattr(value, "tolist", lambda: value)()
            return (
                [tree.named(v) for v in listed] if isinstance(listed, list) else tree.named(listed)
            )
        return value

    readers = {
        name: lambda attribute=attribute: read(attribute)
        for name, attribute in sorted(found.get("attributes", {}).items())
    }
    return kept(readers, tree.named)


def domains_in(client: HsdsClient, folder: str) -> Iterator[str]:
    """Yield the paths of all domains in a folder and the folders below it.

    The domains of each folder are sorted by name.
    """
    folders = [folder]
    while folders:
        listed = sorted(client.domains(folders.pop()), key=lambda found: str(found["name"]))
        folders += [found["name"] for found in listed if found["class"] == "folder"]
        yield from (found["name"] for found in listed if found["class"] == "domain")
