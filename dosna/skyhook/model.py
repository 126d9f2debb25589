"""The objects that SkyhookDM's client returns: datasets, their files, and the nodes of a file.

The names of the methods are those of SkyhookDM.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Dataset", "File", "RootNode"]


@dataclass
class RootNode:
    """A directory, a tree or a branch of a file.

    Parameters
    ----------
    name : str
        The name. The name of a tree contains its cycle: ``Events;75``.
    classtype : str
        ``ROOTDirectory``, ``TTree``, ``RNTuple``, ``TBranch`` or ``RField``.
    datatype : str or None
        The type of the entries of a branch, as awkward writes it: ``var * float32``.
    parent : RootNode or None
        The node that this one is in.
    children : list of RootNode
        The nodes in this one.
    """

    name: str
    classtype: str
    datatype: str | None = None
    parent: RootNode | None = field(default=None, repr=False, compare=False)
    children: list[RootNode] = field(default_factory=list, repr=False)

    def getName(self) -> str:
        """Return the name."""
        return self.name

    def getClassType(self) -> str:
        """Return the kind of node."""
        return self.classtype

    def getDataType(self) -> str | None:
        """Return the type of a branch; None for other nodes."""
        return self.datatype

    def getChildren(self) -> list[RootNode]:
        """Return the nodes in this one."""
        return self.children

    def getParent(self) -> RootNode | None:
        """Return the node that this one is in; None for the outermost."""
        return self.parent


@dataclass
class File:
    """A file of a dataset.

    Parameters
    ----------
    name : str
        The name of the file, without its folder.
    attributes : dict
        The attributes, see `getAttributes`.
    schema : dict
        The layout, see `getSchema`.
    dataset : str
        The name of the dataset.
    group : str
        The group of the file's trees, within that of the dataset.
    """

    name: str
    attributes: dict[str, Any] = field(repr=False)
    schema: dict[str, Any] = field(repr=False)
    dataset: str
    group: str

    def getAttributes(self) -> dict[str, Any]:
        """Return the attributes of the file.

        Returns
        -------
        dict
            ``name``, ``url``, ``size`` (bytes), ``access_time`` and ``modified_time`` (seconds
            since 1970). The times are those at which the dataset was written, and None for files
            on other machines.
        """
        return self.attributes

    def getSchema(self) -> dict[str, Any]:
        """Return the layout of the file.

        Returns
        -------
        dict
            ``name``, ``classtype``, ``datatype`` and ``children`` of the outermost directory; the
            children are such dicts.
        """
        return self.schema

    def getRoot(self) -> RootNode:
        """Return the outermost directory, and with it all other nodes."""
        return _node(self.schema, None)


def _node(schema: dict[str, Any], parent: RootNode | None) -> RootNode:
    node = RootNode(schema["name"], schema["classtype"], schema["datatype"], parent)
    node.children = [_node(child, node) for child in schema["children"]]
    return node


@dataclass
class Dataset:
    """Files that were written together.

    Parameters
    ----------
    name : str
        The name.
    size : int
        The bytes of the files.
    files : list of File
        The files.
    """

    name: str
    size: int
    files: list[File] = field(repr=False)

    def getFiles(self) -> list[File]:
        """Return the files."""
        return self.files

    def getSize(self) -> int:
        """Return the bytes of all files, as they were written."""
        return self.size
