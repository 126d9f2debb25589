"""The grammar: precedence, canonical text, and hostile text."""

from __future__ import annotations

import pickle

import pytest

from dosna.errors import QueryError, UnknownNameError
from dosna.query.expressions import parse, parse_projection
from dosna.query.expressions.nodes import Column, Literal

CANONICAL = {
    "nMuon >= 2 && MET_pt > 50": "nMuon >= 2 && MET_pt > 50",
    "nMuon >= 2 and MET_pt > 50 or x": "nMuon >= 2 && MET_pt > 50 || x",
    "(nMuon >= 2) & (MET_pt > 50)": "(nMuon >= 2) & (MET_pt > 50)",
    "a > 1 & b < 2 | c == 3": "((a > 1) & (b < 2)) | (c == 3)",
    "(flags & 4) == 4": "(flags & 4) == 4",
    "x > 50 & isnan(y)": "(x > 50) & isnan(y)",
    "not a > 1 and b": "!(a > 1) && b",
    "!a > 1": "!a > 1",
    "20 < x <= 50": "20 < x <= 50",
    "x in (1, 2, -3)": "x in (1, 2, -3)",
    "x not in ['a', 'b',]": '!(x in ("a", "b"))',
    "-x**2": "-x ** 2",
    "2**-x": "2 ** -x",
    "2**3**2": "2 ** 3 ** 2",
    "(2**3)**2": "(2 ** 3) ** 2",
    "-(5)": "-(5)",
    "- -5": "-(-5)",
    "-5**2": "-5 ** 2",
    "x[0] + x[-1]": "x[0] + x[-1]",
    "x[x > 2 && abs(y) < 2.4][0]": "x[x > 2 && abs(y) < 2.4][0]",
    "a - (b - c) - d": "a - (b - c) - d",
    "a / (b * c) // d % e": "a / (b * c) // d % e",
    "(a && b) && c": "(a && b) && c",
    "~a ^ b": "~a ^ b",
    "Jet.pt * `odd name` + ``": "Jet.pt * `odd name` + ``",
    r"x == 'it\'s \"\\'": r'x == "it' + "'" + r's \"\\"',
    "1e5 + .5 + 5. + 0x1F": "100000.0 + 0.5 + 5.0 + 31",
    "-9223372036854775808": "-9223372036854775808",
    "True == false": "true == false",
    "nan != inf": "nan != inf",
    "x in (-inf, - nan, 1)": "x in (-inf, nan, 1)",
    "- inf < x": "-inf < x",
    "-inf ** 2": "-inf ** 2",
}


@pytest.mark.parametrize("text", CANONICAL)
def test_canonical_text_is_of_the_same_tree(text):
    expr = parse(text)
    assert str(expr) == CANONICAL[text]
    again = parse(str(expr))
    assert again == expr
    assert hash(again) == hash(expr)
    assert pickle.loads(pickle.dumps(expr)) == expr


def test_literals_of_other_types_are_not_equal():
    assert len({Literal(1), Literal(1.0), Literal(True), Literal(0.0), Literal(-0.0)}) == 5
    assert Literal(float("nan")) == Literal(float("nan"))


def test_columns():
    assert parse("a + b[c > 1] * sqrt(d.e) > 2").columns == {"a", "b", "c", "d.e"}


WRONG = {
    "": "a value",
    "a b": "operator",
    "x = 5": "==",
    "(x = 5)": "==",
    "flags & 4 == 4": "C and Python",
    "x | y > 3": "C and Python",
    "a < b in (3)": "parentheses",
    "a == not b": "parentheses",
    "x in ()": "no values",
    "x in (y)": "numbers or strings",
    "x[1.5]": "index",
    "sqrt(1, 2)": "argument",
    "max()": "argument",
    "'abc": "no end",
    "`abc": "no end",
    r"'\x41'": "escape",
    "1__2": "number",
    "2x": "number",
    "a; b": "unexpected",
    "lambda: 5": "unexpected",
    "x if y else z": "operator",
    "[1, 2]": "a value",
    "a, b": "operator",
    "f'{x}'": "operator",
    "x.__class__": "underscores",
    "__import__('os')": "underscores",
    "a.__b": "underscores",
    "(x).real": "number",
    "a ＞ b": "U\\+FF1E",
    "аbc > 1": "U\\+0430",
    "18446744073709551616": "64 bits",
    "9" * 401: "characters",
    "x\0": "unexpected",
}


@pytest.mark.parametrize("text", WRONG)
def test_error_shows_the_place(text):
    with pytest.raises(QueryError, match=WRONG[text]) as caught:
        parse(text)
    *_, shown, mark = str(caught.value).split("\n")
    assert mark.strip() == "^"
    assert len(shown) < 80


@pytest.mark.parametrize("text", ["os.system('ls')", "evil(3)", "eval('1')", "`sqrt`(2)"])
def test_unknown_function_is_named(text):
    with pytest.raises(UnknownNameError, match="unknown function") as caught:
        parse(text)
    assert isinstance(caught.value, KeyError)
    assert text.split("(")[0].strip("`") in str(caught.value)


def test_nearest_functions_are_told():
    with pytest.raises(UnknownNameError, match="'sqrt'"):
        parse("sqr(x)")


HOSTILE = {
    "brackets": "(" * 100_000 + "x" + ")" * 100_000,
    "fewer brackets": "(" * 1000 + "x" + ")" * 1000,
    "indices": "x" + "[0]" * 10_000,
    "signs": "-" * 60_000 + "x",
    "nots": "not " * 10_000 + "x",
    "long": "x" * 10_000_000,
    "operators": "x" + " + 1" * 100_000,
    "fewer operators": "x" + "+1" * 10_000,
    "powers": "x" + "**2" * 10_000,
    "masks": "x[" * 20_000,
    "calls": "abs(" * 15_000,
    "digits": "1" * 60_000,
    "comparisons": "x" + ">1" * 30_000,
    "open text": "'" + "\\" * 60_001,
    "many quotes": "`" * 60_001,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_refused(name):
    with pytest.raises(QueryError) as caught:
        parse(HOSTILE[name])
    assert len(str(caught.value)) < 500


def test_long_lists_of_alternatives_are_taken():
    expr = parse(" || ".join(f"event == {i}" for i in range(3000)))
    assert len(expr.children) == 3000
    assert parse(str(expr)) == expr


def test_projection():
    outputs = parse_projection("run, Muon_*, mt = sqrt(2 * MET_pt), a*b, Muon_pt[Muon_pt > 20]")
    assert [output.name for output in outputs] == [
        "run",
        "Muon_*",
        "mt",
        "a * b",
        "Muon_pt[Muon_pt > 20]",
    ]
    assert [output.pattern for output in outputs] == ["", "Muon_*", "", "a*b", ""]
    assert outputs[0].expr == Column("run")
    assert parse_projection(["run", "run"]) == parse_projection("run")
    assert len(parse_projection("max(a, b) * 2, `x,*` = 5 * 2")) == 2


@pytest.mark.parametrize("text", ["a = 1, a = 2", "", "a,", "x = ", "x = y = z", "1 = x", "a,,b*"])
def test_wrong_projections(text):
    with pytest.raises(QueryError):
        parse_projection(text)
