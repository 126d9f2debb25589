"""Trees of columns for tests, written without a source."""

from __future__ import annotations

from typing import Any

from support import require

from dosna.columns import Branch, Tree, escape

__all__ = ["put_tree"]


def put_tree(
    con: Any, group: str, arrays: dict[str, Any], chunk: int = 3, **described: Any
) -> Tree:
    """Keep arrays as a tree, with chunks of so many rows."""
    ak = require("awkward")
    from dosna.columns.layout import form_of, plain_form
    from dosna.columns.splitting import decompose

    branches, entries = [], 0
    for index, (name, array) in enumerate(arrays.items()):
        array = ak.Array(array)
        entries = len(array)
        form = form_of(plain_form(array.layout.form))
        branches.append(Branch(name, plain_form(form), str(array.type.content), "", index))
        for path, rows in decompose(array, form).items():
            full = "/".join(filter(None, [group, escape(name), path]))
            chunks = (chunk, *(max(1, n) for n in rows.shape[1:]))
            con.create_dataset(full, data=rows, chunk_size=chunks)
    tree = Tree("test", group, entries, tuple(branches), **described)
    con.set_group_attrs(group, tree.to_attrs())
    return tree
