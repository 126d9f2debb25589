"""Rooms above the arrays, entered by a verb: `Connection.ingest`, `link`, `export`, and others.

A verb is a function of a connection or a dataset, and of what the method was called with. The
methods look it up here, so that arrays know no room, and a new room changes nothing below it. A
verb of another package is registered by the entry point ``dosna.verbs`` and called by
``con.verb("name")(...)``.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

from dosna.registry import Known, Registry

__all__ = ["Verb", "registry"]

Verb = Callable[..., Any]

registry: Registry[Verb] = Registry(
    "verb",
    FunctionType,
    {
        "ingest": Known("dosna.ingest.running:ingest"),
        "export": Known("dosna.export:export"),
    },
)
