"""Names chosen by names and by patterns."""

from __future__ import annotations

import fnmatch

import numpy as np
import pytest

import dosna as dn
from dosna.core.patterns import matching

NAMES = ["a[1]", "a1", "g/x", "g/y/z", "g[1]/x", "h*", "hat", "x"]


@pytest.mark.parametrize(
    ("patterns", "chosen"),
    [
        (None, NAMES),
        ("a[1]", ["a[1]"]),
        ("a[1-3]", ["a1"]),
        ("g", ["g/x", "g/y/z"]),
        ("/g/", ["g/x", "g/y/z"]),
        ("g[1]", ["g[1]/x"]),
        ("h*", ["h*"]),
        ("h?", ["h*"]),
        ("h??", ["hat"]),
        ("*x", ["g/x", "g[1]/x", "x"]),
        ("g/y*", ["g/y/z"]),
        (["x", "a1"], ["a1", "x"]),
        ("?", ["g/x", "g/y/z", "x"]),
        ([], []),
    ],
)
def test_what_is_chosen(patterns, chosen):
    assert matching(NAMES, patterns) == (chosen, [])


def test_patterns_that_match_nothing():
    patterns = ["no", "*x", "?x", "g*", "q*", "g/[xy]*", "b[1]"]
    assert matching(NAMES, patterns)[1] == ["no", "?x", "q*", "b[1]"]


def test_it_chooses_as_fnmatch_does():
    random = np.random.default_rng(0)
    letters = list("ab/[]*?!-")
    for _ in range(300):
        parts = ["".join(random.choice(letters[:2], 2)) for _ in range(10)]
        names = sorted({*parts[:3], *map("/".join, zip(parts[3:], parts, strict=False))})
        pattern = "".join(random.choice(letters, random.integers(1, 5)))
        plain = pattern.strip("/")
        wanted = [
            n for n in names if any(fnmatch.fnmatchcase(n, p) for p in (plain, plain + "/*"))
        ]
        exact = [n for n in names if n == plain or n.startswith(plain + "/")]
        assert matching(names, pattern)[0] == (exact or wanted)


def test_many_names_choose_themselves():
    # By one expression for each name and each name for each expression this takes half an hour.
    names = [f"entry/frame[{number}]" for number in range(20_000)]
    assert matching(names, names) == (names, [])


def test_a_connection_exports_names_with_brackets(tmp_path):
    with dn.Connection("patterns", backend="ram") as con:
        con.create_dataset("a[1]", data=np.arange(3))
        con.create_dataset("a1", data=np.arange(4))
        try:
            assert con.export(tmp_path / "out.npy", select=["a[1]"]) == ["a[1]"]
        finally:
            for name in list(con):
                del con[name]
    assert np.load(tmp_path / "out.npy").tolist() == [0, 1, 2]
