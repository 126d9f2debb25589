"""Expressions of uproot mean the same as a query, or are refused."""

from __future__ import annotations

import pytest
from support import require

ak, np = require("awkward"), require("numpy")

from dosna.errors import QueryError, UnknownNameError  # noqa: E402
from dosna.query.expressions import evaluate  # noqa: E402
from dosna.query.expressions.doors import from_uproot  # noqa: E402

EVENTS = {
    "n": np.array([2, 0, 1]),
    "met": np.array([60.0, 20.0, 80.0]),
    "pt": ak.Array([[30.0, 10.0], [], [55.0]]),
    "Jet.pt": ak.Array([[1.0], [2.0, 3.0], []]),
    "deep": ak.Array([[[1.0, 2.0]], [], [[3.0], []]]),
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(n >= 1) & (met > 50)", [True, False, True]),
        ("~(n >= 1) | (met > 70)", [False, True, True]),
        ("any(pt > 20)", [True, False, True]),
        ("sum(pt[pt > 20], axis=1)", [30.0, 0.0, 55.0]),
        ("-met**2 / 2 + +n", [-1798.0, -200.0, -3199.0]),
        ("n % 2 - n // 2", [-1, 0, 1]),
        ("pt[:, 0]", [30.0, None, 55.0]),
        ("pt[:, -1]", [10.0, None, 55.0]),
        ("absolute(arctan2(met * 0, met))", [0.0, 0.0, 0.0]),
        ("count(Jet.pt)", [1, 2, 0]),
        ('get("Jet.pt")', [[1.0], [2.0, 3.0], []]),
        ("Jet.pt", [[1.0], [2.0, 3.0], []]),
        ("double + half", [150.0, 50.0, 200.0]),
        ("sum(deep, axis=-1)", [[3.0], [], [3.0, 0.0]]),
        ("where(met > 50, n, 7)", [2, 7, 1]),
    ],
)
def test_values(text, expected):
    aliases = {"double": "met * 2", "half": "double / 4"}
    found = evaluate(from_uproot(text, EVENTS, aliases, {"deep"}), EVENTS, 3)
    assert found.tolist() == expected


@pytest.mark.parametrize(
    ("text", "error", "noun"),
    [
        ("mett > 5", UnknownNameError, "met"),
        ("cosine(met)", UnknownNameError, "cos"),
        ("20 < met < 50", QueryError, "chain"),
        ("pt[0]", QueryError, "MASK"),
        ("pt[:, 1:]", QueryError, "MASK"),
        ("sum(pt, 0)", QueryError, "axis"),
        ("sum(pt, axis=0)", QueryError, "axis"),
        ("sum(deep)", QueryError, "axis=-1"),
        ("sqrt(met, axis=1)", QueryError, "keywords"),
        ("sqrt(met, out=met)", QueryError, "keywords"),
        ("met.real.imag()", QueryError, "translated"),
        ("(lambda: met)()", QueryError, "translated"),
        ("[met for met in pt]", QueryError, "translated"),
        ("'%s' % met if met else n", QueryError, "translated"),
        ("1j * met", QueryError, "translated"),
        ("met +", QueryError, "expression"),
        ("a = met", QueryError, "expression"),
        ("-" * 200 + "met", QueryError, "levels"),
        ("lambda: met" + " + met" * 800, QueryError, "deeply"),
        ("met" + ".real" * 900, QueryError, "deeply"),
        ("pt[:, " + "-" * 900 + "1]", QueryError, "deeply"),
        ("(" * 500 + "met" + ")" * 500, QueryError, "expression"),
        ("m" * 70_000, QueryError, "characters"),
        ("loop", QueryError, "itself"),
    ],
)
def test_refusals(text, error, noun):
    with pytest.raises(error, match=noun):
        from_uproot(text, EVENTS, {"loop": "met + other", "other": "loop"}, {"deep"})
