"""Options by name: parsing them from text into declared types, and refusing unknown ones."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from dosna.errors import ConfigurationError

__all__ = [
    "check_choice",
    "check_count",
    "check_seconds",
    "check_type",
    "names_of_options",
    "parse_options",
    "refuse_unknown",
]

Value = int | float | bool | str | None

_POSITIONAL = {"self", "name", "metadata", "location", "inner"}
"""Parameters that every plug-in of a kind receives, so that they are not options."""

_BOOLEANS = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}


def _none(text: str) -> None:
    if text.lower() != "none":
        raise ValueError(text)


def _bool(text: str) -> bool:
    try:
        return _BOOLEANS[text.lower()]
    except KeyError:
        raise ValueError(text) from None


# In the order in which the members of a union are tried, the most specific first.
_CONVERTERS: dict[str, Callable[[str], Value]] = {
    "None": _none,
    "int": int,
    "float": float,
    "bool": _bool,
    "str": str,
}


def parse_options(signature: inspect.Signature, options: Iterable[str]) -> dict[str, Value]:
    """Return keyword arguments from texts of the form ``key=value``.

    A value is converted to the type that the parameter declares: int, float, bool (true/false,
    yes/no, on/off, 1/0), str, None, or a union of these, whose members are tried in the order
    None, int, float, bool, str. Other members of a union, such as ``os.PathLike[str]``, are
    skipped. Annotations are read as text, so their names need not be importable.

    Parameters
    ----------
    signature : inspect.Signature
        The signature of the callable that takes the options, for instance
        ``inspect.signature(Connection)``.
    options : iterable of str
        The texts, each ``key=value``. The value is everything after the first ``=``.

    Returns
    -------
    dict
        The converted value of each option.

    Raises
    ------
    ConfigurationError
        A text without ``=``, an unknown option, an option given twice, a value that the declared
        type does not accept, or a type that cannot be given as text. (It is a ValueError.)
    """
    declared = {
        name: _annotation(parameter)
        for name, parameter in signature.parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    known = ", ".join(f"{name} ({kind})" for name, kind in declared.items()) or "none"
    values: dict[str, Value] = {}
    for option in options:
        name, equals, text = option.partition("=")
        if not equals:
            raise ConfigurationError(f"an option must have the form key=value, not {option!r}")
        if name not in declared:
            raise ConfigurationError(f"unknown option {name!r}: the options are {known}")
        if name in values:
            raise ConfigurationError(f"option {name!r} is given twice: give it once")
        values[name] = _convert(name, text, declared[name])
    return values


def _annotation(parameter: inspect.Parameter) -> str:
    if parameter.annotation is parameter.empty:
        return "str"
    if isinstance(parameter.annotation, str):
        return parameter.annotation
    return inspect.formatannotation(parameter.annotation)


def _convert(name: str, text: str, declared: str) -> Value:
    members = {member.strip() for member in declared.split("|")}
    converters = [convert for kind, convert in _CONVERTERS.items() if kind in members]
    if not converters:
        raise ConfigurationError(
            f"option {name!r} is declared {declared}, which cannot be given as text: "
            f"the types that can are {', '.join(_CONVERTERS)}"
        )
    for convert in converters:
        try:
            return convert(text)
        except ValueError:
            continue
    raise ConfigurationError(f"option {name!r} must be of type {declared}, not {text!r}")


def names_of_options(func: Callable[..., Any]) -> frozenset[str] | None:
    """Return the options that a plug-in's function takes; None if it takes ``**kwargs``."""
    return _names_of_options(getattr(func, "__func__", func))


@lru_cache(256)
def _names_of_options(func: Callable[..., Any]) -> frozenset[str] | None:
    parameters = inspect.signature(func).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return frozenset(p.name for p in parameters) - _POSITIONAL


def refuse_unknown(
    options: Mapping[str, Any],
    func: Callable[..., Any],
    what: str,
    instead: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Raise if there is an option that `func` does not take.

    Parameters
    ----------
    options : mapping
        The options that were given.
    func : callable
        The function of a plug-in that takes them.
    what : str
        A name for what has the options.
    instead : mapping, optional
        What to do instead of giving an option that other libraries have.

    Raises
    ------
    TypeError
        An unknown option. The message lists the known ones.
    ConfigurationError
        `func` takes ``**kwargs``, so that a misspelt option would not be noticed.
    """
    own = names_of_options(func)
    if own is None:
        raise ConfigurationError(f"{what} takes **kwargs: name its options instead")
    for option in options:
        if option not in own:
            known = instead.get(option, f"it has {', '.join(sorted(own)) or 'none'}")
            raise TypeError(f"{what} has no option {option!r}: {known}")


_KINDS: dict[str, tuple[type, ...]] = {
    "None": (type(None),),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "str": (str,),
}


def check_type(name: str, value: object, declared: str) -> None:
    """Raise ConfigurationError unless an option is of its type, which is declared as a text."""
    members = [member.strip() for member in declared.split("|")]
    kinds = {kind for member in members for kind in _KINDS[member]}
    # A bool is an int of Python, but no number here.
    if not isinstance(value, tuple(kinds)) or (isinstance(value, bool) and bool not in kinds):
        raise ConfigurationError(f"{name} must be of type {declared}, not {value!r}")


def check_seconds(name: str, value: object) -> None:
    """Raise ConfigurationError unless an option is a positive, finite number of seconds."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (number and 0 < value < math.inf):  # type: ignore[operator]
        raise ConfigurationError(f"{name} must be a positive number of seconds, not {value!r}")


def check_count(name: str, value: object) -> None:
    """Raise ConfigurationError unless an option is a whole number that is not negative."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigurationError(f"{name} must be a number of times, not {value!r}")


def check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    """Raise ConfigurationError unless an option is one of some values."""
    if value not in choices:
        known = " or ".join(map(repr, choices))
        raise ConfigurationError(f"{name} must be {known}, not {value!r}")
