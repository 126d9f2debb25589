"""Requests to copy or to link a whole HDF5 file as a domain of HSDS, and the reports of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from dosna.core.options import check_choice
from dosna.core.progress import Progress

__all__ = ["DomainReport", "TransferRequest"]


@dataclass
class DomainReport:
    """A report of what `load_domain` or `link_domain` has done.

    Parameters
    ----------
    source, domain : str
        The location of the file, and the path of the domain.
    loaded : list of str
        The names of datasets whose elements are in the domain.
    linked : list of str
        The names of datasets whose elements stay in the file.
    copied : dict of str to str
        The names of datasets in `loaded` that could not be linked, and the reasons.
    left_out : dict of str to str
        The names of what is not in the domain, and the reasons.
    nbytes : int
        The bytes of the elements that were written.
    """

    source: str
    domain: str
    loaded: list[str] = field(default_factory=list)
    linked: list[str] = field(default_factory=list)
    copied: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    nbytes: int = 0


@dataclass(frozen=True)
class TransferRequest:
    """The arguments of `load_domain` or `link_domain`, apart from the file, domain and server.

    Parameters
    ----------
    overwrite, on_error, verify, token, progress, memory_limit
        The parameters of `load_domain`.
    file_uri : str, optional
        The place where the server finds the file; None if nothing is linked.
    unlinkable : {'copy', 'raise'}
        Whether datasets that cannot be linked are copied, or are an error.

    Raises
    ------
    ConfigurationError
        If `on_error` or `unlinkable` is none of its values.
    """

    overwrite: bool = False
    on_error: Literal["raise", "skip"] = "raise"
    verify: bool = True
    token: str | None = None
    progress: Progress = None
    memory_limit: int | str | None = None
    file_uri: str | None = None
    unlinkable: Literal["copy", "raise"] = "copy"

    def __post_init__(self) -> None:
        check_choice("on_error", self.on_error, ("raise", "skip"))
        check_choice("unlinkable", self.unlinkable, ("copy", "raise"))
