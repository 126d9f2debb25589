"""Files and functions of the package are short, or say at their head why they are not."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "dosna").rglob("*.py"))
MOST_OF_A_FILE, MOST_OF_A_FUNCTION = 450, 60


def lines_of(function):
    """Return the number of lines of a function without its docstring, by which it is judged."""
    first = function.body[0]
    documented = ast.get_docstring(function, clean=False) is not None
    lines = function.end_lineno - function.lineno + 1
    return lines - (first.end_lineno - first.lineno + 1) * documented


def too_long(name, text):
    """Yield what is too long in a module."""
    tree = ast.parse(text)
    head = " ".join((ast.get_docstring(tree) or "").split())
    if len(text.splitlines()) > MOST_OF_A_FILE and "file is long because" not in head:
        yield name
    for node in ast.walk(tree):
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if is_function and lines_of(node) > MOST_OF_A_FUNCTION:
            yield f"{name}:{node.lineno} {node.name}"


def test_files_and_functions_are_short():
    found = [(path.relative_to(ROOT).as_posix(), path.read_text("utf-8")) for path in FILES]
    assert [what for name, text in found for what in too_long(name, text)] == []


def test_what_is_long_is_noticed():
    statements = "    pass\n" * MOST_OF_A_FUNCTION
    text = f'def short():\n    """What it does.\n\n    More."""\n{statements[9:]}'
    assert list(too_long("a.py", text)) == []
    assert list(too_long("a.py", f"def long():\n{statements}")) == ["a.py:1 long"]
    lines = "x = 1\n" * MOST_OF_A_FILE
    assert list(too_long("a.py", lines)) == []
    assert list(too_long("a.py", f"{lines}y = 2\n")) == ["a.py"]
    assert list(too_long("a.py", f'"""A.\n\nThe file is long because …."""\n{lines}')) == []
