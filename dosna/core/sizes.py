"""Sizes in bytes, as people write them."""

from __future__ import annotations

import re

__all__ = ["Limit", "format_size", "parse_size"]

Limit = int | str | None
"""A memory limit: a number of bytes, a text like '512M', or None for no limit."""

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def parse_size(size: int | str) -> int:
    """Parse a number of bytes: 1048576, '512M', '1.5 GiB'. Units are powers of 1024.

    Raises
    ------
    ValueError
        `size` is not a positive size.
    """
    try:
        if isinstance(size, str):
            match = re.fullmatch(r"\s*([0-9.]+)\s*([kmgt]?)(i?b)?\s*", size.lower())
            value = int(float(match[1]) * _UNITS[match[2]]) if match else 0
        else:
            value = int(size)
    except (ValueError, OverflowError):  # the latter of infinity
        value = 0
    if value <= 0:
        raise ValueError(f"{size!r} is not a size: use a number of bytes or a text like '512M'")
    return value


def format_size(size: float) -> str:
    """Format a number of bytes for people: '1.5 GiB'."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024 or unit == "TiB":
            break
        size /= 1024
    return f"{size:.{0 if unit == 'B' or size >= 100 else 1}f} {unit}"
