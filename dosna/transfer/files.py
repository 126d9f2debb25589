"""Copies of HDF5 files in domains: with the data, or with links to their places in the file."""

from __future__ import annotations

from typing import Any, Literal

from dosna.core.progress import Progress
from dosna.transfer.request import DomainReport, TransferRequest
from dosna.transfer.running import transfer

__all__ = ["DomainReport", "link_domain", "load_domain"]

Unlinkable = Literal["copy", "raise"]


def load_domain(
    source: Any,
    domain: str,
    *,
    overwrite: bool = False,
    on_error: Literal["raise", "skip"] = "raise",
    verify: bool = True,
    token: str | None = None,
    progress: Progress = None,
    memory_limit: int | str | None = None,
    **server: Any,
) -> DomainReport:
    """Write the whole contents of an HDF5 file into a new domain of HSDS.

    The domain appears when everything is in it, flushed and read back. Until then it is
    ``.NAME.TOKEN.part`` in the same folder. Types, links, attributes, references and chunks are
    the same as in the file, but chunks below 256 KiB are joined.

    Parameters
    ----------
    source : path, URL, h5py.File or `dosna.sources.hdf5.source.H5Source`
        The whole file, local or ``s3://bucket/key``.
    domain : str
        The domain, such as ``hdf5://home/user/scan.h5``. Its folder must exist.
    overwrite : bool
        Whether to replace a domain that exists, when the new one is complete.
    on_error : {'raise', 'skip'}
        Whether objects and attributes that HSDS cannot keep are an error, or are left out.
    verify : bool
        Whether to read all elements back.
    token : str, optional
        A text that tells this writer's unfinished domain from others', random by default.
        Anything that an earlier call with the same token left is deleted.
    progress : bool or callable, optional
        True for a bar, or a callback ``(done, total)`` in bytes.
    memory_limit : int or str, optional
        The most bytes of elements held at a time, such as '512M'.
    **server
        The server, by the fields of `dosna.hsds.HsdsOptions`: ``endpoint``, ``username``, ….

    Raises
    ------
    DatasetExistsError
        If the domain exists.
    RefusedError, SourceError
        If HSDS cannot keep something, or the file cannot be read.
    StorageError, dosna.errors.ConnectionError
        If the server refuses, fails, or cannot be reached.
    """
    request = TransferRequest(overwrite, on_error, verify, token, progress, memory_limit)
    return transfer(source, domain, request, server)


def link_domain(
    source: Any,
    domain: str,
    file_uri: str,
    *,
    unlinkable: Unlinkable = "copy",
    overwrite: bool = False,
    on_error: Literal["raise", "skip"] = "raise",
    verify: bool = True,
    token: str | None = None,
    progress: Progress = None,
    memory_limit: int | str | None = None,
    **server: Any,
) -> DomainReport:
    """Create a domain of HSDS whose elements stay in the HDF5 file, where the server reads them.

    Contiguous and chunked datasets without filters or with gzip, shuffle and Fletcher-32 are
    linked. Everything else, such as strings of variable length, is copied. The server does not
    notice when the file changes: link it again then.

    Parameters
    ----------
    source, domain : path, URL, h5py.File or H5Source, and str
        The whole file, and the domain, as `load_domain` takes them.
    file_uri : str
        The place where the server finds the file: ``s3://bucket/key``, or a path below the
        folder of its data, ``bucket/path/scan.h5``.
    unlinkable : {'copy', 'raise'}
        Whether datasets that cannot be linked are copied, or are an error.
    overwrite, on_error, token, progress, memory_limit, **server
        The parameters of `load_domain`.
    verify : bool
        Whether to read back all elements that were copied, and the first and the last element
        of each linked dataset.

    Raises
    ------
    DatasetExistsError
        If the domain exists.
    RefusedError, SourceError
        If a dataset cannot be linked, with ``unlinkable='raise'``; if HSDS cannot keep
        something, or the file cannot be read.
    StorageError, dosna.errors.ConnectionError
        If the server refuses, fails, or cannot be reached; or if a linked dataset reads as other
        elements than the file has.
    """
    request = TransferRequest(
        overwrite, on_error, verify, token, progress, memory_limit, file_uri, unlinkable
    )
    return transfer(source, domain, request, server)
