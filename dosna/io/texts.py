"""Text that every database can store: Unicode without null characters."""

from __future__ import annotations

__all__ = ["cleaned", "is_text"]


def is_text(text: str) -> bool:
    """Return whether a text can be encoded. Names of files that are not UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def cleaned(text: str) -> str:
    """Return a text, such as the output of a selection, without illegal characters."""
    return text.encode(errors="replace").decode().replace("\0", "\ufffd")
