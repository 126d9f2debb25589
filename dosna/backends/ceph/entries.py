"""The entries (omap) of a RADOS object: small texts by name, which are read and changed singly."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from typing import Any

import rados

__all__ = ["NoEntriesError", "Page", "after", "change", "named"]

Page = list[tuple[str, str]]
"""Some entries: names and texts."""

_PAGE = 1000


class NoEntriesError(Exception):
    """The error that a pool keeps no entries, as those with erasure coding."""


def after(objects: Any, key: str, prefix: str, name: str) -> Page:
    """Read the entries that begin with `prefix` and follow `name`, a thousand at most."""
    with rados.ReadOpCtx() as operation:
        found, _ = objects.get_omap_vals(operation, name, prefix, _PAGE)
        objects.operate_read_op(operation, key)
        return [(name, value.decode()) for name, value in found]


def named(objects: Any, key: str, names: Sequence[str]) -> Page:
    """Read those of some entries that exist."""
    with rados.ReadOpCtx() as operation:
        found, _ = objects.get_omap_vals_by_keys(operation, tuple(names))
        objects.operate_read_op(operation, key)
        return [(name, value.decode()) for name, value in found]


def change(
    objects: Any, key: str, known: Mapping[str, str | None], new: Mapping[str, str | None]
) -> bool:
    """Change entries, of which None stands for an absent one; return False if others have."""
    with rados.WriteOpCtx() as operation:
        operation.new(rados.LIBRADOS_CREATE_IDEMPOTENT)  # there is none to compare otherwise
        for name, text in known.items():
            operation.omap_cmp(name, text or "")  # which is what an absent one counts as
        texts = {name: text.encode() for name, text in new.items() if text is not None}
        if texts:
            objects.set_omap(operation, tuple(texts), tuple(texts.values()))
        if len(texts) < len(new):
            objects.remove_omap_keys(operation, tuple(new.keys() - texts.keys()))
        try:
            objects.operate_write_op(operation, key)
        except rados.Error as error:
            if error.errno == errno.EOPNOTSUPP:
                raise NoEntriesError from None
            if error.errno != errno.ECANCELED:
                raise
            return False
    return True
