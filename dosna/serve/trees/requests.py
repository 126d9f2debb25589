"""The query strings of requests for trees."""

from __future__ import annotations

from collections.abc import Mapping

from dosna.errors import ConfigurationError
from dosna.serve.trees.filling import HistogramRequest, Variable
from dosna.web import Refusal

__all__ = ["histogram_request", "integer"]

_MOST_TEXT = 10_000


def histogram_request(asked: Mapping[str, str]) -> HistogramRequest:
    """Return the request for a histogram in a query string.

    Parameters
    ----------
    asked : mapping
        The parameters ``tree``, ``x``, and optionally ``y``, ``where``, ``start`` and ``stop``;
        and ``xbins``, ``xmin`` and ``xmax`` for each variable.

    Raises
    ------
    Refusal
        A parameter is missing, or is not a number (400).
    """
    variables = []
    for name in ("x", "y"):
        text = asked.get(name, "").strip()
        if text:
            bins = integer(asked, f"{name}bins")
            least, most = _number(asked, f"{name}min"), _number(asked, f"{name}max")
            if (least is None) != (most is None):
                raise Refusal(400, f"{name}min and {name}max must be given together")
            limits = None if least is None or most is None else (least, most)
            try:
                variables.append(Variable(text, bins, limits))
            except ConfigurationError as error:
                raise Refusal(400, str(error)) from None
        elif name == "x":
            raise Refusal(400, "the variable x is missing", "give a branch as x=")
    texts = [variable.text for variable in variables]
    where = asked.get("where", "")
    if max(map(len, [where, *texts])) > _MOST_TEXT:
        raise Refusal(400, f"an expression has at most {_MOST_TEXT} characters")
    start, stop = integer(asked, "start"), integer(asked, "stop")
    return HistogramRequest(asked.get("tree", ""), tuple(variables), where, start, stop)


def integer(asked: Mapping[str, str], name: str, default: int | None = None) -> int | None:
    """Return an integer in a query string, or a default if it is missing.

    Raises
    ------
    Refusal
        It is not an integer, or is negative (400).
    """
    text = asked.get(name, "").strip()
    if not text:
        return default
    if not text.isdecimal() or len(text) > 18:
        raise Refusal(400, f"{name} must be an integer of at least 0")
    return int(text)


def _number(asked: Mapping[str, str], name: str) -> float | None:
    text = asked.get(name, "").strip()
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        raise Refusal(400, f"{name} must be a number") from None
