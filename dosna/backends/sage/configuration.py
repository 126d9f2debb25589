"""The configuration file of the sage backend: lines of ``key = value``.

Many wrong values make Motr's library end the process, so each value is checked before.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from dosna.errors import ConfigurationError

__all__ = ["SageConfiguration", "find", "load"]

_BLOCK = 4096
_MOST_PORT = 65535
_LNET = re.compile(
    r"(?P<nid>[A-Za-z0-9.:-]+@(?:tcp|o2ib|lo)\d*):12345:(?P<portal>\d+):(?P<tm>\d+)"
)
_LIBFABRIC = re.compile(r"inet6?:(?:tcp|verbs):(?P<host>[A-Za-z0-9.:-]+)@(?P<port>\d+)")
_FID = re.compile(r"<?(0x[0-9a-f]{1,16}|\d{1,19}):(0x[0-9a-f]{1,16}|\d{1,19})>?", re.IGNORECASE)


@dataclass(frozen=True)
class SageConfiguration:
    """The parameters that a client of Motr is started with.

    Parameters
    ----------
    laddr : tuple of str
        The endpoints of this host, of which each process takes one that is free.
    ha_addr : str
        The endpoint of the high-availability agent.
    prof_id, proc_fid : str
        The fids of the profile and of this process.
    block_size : int
        The size of a block in bytes; objects consist of whole blocks.
    tm_recv_queue_min_len : int
        The number of buffers that wait for messages.
    max_rpc_msg_size : int
        The size of the longest message in bytes, as the cluster has it.
    """

    laddr: tuple[str, ...]
    ha_addr: str
    prof_id: str
    proc_fid: str
    block_size: int = _BLOCK
    tm_recv_queue_min_len: int = 16
    max_rpc_msg_size: int = 1 << 17


def find(conffile: str | os.PathLike[str], prefixed: bool, rank: int) -> str:
    """Return the path of the configuration file of this process.

    Parameters
    ----------
    conffile : path
        The path of the configuration file, or with `prefixed` the folder and end of its name.
    prefixed : bool
        Whether each process has a file of its own: ``<hostname>.<rank>.<name>`` or
        ``<rank>.<name>``, in the folder of `conffile`.
    rank : int
        The rank of this process.

    Returns
    -------
    str
        The path of an existing file.

    Raises
    ------
    ConfigurationError
        The file does not exist.
    """
    path = os.fspath(conffile)
    folder, name = os.path.split(path)
    names = [f"{socket.gethostname()}.{rank}.{name}", f"{rank}.{name}"] if prefixed else [name]
    paths = [os.path.join(folder, n) for n in names]
    for candidate in paths:
        if os.path.isfile(candidate):
            return candidate
    raise ConfigurationError(
        f"there is no configuration file {' and no '.join(map(repr, paths))}: make one as in "
        "sage.sample.conf"
    )


def load(path: str) -> SageConfiguration:
    """Read a configuration file.

    Parameters
    ----------
    path : str
        The path of the file.

    Returns
    -------
    SageConfiguration
        The values of the file, and the defaults of others.

    Raises
    ------
    ConfigurationError
        (a ValueError) The file cannot be read, a line is not ``key = value``, a key is unknown,
        missing or given twice, or a value does not have the form that Motr takes. The message
        names the key, the value and the form.
    """
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path!r} cannot be read: {error}") from error
    values: dict[str, Any] = {}
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        key, equals, value = (part.strip() for part in text.partition("="))
        where = f"{path}, line {number}"
        if not equals:
            raise ConfigurationError(f"{where}: a line must be 'key = value', not {text!r}")
        if key not in _FORMS:
            raise ConfigurationError(
                f"{where}: unknown key {key!r}; the keys are {', '.join(_FORMS)}"
            )
        if key in values:
            raise ConfigurationError(f"{where}: {key} appears twice")
        form, read = _FORMS[key]
        try:
            values[key] = read(value)
        except ValueError:
            raise ConfigurationError(f"{where}: {key} = {value!r} is not {form}") from None
    missing = [f.name for f in fields(SageConfiguration) if f.name not in values]
    missing = [key for key in missing if key in _REQUIRED]
    if missing:
        raise ConfigurationError(
            f"{path}: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing; see "
            "sage.sample.conf"
        )
    return SageConfiguration(**values)


def _endpoint(text: str) -> str:
    lnet, fabric = _LNET.fullmatch(text), _LIBFABRIC.fullmatch(text)
    if lnet and int(lnet["portal"]) < 64 and int(lnet["tm"]) < 1024:
        return text
    if fabric and 0 < int(fabric["port"]) <= _MOST_PORT:
        return text
    raise ValueError(text)


def _endpoints(text: str) -> tuple[str, ...]:
    found = tuple(_endpoint(part) for part in text.split())
    if not found or len(set(found)) < len(found):
        raise ValueError(text)
    return found


def _fid(kind: int) -> Callable[[str], str]:
    def read(text: str) -> str:
        found = _FID.fullmatch(text)
        if not found or text.startswith("<") != text.endswith(">"):
            raise ValueError(text)
        container, key = (int(part, 0) for part in found.groups())
        if container >> 56 != kind or key >= 1 << 64:
            raise ValueError(text)
        return f"<{container:#x}:{key:#x}>"

    return read


def _number(least: int, most: int, multiple: int = 1) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"\d{1,12}", text, re.ASCII):
            raise ValueError(text)
        number = int(text)
        if not least <= number <= most or number % multiple:
            raise ValueError(text)
        return number

    return read


_ENDPOINT = "'inet:tcp:<address>@<port>' or '<address>@tcp:12345:<portal>:<number>'"
_FORMS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "laddr": (f"an endpoint, {_ENDPOINT}, or several between spaces", _endpoints),
    "ha_addr": (f"an endpoint, {_ENDPOINT}", _endpoint),
    "prof_id": ("the fid of a profile, '<0x7000000000000001:0x0>'", _fid(0x70)),
    "proc_fid": ("the fid of a process, '<0x7200000000000001:0x0>'", _fid(0x72)),
    "block_size": (
        "a multiple of 4096 up to 1048576, in bytes",
        _number(_BLOCK, 1 << 20, _BLOCK),
    ),
    "tm_recv_queue_min_len": ("a number from 2 to 4096", _number(2, 4096)),
    "max_rpc_msg_size": ("a number of bytes from 4096 to 1048576", _number(4096, 1 << 20)),
}
_REQUIRED = ("laddr", "ha_addr", "prof_id", "proc_fid")
