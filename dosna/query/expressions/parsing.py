"""The grammar: the text of a condition or a projection as trees.

From low to high precedence::

    or  ||
    and  &&
    not
    |
    ^
    &
    ==  !=  <  <=  >  >=  in  not in       (chains: 20 < x <= 50)
    +  -
    *  /  //  %
    -  +  !  ~                             (before a value)
    **
    x[…]  f(…)

The parser works by recursive descent; no part of the text is ever passed to Python's own.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass

from dosna.errors import QueryError
from dosna.query.expressions.functions import FUNCTIONS, check_function
from dosna.query.expressions.lexing import (
    MAX_LENGTH,
    Token,
    fail,
    is_pattern,
    split,
    tokenize,
)
from dosna.query.expressions.nodes import (
    LEVELS,
    MAX_DEPTH,
    MAX_NODES,
    Binary,
    Call,
    Column,
    Compare,
    Expr,
    In,
    Item,
    Literal,
    Logical,
    Mask,
    Unary,
)

__all__ = ["Output", "parse", "parse_projection"]

_COMPARISONS = frozenset(("==", "!=", "<", "<=", ">", ">="))
_WORDS = {
    "or": LEVELS["||"], "and": LEVELS["&&"], "in": LEVELS["compare"], "not": LEVELS["compare"],
}  # fmt: skip
_CONSTANTS: dict[str, bool | float] = {
    "true": True, "True": True, "false": False, "False": False,
    "nan": float("nan"), "inf": float("inf"),
}  # fmt: skip
_MAX_NESTING = 150
_LONGEST_KEPT = 500
"""Characters of a text whose tree is kept, for the next time."""


@dataclass(frozen=True)
class Output:
    """A column of the result.

    Parameters
    ----------
    name : str
        The name in the result.
    expr : Expr or None
        The expression; None if there is only a pattern.
    pattern : str
        The pattern of names of columns, such as ``Muon_*``; empty if there is none. A text that
        could be a pattern or a product, such as ``a*b``, has both; `bind_projection` decides.
    """

    name: str
    expr: Expr | None
    pattern: str = ""


def parse(text: str) -> Expr:
    """Return the tree of an expression.

    Parameters
    ----------
    text : str
        The text, such as ``nMuon >= 2 && any(Muon_pt > 20)``.

    Returns
    -------
    Expr

    Raises
    ------
    QueryError
        If the text cannot be parsed, is too long, or is nested too deeply. The message shows the
        position.
    UnknownNameError
        If there is no such function.

    Examples
    --------
    >>> from dosna.query.expressions import parse
    >>> expr = parse("nMuon >= 2 and abs(eta) < 2.4")
    >>> str(expr), sorted(expr.columns)
    ('nMuon >= 2 && abs(eta) < 2.4', ['eta', 'nMuon'])
    """
    if isinstance(text, str) and len(text) <= _LONGEST_KEPT:
        return _parse_kept(text)
    return _parse(text)


def _parse(text: str) -> Expr:
    parser = _Parser(text)
    expr = parser.expression()
    parser.end()
    return expr


# Trees never change, and dashboards and loops ask the same again.
_parse_kept = functools.lru_cache(128)(_parse)


def parse_projection(texts: str | Iterable[str]) -> list[Output]:
    """Return the columns of a result: names, patterns, and expressions with or without a name.

    Parameters
    ----------
    texts : str or iterable of str
        The columns, as one text with commas or as a list: ``"run"``, ``"Muon_*"``,
        ``"mt = sqrt(2 * MET_pt * x)"``. An expression without a name is named by its text.

    Returns
    -------
    list of Output

    Raises
    ------
    QueryError
        If a text cannot be parsed, or two columns have the same name.

    Examples
    --------
    >>> from dosna.query.expressions import parse_projection
    >>> [output.name for output in parse_projection("run, half = MET_pt / 2")]
    ['run', 'half']
    """
    outputs: dict[tuple[str, str], Output] = {}
    for text in [texts] if isinstance(texts, str) else texts:
        short = isinstance(text, str) and len(text) <= _LONGEST_KEPT
        for output in _outputs_kept(text) if short else _outputs(text):
            known = outputs.setdefault((output.name, output.pattern), output)
            if known != output:
                raise QueryError(
                    f"query: two columns of the result have the name {output.name!r}: "
                    "give one of them another, as in 'name = expression'"
                )
    return list(outputs.values())


def _outputs(text: str) -> list[Output]:
    if isinstance(text, str) and len(text) <= MAX_LENGTH and ("*" in text or "?" in text):
        whole = text.strip()
        # Patterns are not part of the language, so they are recognised first.
        parts = split(whole)
        if len(parts) > 1 and any(map(is_pattern, parts)):
            return [output for part in parts for output in _outputs(part)]
        if is_pattern(whole):
            try:
                expr: Expr | None = parse(whole)
            except QueryError:
                expr = None
            return [Output(whole if expr is None else str(expr), expr, whole)]
    parser = _Parser(text)
    outputs = [parser.output()]
    while parser.accept(","):
        outputs.append(parser.output())
    parser.end()
    return outputs


@functools.lru_cache(256)
def _outputs_kept(text: str) -> tuple[Output, ...]:
    return tuple(_outputs(text))


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = tokenize(text)
        self._place = 0
        self._inside = 0
        self._nodes = 0
        self._depths: dict[int, tuple[Expr, int]] = {}
        self._wrapped: set[int] = set()

    # Tokens.

    @property
    def _next(self) -> Token:
        return self._tokens[self._place]

    def _is(self, *values: str) -> bool:
        token = self._next
        return token.kind in ("op", "name") and token.value in values

    def _fail(self, message: str, token: Token | None = None) -> QueryError:
        return fail(self._text, (token or self._next).start, message)

    def _found(self) -> str:
        token = self._next
        if self._is("="):
            return "'=': compare by '=='"
        return "the end" if token.kind == "end" else repr(token.value[:40])

    def accept(self, *values: str) -> Token | None:
        """Return the next token and advance, if it is one of the operators or words."""
        if not self._is(*values):
            return None
        self._place += 1
        return self._tokens[self._place - 1]

    def _need(self, value: str, why: str) -> None:
        if not self.accept(value):
            raise self._fail(f"expected {value!r} {why}, found {self._found()}")

    def end(self) -> None:
        """Check that no text remains."""
        if self._next.kind != "end":
            raise self._fail(f"expected an operator or the end, found {self._found()}")

    # Trees.

    def _made(self, expr: Expr, token: Token) -> Expr:
        """Count a node, and refuse one that is nested too deeply."""
        depth = 1 + max((self._depths[id(child)][1] for child in expr.children), default=0)
        self._nodes += 1
        if depth > MAX_DEPTH:
            raise self._fail(f"nested deeper than {MAX_DEPTH} levels: use fewer parts", token)
        if self._nodes > MAX_NODES:
            raise self._fail(f"more than {MAX_NODES} parts: use fewer", token)
        self._depths[id(expr)] = (expr, depth)
        return expr

    def output(self) -> Output:
        """Return a column of a projection: ``expression`` or ``name = expression``."""
        first, second = self._next, self._tokens[min(self._place + 1, len(self._tokens) - 1)]
        if first.kind in ("name", "column") and second.kind == "op" and second.value == "=":
            self._place += 2
            return Output(first.value, self.expression())
        expr = self.expression()
        return Output(expr.name if isinstance(expr, Column) else str(expr), expr)

    def expression(self, level: int = 0) -> Expr:
        """Return the next expression, up to an operator with a lower precedence than `level`."""
        self._inside += 1
        if self._inside > _MAX_NESTING:
            raise self._fail("too many nested brackets or signs: use fewer")
        left = self._operand(level)
        while (strength := self._strength()) >= level and strength:
            token = self._next
            if token.value in ("&&", "||", "and", "or"):
                left = self._logical(left, strength, token)
            elif strength == LEVELS["compare"]:
                left = self._compare(left, strength, token)
            else:
                self._place += 1
                # Only powers are right-associative: 2 ** 3 ** 2 is 2 ** 9.
                right = self.expression(LEVELS["unary"] if token.value == "**" else strength + 1)
                if token.value in ("&", "|", "^"):
                    self._check_bits(token, left, right)
                left = self._made(Binary(token.value, left, right), token)
        self._inside -= 1
        return left

    def _strength(self) -> int:
        """Return the precedence of the next operator; 0 if there is none."""
        token = self._next
        if token.kind == "name":
            return _WORDS.get(token.value, 0)
        if token.kind != "op":
            return 0
        return LEVELS["compare"] if token.value in _COMPARISONS else LEVELS.get(token.value, 0)

    def _logical(self, left: Expr, strength: int, token: Token) -> Expr:
        sign = "&&" if token.value in ("&&", "and") else "||"
        operands = [left]
        while self._strength() == strength:
            self._place += 1
            operands.append(self.expression(strength + 1))
        return self._made(Logical(sign, tuple(operands)), token)

    def _compare(self, left: Expr, strength: int, token: Token) -> Expr:
        if self._is("in", "not"):
            negated = self.accept("not")
            self._need("in", "after 'not'")
            found = self._made(In(left, self._values()), token)
            expr = self._made(Unary("!", found), token) if negated else found
        else:
            operands, ops = [left], []
            while self._next.kind == "op" and self._next.value in _COMPARISONS:
                ops.append(self._next.value)
                self._place += 1
                operands.append(self.expression(strength + 1))
            expr = self._made(Compare(tuple(operands), tuple(ops)), token)
        if self._strength() == strength:
            raise self._fail("'in' next to another comparison needs parentheses")
        return expr

    def _check_bits(self, token: Token, left: Expr, right: Expr) -> None:
        """Refuse a comparison beside bitwise operators, which Python and C read differently."""
        for one, other in ((left, right), (right, left)):
            bare = isinstance(one, (Compare, In)) and id(one) not in self._wrapped
            if bare and not self._is_truth(other):
                raise self._fail(
                    f"C and Python read {token.value!r} next to a comparison differently: "
                    "write (x & 4) == 4 for bits, and x > 1 && y for conditions",
                    token,
                )

    def _is_truth(self, expr: Expr) -> bool:
        if id(expr) in self._wrapped or isinstance(expr, (Compare, In, Logical)):
            return True
        if isinstance(expr, Binary):
            return expr.op in ("&", "|", "^") and self._is_truth(expr.right)
        return (
            (isinstance(expr, Unary) and expr.op in "!~")
            or (isinstance(expr, Call) and FUNCTIONS[expr.function].gives_truth)
            or (isinstance(expr, Literal) and isinstance(expr.value, bool))
        )

    def _values(self) -> tuple[Literal, ...]:
        begin = self.accept("(", "[")
        if not begin:
            raise self._fail(f"expected a list of values such as (1, 2), found {self._found()}")
        close = ")" if begin.value == "(" else "]"
        values: list[Literal] = []
        while not self.accept(close):
            token = self._next
            value = self._operand(LEVELS["unary"])
            if not isinstance(value, Literal):
                raise self._fail("the values after 'in' must be numbers or strings", token)
            values.append(value)
            if not self.accept(","):
                self._need(close, "after the values")
                break
        if not values:
            raise self._fail("the list after 'in' has no values", begin)
        return tuple(values)

    def _operand(self, level: int) -> Expr:
        """Return a value with its signs and its brackets."""
        token = self._next
        if self._is("not"):
            if level > LEVELS["not"]:
                raise self._fail("'not' within a comparison or a sum needs parentheses")
            self._place += 1
            return self._made(Unary("!", self.expression(LEVELS["not"])), token)
        if self.accept("-", "+", "!", "~"):
            follows = self._tokens[min(self._place + 1, len(self._tokens) - 1)].value
            number = self._next.kind == "number" or self._is("inf", "nan")
            if number and token.value in "+-" and follows not in ("**", "[", "("):
                return self._number(-1 if token.value == "-" else 1)
            operand = self.expression(LEVELS["unary"])
            if token.value == "+":
                return operand
            return self._made(Unary(token.value, operand), token)
        expr = self._primary()
        while token_ := self.accept("["):
            expr = self._postfix(expr, token_)
        return expr

    def _number(self, sign: int) -> Expr:
        token = self._next
        self._place += 1
        value = sign * _to_number(token.value)
        if isinstance(value, int) and not -(2**63) <= value < 2**64:
            raise self._fail(
                "an integer has more than 64 bits: write a float, such as 1e30", token
            )
        return self._made(Literal(value), token)

    def _postfix(self, expr: Expr, token: Token) -> Expr:
        inside = self.expression()
        self._need("]", "after the index or the condition")
        if isinstance(inside, Literal):
            if type(inside.value) is not int:
                raise self._fail("an index must be an integer, or a condition on elements", token)
            return self._made(Item(expr, inside.value), token)
        return self._made(Mask(expr, inside), token)

    def _primary(self) -> Expr:
        token = self._next
        if self.accept("("):
            expr = self.expression()
            self._need(")", f"for the '(' of character {token.start + 1}")
            self._wrapped.add(id(expr))
            return expr
        if token.kind not in ("number", "text", "name", "column"):
            raise self._fail(f"expected a value, found {self._found()}")
        if token.kind == "name" and token.value in ("and", "or", "not", "in"):
            raise self._fail(f"expected a value, found {token.value!r}")
        if token.kind == "number":
            return self._number(1)
        self._place += 1
        if token.kind == "text":
            return self._made(Literal(token.value), token)
        if token.kind == "name" and token.value in _CONSTANTS:
            return self._made(Literal(_CONSTANTS[token.value]), token)
        if self._is("("):
            return self._call(token)
        return self._made(Column(token.value), token)

    def _call(self, token: Token) -> Expr:
        self._need("(", "after the function")
        arguments: list[Expr] = []
        while not self.accept(")"):
            arguments.append(self.expression())
            if not self.accept(","):
                self._need(")", "after the arguments")
                break
        check_function(self._text, token, len(arguments))
        return self._made(Call(token.value, tuple(arguments)), token)


def _to_number(text: str) -> int | float:
    if text in ("inf", "nan"):
        return float(text)
    if text[:2] in ("0x", "0X"):
        return int(text, 16)
    return int(text) if text.isdigit() else float(text)
