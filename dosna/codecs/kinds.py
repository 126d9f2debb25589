"""The codecs by name, and the making of a codec from its description in a ``zarr.json``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dosna.codecs.base import Codec, CodecKind
from dosna.errors import ConfigurationError, DosnaError, FormatError
from dosna.registry import Known, Registry

__all__ = [
    "COMPRESSORS",
    "Spec",
    "codec_of",
    "compressor",
    "name_of",
    "named",
    "option_of",
    "registry",
]

Spec = str | Mapping[str, Any]
"""A codec in a ``zarr.json``: its name, or an object with name and configuration."""

registry: Registry[CodecKind] = Registry(
    "codec",
    CodecKind,
    {
        "gzip": Known("dosna.codecs.gzip:KIND"),
        "zstd": Known("dosna.codecs.zstd:KIND", "zarr"),
        "blosc": Known("dosna.codecs.blosc:KIND", "zarr"),
        "crc32c": Known("dosna.codecs.crc32c:KIND"),
        "bytes": Known("dosna.codecs.arrays:BYTES"),
        "vlen-utf8": Known("dosna.codecs.arrays:VLEN_UTF8"),
        "transpose": Known("dosna.codecs.arrays:TRANSPOSE"),
    },
)

COMPRESSORS = ("gzip", "zstd", "blosc")
"""The compressors of dosna itself."""

_NO_COMPRESSORS = ("bytes", "vlen-utf8", "crc32c", "transpose")


def named(
    spec: Any, what: str, where: str, known: Sequence[str] | None = None
) -> tuple[str, dict[str, Any]]:
    """Return the name and the configuration of an extension object.

    Raises
    ------
    FormatError
        The name is not one of `known`, or the object has members that are not in the
        specification.
    """
    if isinstance(spec, str):
        spec = {"name": spec}
    if not isinstance(spec, Mapping) or not isinstance(spec.get("name"), str):
        raise FormatError(f"{where} has the {what} {spec!r}, which has no name")
    name, configuration = spec["name"], spec.get("configuration", {})
    if known is not None and name not in known:
        raise _unknown(name, what, where, known)
    if spec.keys() - {"name", "configuration", "must_understand"} or not isinstance(
        configuration, Mapping
    ):
        raise FormatError(f"{where}: the {what} {name!r} has an unknown part: {dict(spec)!r}")
    return name, dict(configuration)


def _unknown(name: str, what: str, where: str, known: Sequence[str]) -> FormatError:
    return FormatError(
        f"{where} has the {what} {name!r}, which dosna does not know: it knows {', '.join(known)}"
    )


def name_of(spec: Any) -> Any:
    """Return the name of a codec, in either of its forms."""
    return spec.get("name") if isinstance(spec, Mapping) else spec


def codec_of(spec: Spec, where: str) -> Codec:
    """Make a codec from its description.

    Parameters
    ----------
    spec : str or mapping
        The description in a ``zarr.json``.
    where : str
        The name of the document in errors.

    Raises
    ------
    FormatError
        The codec is unknown, or does not take its configuration.
    MissingDependencyError
        A package that the codec needs is not installed.
    """
    name, configuration = named(spec, "codec", where)
    codec = _class_of(name, where)
    try:
        return codec(**configuration)
    except DosnaError:
        raise
    except (TypeError, ValueError) as error:
        why = _misfit(codec, configuration) or f"has a wrong configuration: {error}"
        raise FormatError(f"{where}: codec {name!r} {why}") from error


def _class_of(name: str, where: str) -> type[Codec]:
    try:
        # Names in documents are in lower case, and those in the registry in any.
        if name == name.lower():
            return registry.get(name).codec
    except ConfigurationError as error:
        if name in registry.names:
            raise FormatError(f"{where}: {error}") from error
    raise _unknown(name, "codec", where, registry.names)


def _misfit(codec: type[Codec], given: Mapping[str, Any]) -> str:
    """Return what is unknown or missing in a configuration, or an empty text."""
    parameters = inspect.signature(codec).parameters
    unknown = [name for name in given if name not in parameters]
    if unknown:
        return f"has unknown options: {', '.join(unknown)}"
    lacking = [n for n, p in parameters.items() if p.default is p.empty and n not in given]
    return f"lacks {', '.join(lacking)}" if lacking else ""


def compressor(option: Any, dtype: np.dtype[Any]) -> dict[str, Any] | None:
    """Return the codec for an option ``compression=``, in its form in a ``zarr.json``.

    Parameters
    ----------
    option : None, str or mapping
        The name of a codec, such as 'gzip', 'zstd' or 'blosc', or a mapping with ``name`` and
        options of the codec.
    dtype : dtype
        The type of the elements, to which some options of blosc are adapted.

    Returns
    -------
    dict or None
        The codec, or None for no compression.

    Raises
    ------
    ConfigurationError
        The name or an option is unknown, or the codec does not take a value.
    MissingDependencyError
        A package that the codec needs is not installed.
    """
    if option is None:
        return None
    given = {"name": option} if isinstance(option, str) else option
    name = given.get("name") if isinstance(given, Mapping) else None
    if name not in COMPRESSORS:
        known = [name for name in registry.names if name not in _NO_COMPRESSORS]
        if name not in known:
            raise ConfigurationError(
                f"compression must be None, one of {', '.join(known)}, or a mapping such as "
                f"{{'name': 'zstd', 'level': 3}}, not {option!r}"
            )
    options = {k: v for k, v in given.items() if k != "name"}
    try:
        codec = _class_of(name, "compression=")
        spec = {"name": name, "configuration": codec.configuration(options, dtype)}
        codec_of(spec, "compression=")
    except FormatError as error:
        raise ConfigurationError(str(error)) from None
    return spec


def option_of(spec: Spec) -> dict[str, Any] | None:
    """Return the option ``compression=`` for a codec like `spec` in an array of any dtype.

    None is returned for codecs that are not compressors.
    """
    name, configuration = named(spec, "codec", "zarr.json")
    if name in _NO_COMPRESSORS:
        return None
    return {"name": name, **registry.get(name).codec.options(configuration)}
