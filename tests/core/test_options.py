from __future__ import annotations

import inspect
import os
from typing import TYPE_CHECKING

import pytest

from dosna.core.options import parse_options

if TYPE_CHECKING:
    from elsewhere import Unimportable


class Connection:
    def __init__(
        self,
        name: str,
        *,
        directory: str | os.PathLike[str] = ".",
        timeout: float = 1.0,
        verify: bool = True,
        retries: int | None = None,
        rate: int | float = 0,
        flag: bool | int = False,
        session: Unimportable | None = None,
        codecs: list[int] = (),
        plain="",
    ) -> None: ...


SIGNATURE = inspect.signature(Connection)


def typed(option):
    (value,) = parse_options(SIGNATURE, [option]).values()
    return type(value), value


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("directory=/data/a b", "/data/a b"),
        ("directory=5", "5"),
        ("directory=", ""),
        ("directory=k=v", "k=v"),
        ("timeout=5", 5.0),
        ("timeout=1e-3", 1e-3),
        ("verify=False", False),
        ("verify=yes", True),
        ("verify=0", False),
        ("retries=3", 3),
        ("retries=-1", -1),
        ("retries=None", None),
        ("rate=2", 2),
        ("rate=2.5", 2.5),
        ("flag=1", 1),
        ("flag=true", True),
        ("session=none", None),
        ("plain=3", "3"),
    ],
)
def test_a_value_takes_the_declared_type(option, expected):
    assert typed(option) == (type(expected), expected)


def test_annotations_that_are_types_are_read_like_those_that_are_text():
    def connect(number: int | None = None, wait: float = 0.0): ...

    connect.__annotations__ = {"number": int | None, "wait": float}
    options = ["number=7", "wait=7"]
    assert str(parse_options(inspect.signature(connect), options)) == "{'number': 7, 'wait': 7.0}"


def test_several_options_keep_their_order_and_none_give_nothing():
    assert list(parse_options(SIGNATURE, ["timeout=1", "directory=x"])) == ["timeout", "directory"]
    assert parse_options(SIGNATURE, []) == {}


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["tiemout=5"], ["'tiemout'", "timeout (float)", "verify (bool)"]),
        (["=5"], ["unknown option ''"]),
        (["timeout"], ["key=value", "'timeout'"]),
        (["timeout=soon"], ["'timeout'", "float", "'soon'"]),
        (["verify=maybe"], ["'verify'", "bool", "'maybe'"]),
        (["retries=2.5"], ["'retries'", "int | None", "'2.5'"]),
        (["codecs=1"], ["'codecs'", "list[int]", "cannot be given as text"]),
        (["timeout=1", "timeout=2"], ["'timeout'", "twice"]),
    ],
)
def test_what_is_wrong_is_named(options, parts):
    with pytest.raises(ValueError, match="option") as caught:
        parse_options(SIGNATURE, options)
    assert [part for part in parts if part not in str(caught.value)] == []


def test_catch_all_parameters_are_no_options():
    def connect(*args: int, **kwargs: int): ...

    with pytest.raises(ValueError, match="the options are none"):
        parse_options(inspect.signature(connect), ["kwargs=1"])
