"""Verbs, by which arrays call the packages above them: `Connection.ingest`, `link`, `export`, ….

A verb is a function of a connection or a dataset, and of the method's arguments. The methods look
it up here, so that arrays need not import the packages above them, and a new package changes
nothing below it. A verb of another package is registered by the entry point ``dosna.verbs`` and
called by ``con.verb("name")(...)``.
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
        "pyramid": Known("dosna.pyramid.making:pyramid"),
        "query": Known("dosna.query.query:query"),
        "serve": Known("dosna.serve.running:serve", extra="view"),
        "view": Known("dosna.serve.viewing:view", extra="view"),
        "store_dask": Known("dosna.integrations.dask:store_dask"),
        "to_dask": Known("dosna.integrations.dask:to_dask"),
        "query_array": Known("dosna.query.arrays:query_array"),
    },
)
