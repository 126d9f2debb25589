"""The implementation of SkyhookDM's methods on a connection, here or on a Dask worker."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from dosna.columns import Tree, escape, find_trees, get_tree
from dosna.columns.datasets import remove
from dosna.errors import (
    DatasetExistsError,
    DatasetNotFoundError,
    FormatError,
    SourceChangedError,
)
from dosna.skyhook.text import parse_request
from dosna.sources import Stream, open_source

if TYPE_CHECKING:
    from dosna.array.connection import EngineConnection

__all__ = ["describe", "run", "write"]

_INDEX = "skyhook"
_VERSION = 1


def write(con: EngineConnection, urls: Sequence[str], name: str, overwrite: bool) -> None:
    """Ingest files, and record them in the attributes of the dataset's group."""
    try:
        before = _index(con, name)
    except FormatError:
        if not overwrite:
            raise
        before = None
    if before is not None and not overwrite and [f["url"] for f in before] != list(urls):
        raise DatasetExistsError(
            f"dataset {name!r} exists and has other files: choose another name, or overwrite=True"
        )
    files: list[dict[str, Any]] = []
    for url in urls:
        # A query of a URL is not part of the name of the file.
        path = url if os.path.exists(url) else url.partition("?")[0]
        base = PurePosixPath(path).name or "file"
        group = _free(escape(base), {file["group"] for file in files})
        trees = _ingest(con, url, f"{name}/{group}", overwrite)
        files.append({"name": base, "url": url, **_facts(url), "group": group, "trees": trees})
    con.set_group_attrs(name, {_INDEX: {"version": _VERSION, "files": files}})
    for file in before or ():
        if file["group"] not in {one["group"] for one in files}:
            for tree in file["trees"]:
                remove(con, f"{name}/{file['group']}/{tree}")


def _ingest(con: EngineConnection, url: str, where: str, overwrite: bool) -> list[str]:
    """Ingest a file, and return the names of its trees.

    Raises
    ------
    SourceChangedError
        There are trees of another state of the file, and they may not be replaced.
    """
    with open_source(url) as source:
        fingerprint = None if isinstance(source, Stream) else source.fingerprint()
    before = _states(con, where)
    changed = fingerprint is not None and any(one != fingerprint for one in before.values())
    # What is skipped otherwise, and is still there as it was, would pass for the file's content.
    if changed and not overwrite:
        raise SourceChangedError(
            f"{url} has changed since it was written to {where!r}: write the dataset once more "
            "with overwrite=True"
        )
    con.ingest(url, where, on_error="skip", overwrite=overwrite)
    after = _states(con, where)
    gone = [path for path in after if changed and after[path] == before.get(path) != fingerprint]
    for path in gone:
        remove(con, path)
    return [path.removeprefix(f"{where}/") for path in after if path not in gone]


def _states(con: EngineConnection, where: str) -> dict[str, str]:
    """Return the trees below a group, and the state of the file that each is of."""
    trees = find_trees(con, where)
    return {p: tree.fingerprint for p, tree in trees.items() if p.startswith(f"{where}/")}


def _free(group: str, taken: set[str]) -> str:
    number, found = 1, group
    while found in taken:
        number += 1
        found = f"{group}-{number}"
    return found


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
    version = found.get("version") if isinstance(found, dict) else None
    if isinstance(version, int) and version != _VERSION:
        raise FormatError(
            f"dataset {name!r} was written by another dosna (version {version}): update dosna to "
            "read it"
        )
    files = found.get("files") if version == _VERSION else None
    if not isinstance(files, list) or not all(map(_is_file, files)):
        raise FormatError(
            f"the description of dataset {name!r} is broken: write the dataset once more with "
            "overwrite=True"
        )
    return files


def _is_file(found: Any) -> bool:
    texts = ("name", "url", "group")
    return (
        isinstance(found, dict)
        and all(isinstance(found.get(field), str) for field in texts)
        and isinstance(found.get("size"), int)
        and isinstance(found.get("trees"), list)
    )


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
