"""The request for a transformation."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from dosna.core.sizes import parse_size
from dosna.errors import ConfigurationError
from dosna.io.s3.options import S3Options

__all__ = ["CODEGENS", "FORMATS", "SCHEME", "Limits", "TransformRequest"]

SCHEME = "dosna://"
"""The beginning of the URL of a tree of columns."""


CODEGENS = ("uproot-raw", "uproot", "python")
"""The kinds of selections: JSON for uproot, func_adl's qastle, a Python function."""

FORMATS = {
    "parquet": ".parquet",
    "root-file": ".root",
    "root-rntuple": ".root",
    "arrow": ".arrow",
    "hdf5": ".h5",
}
"""The formats of results, and the endings of their files. root-file has TTrees."""


@dataclass(frozen=True)
class Limits:
    """The limits of the transformation of one file.

    Parameters
    ----------
    seconds : float
        The time, in seconds.
    memory : int or str
        The memory of the process in addition to that of the libraries, in bytes or as ``'2 GiB'``.
    disk : int or str
        The disk space for the result and temporary files together.
    log : int
        The number of bytes that are kept from the end of the log.

    Raises
    ------
    ConfigurationError
        A limit is not positive.
    """

    seconds: float = 1800.0
    memory: int | str = "2 GiB"
    disk: int | str = "20 GiB"
    log: int = 64 << 10

    def __post_init__(self) -> None:
        for name in ("memory", "disk"):
            object.__setattr__(self, name, parse_size(getattr(self, name)))
        if not (self.seconds > 0 and self.log > 0):
            raise ConfigurationError(
                f"the limits of a transformation must be positive: seconds={self.seconds}, "
                f"log={self.log}"
            )


@dataclass(frozen=True)
class TransformRequest:
    """One file, and the selection to apply to it.

    Parameters
    ----------
    source : str
        A path, a URL of one file (``s3://``, ``https://``, ``root://`` …), or
        ``dosna://BACKEND:LOCATION//TREE`` for a tree of columns.
    codegen : {'uproot-raw', 'uproot', 'python'}
        The kind of the selection.
    selection : str
        The text of the selection, as the client sends it.
    format : {'parquet', 'root-file', 'root-rntuple', 'arrow', 'hdf5'}
        The format of the result.
    folder : path
        The existing folder for the result. The names of unfinished files begin with
        ``.transform-``.
    name : str
        The name of the result's file, with its suffix. A file with this name is replaced.
    limits : Limits
        The limits of the transformation.
    s3 : S3Options
        The options of the server of ``s3://`` sources.
    func_adl : str, optional
        The interpreter with func_adl_uproot, or the folder of its environment; by default
        see `dosna.delivery.transform.environment`.
    within : tuple of str
        The real paths of folders: a local source must be in one of them when it is read, even if
        it was replaced meanwhile. Empty for a source anywhere.
    unconfined : bool
        Whether to run the selection even if the kernel cannot confine it. Only time, memory and
        the size of files are then limited.

    Raises
    ------
    ConfigurationError
        There is no such kind of selection or format, or the name is not that of a file.
    """

    source: str
    codegen: str
    selection: str = field(repr=False)
    format: str
    folder: str
    name: str
    limits: Limits = field(default_factory=Limits)
    s3: S3Options = field(default_factory=S3Options)
    func_adl: str | None = None
    within: tuple[str, ...] = ()
    unconfined: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", os.path.abspath(self.folder))
        if self.codegen not in CODEGENS:
            raise ConfigurationError(
                f"there is no code generator {self.codegen!r}: use one of {', '.join(CODEGENS)}"
            )
        if self.format not in FORMATS:
            raise ConfigurationError(
                f"there is no result format {self.format!r}: use one of {', '.join(FORMATS)}"
            )
        if not self.name or os.path.basename(self.name) != self.name or self.name[0] == ".":
            raise ConfigurationError(
                f"{self.name!r} is not a name for the file of a result: it must have no '/' and "
                "not begin with '.'"
            )
