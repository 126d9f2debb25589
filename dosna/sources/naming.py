"""Names of datasets for arrays whose own a dataset cannot have."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from dosna.columns.description import escape
from dosna.core.names import check_name
from dosna.errors import DatasetNameError

__all__ = ["legal_name", "legal_names"]

_MOST_BYTES = 200


def legal_name(name: str) -> str:
    """Return a name, or for one that a dataset cannot have, one that says it.

    Characters that no name has become ``%`` and two hexadecimal digits for each byte, as in URLs,
    and of a part that is too long stay the beginning and a digest.
    """
    try:
        return check_name(name)
    except DatasetNameError:
        return "/".join(map(_legal_part, name.split("/")))


def legal_names(names: Iterable[str]) -> dict[str, str]:
    """Return for each name that no dataset can have the one that it gets, unlike all others."""
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
    # What was no UTF-8 where it is from: the bytes that it has there.
    whole = "".join(f"%{ord(c) - 0xDC00:02X}" if "\udc80" <= c <= "\udcff" else c for c in part)
    kept = "%".join(map(escape, whole.split("%"))) if "%" in whole else escape(whole)
    if len(kept.encode()) <= _MOST_BYTES:
        return kept
    digest = hashlib.sha256(part.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return kept.encode()[: _MOST_BYTES - 17].decode(errors="ignore") + "%" + digest
