"""The text of a query as tokens, with limits of length, and errors that show the position."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dosna.errors import QueryError

__all__ = ["MAX_LENGTH", "Token", "fail", "is_pattern", "split", "tokenize"]

MAX_LENGTH = 65_536
"""Characters above which text is refused."""

_MAX_DIGITS = 400
_SHOWN = 60

_TOKEN = re.compile(
    r"""
    (?P<space>[ \t\r\n]+)
  | (?P<number>0[xX][0-9a-fA-F]+(?!\w)
      |(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?(?![\w.]))
  | (?P<name>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)
  | (?P<quoted>`(?:[^`\\]|\\[`\\])*`)
  | (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
  | (?P<op>&&|\|\||==|!=|<=|>=|\*\*|//|[-+*/%<>!&|^~()\[\],=])
    """,
    re.VERBOSE | re.ASCII | re.DOTALL,
)
_PATTERN = re.compile(r"[\w.*?\[\]!-]+")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "\\": "\\", '"': '"', "'": "'", "`": "`"}


@dataclass(frozen=True, slots=True)
class Token:
    """A token: its kind (``number``, ``name``, ``text``, ``op``, ``end``), text and position."""

    kind: str
    value: str
    start: int


def fail(text: str, place: int, message: str, error: type[QueryError] = QueryError) -> QueryError:
    """Return an error whose message shows the position in the text."""
    first = max(0, place - _SHOWN // 2)
    around = text[first : first + _SHOWN]
    # One character each, so that the mark is below the right one.
    shown = "".join(c if c.isprintable() else " " for c in around)
    left = "…" if first else ""
    right = "…" if first + _SHOWN < len(text) else ""
    mark = " " * (place - first + len(left)) + "^"
    return error(f"query, character {place + 1}: {message}\n  {left}{shown}{right}\n  {mark}")


def tokenize(text: str) -> list[Token]:
    """Return the tokens of a text, with one of kind ``end`` after the last.

    Raises
    ------
    QueryError
        If the text is too long, or contains characters that the language does not have.
    """
    if not isinstance(text, str):
        raise QueryError(f"query: expected text, not {type(text).__name__}")
    if len(text) > MAX_LENGTH:
        raise QueryError(
            f"query: the text has {len(text)} characters, more than the limit of {MAX_LENGTH}: "
            "write long lists of values as ranges, or filter the result"
        )
    tokens = []
    place = 0
    while place < len(text):
        found = _TOKEN.match(text, place)
        if found is None:
            raise fail(text, place, _unknown(text, place))
        kind = str(found.lastgroup)
        value = found[0]
        if kind == "name" and any(part.startswith("__") for part in value.split(".")):
            raise fail(
                text, place, f"the name {value[:40]!r} begins with two underscores: put it in `…`"
            )
        if kind == "quoted":
            kind, value = "column", re.sub(r"\\(.)", r"\1", value[1:-1])
        elif kind == "text":
            value = _unescape(text, value[1:-1], place + 1)
        elif kind == "number" and len(value) > _MAX_DIGITS:
            raise fail(text, place, f"a number has more than {_MAX_DIGITS} characters")
        if kind != "space":
            tokens.append(Token(kind, value, place))
        place = found.end()
    return [*tokens, Token("end", "", len(text))]


def _unescape(text: str, inside: str, start: int) -> str:
    parts = []
    place = 0
    while (slash := inside.find("\\", place)) >= 0:
        escaped = inside[slash + 1]
        if escaped not in _ESCAPES:
            raise fail(text, start + slash, f"unknown escape '\\{escaped}': write '\\\\' for '\\'")
        parts += [inside[place:slash], _ESCAPES[escaped]]
        place = slash + 2
    return "".join([*parts, inside[place:]])


def is_pattern(text: str) -> bool:
    """Return whether a text can be a pattern of names of columns."""
    text = text.strip()
    return ("*" in text or "?" in text) and bool(_PATTERN.fullmatch(text))


def split(text: str) -> list[str]:
    """Split at the commas that are not in brackets or quotes."""
    parts, start, depth, quote, place = [], 0, 0, "", 0
    while place < len(text):
        char = text[place]
        if quote:
            if char == "\\":
                place += 1
            elif char == quote:
                quote = ""
        elif char in "\"'`":
            quote = char
        elif char in "([":
            depth += 1
        elif char in ")]":
            depth -= 1
        elif char == "," and depth == 0:
            parts.append(text[start:place])
            start = place + 1
        place += 1
    return [*parts, text[start:]]


def _unknown(text: str, place: int) -> str:
    char = text[place]
    if char in "\"'`":
        return f"the {char} has no end"
    if char in "0123456789.":
        return "a number is not complete, or a name begins with a digit: put such a name in `…`"
    if not char.isascii():
        return (
            f"{char!r} (U+{ord(char):04X}) is not of the language: operators and plain names are "
            "ASCII, and other names stand in `…`"
        )
    return f"unexpected {char!r}"
