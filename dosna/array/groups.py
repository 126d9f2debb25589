"""Groups of datasets: the parts of their names, and attributes of these."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from dosna.array.home import ArrayHome
from dosna.core.names import Children, check_name
from dosna.core.values import decode_attrs, encode_attrs
from dosna.engines.base import collective
from dosna.errors import DatasetNameError, DosnaError

__all__ = ["Groups"]

_MOST_SHOWN = 50


class Groups(ArrayHome):
    """The groups of a connection."""

    def names_in(self, group: str) -> list[str]:
        """Return the sorted names of the datasets in a group. Other groups are not looked at.

        Parameters
        ----------
        group : str
            The part of the names before the last parts, such as ``entry`` for ``entry/data`` and
            ``entry/deep/data``; '' for all datasets.

        Returns
        -------
        list of str
            The full names; an empty list for a group that does not exist.

        Raises
        ------
        NotConnectedError
            The connection is not open.

        Examples
        --------
        >>> for name in ("entry/deep/data", "other"):
        ...     made = con.create_dataset(name, shape=10)
        >>> con.names_in("entry")
        ['entry/data', 'entry/deep/data']
        """
        self.check_connected()
        if not group:
            return self.instance.dataset_names()
        try:
            return self.instance.names_in(check_name(group))
        except DatasetNameError:
            return []

    def children(self, group: str = "") -> Children:
        """Return the members of a group. Members of the groups below it are not listed.

        Parameters
        ----------
        group : str
            The name of the group, such as ``entry``; '' is the connection itself.

        Returns
        -------
        Children
            The sorted full names as two lists, `groups` and `datasets`. Both are empty for a group
            that does not exist.

        Raises
        ------
        NotConnectedError
            The connection is not open.

        Examples
        --------
        >>> for name in ("scan/deep/data", "scan/dark"):
        ...     made = con.create_dataset(name, shape=10)
        >>> con.children("scan")
        Children(groups=['scan/deep'], datasets=['scan/dark'])
        """
        self.check_connected()
        try:
            return self.instance.children(check_name(group) if group else "")
        except DatasetNameError:
            return Children([], [])

    def _repr_html_(self) -> str:
        from dosna.array.pictures import html_list

        names: list[str] = []
        # What a notebook shows by itself never fails.
        with suppress(DosnaError):
            groups, datasets = self.children()
            names = [*(f"{name}/" for name in groups), *datasets]
        return html_list(repr(self), names[:_MOST_SHOWN], max(0, len(names) - _MOST_SHOWN))

    def _ipython_key_completions_(self) -> list[str]:
        return self.names_in("")

    def get_group_attrs(self, name: str = "") -> dict[str, Any]:
        """Return the attributes of a group, which is a prefix of dataset names.

        Parameters
        ----------
        name : str
            The name of the group, such as ``entry`` for a dataset ``entry/data``; '' is the
            connection itself.

        Returns
        -------
        dict
            The attributes by name; empty for a group that has none or that does not exist.

        Raises
        ------
        ConfigurationError
            The backend keeps no attributes of groups: with s3, a connection without ``bucket``.

        Examples
        --------
        >>> con.set_group_attrs("entry", {"NX_class": "NXentry"})
        >>> con.get_group_attrs("entry")
        {'NX_class': 'NXentry'}
        """
        self.check_connected()
        found = self.instance.group_attrs(check_name(name) if name else "")
        return decode_attrs(found)

    @collective
    def set_group_attrs(self, name: str, attrs: Mapping[str, Any]) -> None:
        """Replace the attributes of a group, and create the group if it does not exist.

        Parameters
        ----------
        name : str
            The name of the group, such as ``entry`` for a dataset ``entry/data``; '' is the
            connection itself.
        attrs : mapping
            The new attributes: values that attributes of datasets may have. An empty mapping
            leaves a group that disappears with its last dataset.

        Raises
        ------
        DatasetNameError
            The name is that of a dataset, or lies inside one.
        ConfigurationError
            The backend keeps no attributes of groups.

        Examples
        --------
        >>> con.set_group_attrs("entry", {"NX_class": "NXentry"})
        """
        self.check_writable()
        encoded = encode_attrs(attrs)
        checked = self.instance.check_name(name) if name else ""
        self.runner.once(lambda: self.instance.set_group_attrs(checked, encoded))
