"""Names of datasets for arrays whose own names are not allowed for datasets."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable

from dosna.columns.description import escape
from dosna.core.names import check_name
from dosna.errors import DatasetNameError

__all__ = ["legal_name", "legal_names", "name_within"]

_MOST_BYTES = 200


def legal_name(name: str) -> str:
    """Return a name that a dataset can have: the same name if possible.

    Characters that are not allowed become ``%`` and two hexadecimal digits for each byte, as in
    URLs. A part that is too long is cut, and ends with a digest of the whole.
    """
    try:
        return check_name(name)
    except DatasetNameError:
        return "/".join(map(_legal_part, name.split("/")))


def legal_names(names: Iterable[str]) -> dict[str, str]:
    """Return a new name for each name that no dataset can have. All names stay different."""
    listed = list(names)
    mapped = {name: legal_name(name) for name in listed}
    found = {name: target for name, target in mapped.items() if target != name}
    taken = {name for name, target in mapped.items() if target == name}
    for name, target in found.items():
        own, count = target, 1
        while own in taken:
            count += 1
            own = f"{target}%{count}"
        taken.add(own)
        found[name] = own
    return found


def _legal_part(part: str) -> str:
    # Surrogates: bytes that were not UTF-8 in the source are written as these bytes.
    whole = "".join(f"%{ord(c) - 0xDC00:02X}" if "\udc80" <= c <= "\udcff" else c for c in part)
    kept = "%".join(map(escape, whole.split("%"))) if "%" in whole else escape(whole)
    if len(kept.encode()) <= _MOST_BYTES:
        return kept
    digest = hashlib.sha256(part.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return kept.encode()[: _MOST_BYTES - 17].decode(errors="ignore") + "%" + digest


def name_within(location: str, inner: str, path: str) -> str | None:
    """Return the name of a path in a part of a location; None if it is not in there."""
    here, there = os.path.realpath(location), os.path.realpath(path)
    name = there.removeprefix(f"{here}/")
    inside = name != there and (not inner or name.startswith(f"{inner}/"))
    return name if inside else None
