"""The implementation of SkyhookDM's methods on a connection, here or on a Dask worker."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from dosna.columns import Tree, escape, find_trees, get_tree
from dosna.columns.datasets import remove
from dosna.errors import DatasetExistsError, DatasetNotFoundError
from dosna.skyhook.text import parse_request

if TYPE_CHECKING:
    from dosna.array.connection import EngineConnection

__all__ = ["describe", "run", "write"]

_INDEX = "skyhook"
_VERSION = 1


def write(con: EngineConnection, urls: Sequence[str], name: str, overwrite: bool) -> None:
    """Ingest files, and record them in the attributes of the dataset's group."""
    before = _index(con, name)
    if before is not None and not overwrite and [f["url"] for f in before] != list(urls):
        raise DatasetExistsError(
            f"dataset {name!r} exists and has other files: choose another name, or overwrite=True"
        )
    files: list[dict[str, Any]] = []
    for url in urls:
        base = PurePosixPath(str(url).partition("?")[0]).name or "file"
        group = _free(escape(base), {file["group"] for file in files})
        where = f"{name}/{group}"
        con.ingest(url, where, on_error="skip", overwrite=overwrite)
        trees = [path.removeprefix(f"{where}/") for path in _trees_below(con, where)]
        files.append(
            {"name": base, "url": str(url), **_facts(url), "group": group, "trees": trees}
        )
    con.set_group_attrs(name, {_INDEX: {"version": _VERSION, "files": files}})
    for file in before or ():
        if file["group"] not in {one["group"] for one in files}:
            for tree in file["trees"]:
                remove(con, f"{name}/{file['group']}/{tree}")


def _free(group: str, taken: set[str]) -> str:
    number, found = 1, group
    while found in taken:
        number += 1
        found = f"{group}-{number}"
    return found


def _trees_below(con: EngineConnection, group: str) -> list[str]:
    return [path for path in find_trees(con, group) if path.startswith(f"{group}/")]


def _facts(url: str) -> dict[str, Any]:
    """Return the size and the times of a file."""
    if os.path.exists(url):
        found = os.stat(url)
        return {
            "size": found.st_size,
            "access_time": found.st_atime,
            "modified_time": found.st_mtime,
        }
    import uproot

    with uproot.open(url) as file:
        return {"size": file.file.source.num_bytes, "access_time": None, "modified_time": None}


def _index(con: EngineConnection, name: str) -> list[dict[str, Any]] | None:
    """Return the files of a dataset, or None if there is no dataset."""
    found = con.get_group_attrs(name).get(_INDEX)
    if found is None:
        return None
    if found["version"] != _VERSION:
        raise DatasetNotFoundError(
            f"dataset {name!r} was written by another dosna (version {found['version']!r}): "
            "update dosna to read it"
        )
    files: list[dict[str, Any]] = found["files"]
    return files


def describe(con: EngineConnection, name: str) -> list[dict[str, Any]]:
    """Return the files of a dataset: name, attributes, schema and group of each.

    Raises
    ------
    DatasetNotFoundError
        There is no such dataset.
    """
    files = _index(con, name)
    if files is None:
        raise DatasetNotFoundError(
            f"connection {con.name!r} has no dataset {name!r}: write it with writeDataset"
        )
    return [
        {
            "name": file["name"],
            "attributes": {k: v for k, v in file.items() if k not in ("group", "trees")},
            "schema": _schema(file["name"], _trees(con, name, file)),
            "group": file["group"],
        }
        for file in files
    ]


def _trees(con: EngineConnection, name: str, file: dict[str, Any]) -> dict[str, Tree]:
    return {path: get_tree(con, f"{name}/{file['group']}/{path}") for path in file["trees"]}


def _schema(name: str, trees: dict[str, Tree]) -> dict[str, Any]:
    top = _entry(name, "ROOTDirectory")
    for path, tree in trees.items():
        folder = top
        for part in path.split("/")[:-1]:
            folder = _inside(folder, part, "ROOTDirectory")
        node = _inside(folder, f"{tree.name};{tree.cycle}", tree.kind)
        kind = "TBranch" if tree.kind == "TTree" else "RField"
        for branch in tree.branches:
            *outer, last = branch.name.split("/")
            above = node
            for part in outer:
                above = _inside(above, part, kind)
            _inside(above, last, kind)["datatype"] = branch.type
    return top


def _entry(name: str, classtype: str) -> dict[str, Any]:
    return {"name": name, "classtype": classtype, "datatype": None, "children": []}


def _inside(node: dict[str, Any], name: str, classtype: str) -> dict[str, Any]:
    """Return the child with a name, which is created if it does not exist."""
    children: list[dict[str, Any]] = node["children"]
    # The branches of one outer branch are consecutive.
    if not children or children[-1]["name"] != name:
        children.append(_entry(name, classtype))
    return children[-1]


def run(con: EngineConnection, dataset: str, group: str, text: str) -> Any:
    """Return the result of a query of a file, as a `pyarrow.Table` with a column for each branch.

    Raises
    ------
    UnknownNameError
        There is no such tree or branch. The message contains the most similar names.
    QueryError
        The text is not a query.
    """
    files = [file for file in _index(con, dataset) or () if file["group"] == group]
    if not files:
        raise DatasetNotFoundError(
            f"dataset {dataset!r} has no file {group!r} any more: get the dataset again"
        )
    request = parse_request(text, _trees(con, dataset, files[0]))
    return con.query(
        f"{dataset}/{group}/{request.tree}",
        request.where,
        request.columns,
        entry_start=request.start,
        entry_stop=request.stop,
    ).to_arrow()
