from __future__ import annotations

import inspect
import math

import pytest

from dosna import errors
from dosna.core.options import parse_options
from dosna.io.s3.options import S3Options, takes_s3_options
from dosna.sources import open_source


@pytest.mark.parametrize(
    "options",
    [
        *({"timeout": t} for t in (0, -1, True, "5", math.nan, math.inf)),
        *({"retries": r} for r in (-1, True, 1.0, "5")),
    ],
)
def test_bad_options(options):
    (name,) = options
    with pytest.raises(errors.ConfigurationError, match=name):
        S3Options(**options)
    with pytest.raises(errors.ConfigurationError, match=name):
        open_source("s3://bucket/scan.h5", **options)


def test_sources_declare_the_options():
    source = type(open_source("s3://bucket/scan.npy"))
    declared = inspect.signature(source)
    assert list(declared.parameters)[2:] == [
        "endpoint_url", "profile_name", "region_name", "verify", "timeout", "retries",
    ]  # fmt: skip
    found = parse_options(declared, ["timeout=3", "verify=no", "region_name=none"])
    assert found == {"timeout": 3.0, "verify": False, "region_name": None}
    with pytest.raises(TypeError, match="endpont_url"):
        open_source("s3://bucket/scan.npy", endpont_url="x")
    with pytest.raises(TypeError, match="keys"):
        open_source("s3://bucket/scan.npy", keys=("a", "b"))
    with pytest.raises(TypeError, match="endpont_url"):
        source({"a": [1]}, endpont_url="x")


def test_functions_keep_their_own_parameters():
    @takes_s3_options
    def function(location: str, *, wait: bool = False, **options: object) -> object:
        return options

    assert list(inspect.signature(function).parameters)[:3] == ["location", "wait", "endpoint_url"]
    assert function("x", timeout=1) == {"timeout": 1}


def test_keys_are_not_shown_and_not_stored():
    options = S3Options("http://host", timeout=3, keys=("user", "secret"))
    assert "secret" not in repr(options)
    assert options.portable() == {"endpoint_url": "http://host", "timeout": 3}
