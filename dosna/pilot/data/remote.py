"""Places with an fsspec driver: SFTP, HTTP, iRODS, and the stores of Google and OpenStack."""

from __future__ import annotations

import base64
import builtins
import errno
import os
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import quote

from dosna.errors import (
    ConnectionError,
    DosnaError,
    MissingDependencyError,
    SourceNotFoundError,
    StorageError,
    StoreTimeoutError,
)
from dosna.io.files import FULL
from dosna.pilot.data.files import Tell
from dosna.pilot.data.places import Place, PlaceUrl, Prepared, failed

__all__ = ["RemotePlace", "open_remote"]

_CONNECT_SECONDS = 30
_KEEPALIVE_SECONDS = 10
"""An SSH server that is silent three times for so long is taken for gone."""
_FULL = 1 << 20
"""A file system with fewer free bytes is full."""

_NEEDS = {
    "ssh": "sshfs",
    "http": "aiohttp",
    "irods": "irods-fsspec",
    "gs": "gcsfs",
    "swift": "swiftspec",
}


def open_remote(url: PlaceUrl, fields: Mapping[str, Any]) -> RemotePlace:
    """Return the place of a URL with a scheme of fsspec."""
    scheme = {"sftp": "ssh", "https": "http"}.get(url.scheme, url.scheme)
    options = {**_OPTIONS[scheme](url, fields), **(fields.get("options") or {})}
    kind = SftpPlace if scheme == "ssh" else HttpPlace if scheme == "http" else RemotePlace
    return kind(url, scheme, options)


def _ssh_options(url: PlaceUrl, fields: Mapping[str, Any]) -> dict[str, Any]:
    key = fields.get("userkey")
    given = {
        "port": url.port,
        "username": url.user,
        "password": url.password or fields.get("password"),
        "client_keys": [os.path.expanduser(key)] if key else None,
    }
    return {
        **{name: value for name, value in given.items() if value},
        "host": url.host or "localhost",
        # By default, sshfs would trust any server; this is the user's own list.
        "known_hosts": (),
        "keepalive_interval": _KEEPALIVE_SECONDS,
        "connect_timeout": _CONNECT_SECONDS,
        "login_timeout": _CONNECT_SECONDS,
        # The fastest cipher of OpenSSH comes first; the others remain.
        "encryption_algs": "^aes128-gcm@openssh.com",
    }


def _http_options(url: PlaceUrl, fields: Mapping[str, Any]) -> dict[str, Any]:
    try:
        import aiohttp
    except ImportError:
        return {}  # connecting reports it
    # aiohttp's own limit of five minutes is for a file as a whole.
    timeout = aiohttp.ClientTimeout(
        total=None, sock_connect=_CONNECT_SECONDS, sock_read=_CONNECT_SECONDS
    )
    options: dict[str, Any] = {"client_kwargs": {"timeout": timeout}}
    user, password = url.user, url.password or fields.get("password") or ""
    if user:
        # Not aiohttp's `auth` of a session, which other servers get too that this one leads to.
        coded = base64.b64encode(f"{user}:{password}".encode()).decode()
        options["headers"] = {"Authorization": f"Basic {coded}"}
    return options


def _irods_options(url: PlaceUrl, fields: Mapping[str, Any]) -> dict[str, Any]:
    user, _, zone = url.user.partition("+")
    given = {
        "host": url.host,
        "port": url.port,
        "user": user,
        "zone": zone,
        "password": url.password or fields.get("password"),
    }
    # Without a user, it is the one of ~/.irods/irods_environment.json.
    return {name: value for name, value in given.items() if value} if user else {}


_OPTIONS: Mapping[str, Callable[[PlaceUrl, Mapping[str, Any]], dict[str, Any]]] = {
    "ssh": _ssh_options,
    "http": _http_options,
    "irods": _irods_options,
    "gs": lambda url, fields: {},
    "swift": lambda url, fields: {},
}


class RemotePlace(Place):
    """A folder or a bucket on a server.

    Parameters
    ----------
    url : PlaceUrl
        Its URL.
    protocol : str
        The name of the protocol in fsspec.
    options : mapping
        The options of its driver.
    """

    renames = False
    """True if a file that was written can get another name at no cost."""

    def __init__(self, url: PlaceUrl, protocol: str, options: Mapping[str, Any]) -> None:
        super().__init__(str(url))
        self._root = self._root_of(url)
        self._protocol, self._options = protocol, dict(options)
        self._lock = threading.Lock()
        self._open: Any = None

    def _root_of(self, url: PlaceUrl) -> str:
        if self.__class__ is RemotePlace and url.scheme in ("gs", "swift"):
            return f"{url.host}{url.path}"
        return os.path.expandvars(url.path)  # as paths of iRODS may be written

    def _path(self, path: str) -> str:
        return f"{self._root.rstrip('/')}/{path}" if path else self._root

    def _fs(self) -> Any:
        with self._lock:
            if self._open is None:
                self._open = self._connect()
            return self._open

    def _connect(self) -> Any:
        try:
            if self._protocol == "ssh":
                from sshfs import SSHFileSystem as kind
            elif self._protocol == "irods":
                from irods_fsspec import IRODSFileSystem as kind
            else:
                from fsspec import get_filesystem_class

                kind = get_filesystem_class(self._protocol)
        except (ImportError, ValueError) as error:
            need = _NEEDS[self._protocol]
            raise MissingDependencyError(
                f"{self.shown} needs {need}, which cannot be imported: pip install {need}"
            ) from error
        return kind(**self._options, skip_instance_cache=True)

    def _forget(self) -> None:
        with self._lock:
            self._open = None

    @contextmanager
    def _doing(self, what: str) -> Iterator[None]:
        """Convert what drivers raise, outside of their handlers: it may hold what was sent."""
        found: DosnaError
        try:
            yield
            return
        except DosnaError:
            raise
        except (FileNotFoundError, NotADirectoryError):
            found = SourceNotFoundError(f"{what} at {self.shown} failed: there is no such file")
        except TimeoutError:
            self._forget()
            found = StoreTimeoutError(f"{what} at {self.shown} failed: there is no answer in time")
        except Exception as error:
            found = self._failure(what, error)
        raise found

    def _failure(self, what: str, error: Exception) -> DosnaError:
        if type(error).__name__ in ("SFTPNoSuchFile", "SFTPNoSuchPath"):
            return SourceNotFoundError(f"{what} at {self.shown} failed: there is no such file")
        if not type(error).__name__.startswith("SFTP"):
            self._forget()  # the connection may be broken, and a new one may work
        found: DosnaError = failed(what, self.shown, error)
        if isinstance(error, OSError) and error.errno in FULL:
            return StorageError(error.errno, f"{found} There is no room on this machine.")
        if isinstance(error, builtins.ConnectionError):
            return ConnectionError(str(found))
        if isinstance(error, OSError) and error.errno:
            return found
        lost = {"ConnectionLost", "DisconnectError", "HostKeyNotVerifiable", "KeyExchangeFailed"}
        if isinstance(error, OSError) or lost & {one.__name__ for one in type(error).__mro__}:
            return ConnectionError(str(found))
        return found

    def check(self) -> None:
        with self._doing("making the folder"):
            self._fs().makedirs(self._root, exist_ok=True)

    def size(self, path: str) -> int:
        with self._doing(f"looking for {path}"):
            return int(self._fs().info(self._path(path))["size"])

    def download(self, path: str, target: str, tell: Tell | None = None) -> None:
        with self._doing(f"reading {path}"):
            self._receive(self._fs(), self._path(path), target, tell)

    def prepare(self, source: str, path: str, tell: Tell | None = None) -> Prepared:
        final = self._path(path)
        folder, _, name = final.rpartition("/")
        part = f"{folder}/.{name}.{secrets.token_hex(4)}.part" if self.renames else final
        fs: Any = None

        def commit() -> None:
            with self._doing(f"storing {path}"):
                fs.mv(part, final)

        def abandon() -> None:
            # Files left by a lost connection are removed with the data unit.
            if fs is not None and fs is self._open:
                with suppress(Exception):
                    fs.rm_file(part)

        try:
            with self._doing(f"writing {path}"):
                fs = self._fs()
                if self.renames:
                    fs.makedirs(folder, exist_ok=True)
                self._send(fs, source, part, tell)
                self._check_size(int(fs.info(part)["size"]), source, path)
        except BaseException:
            abandon()
            raise
        return Prepared(commit, abandon) if self.renames else self.named(path)

    def _check_size(self, size: int, source: str, path: str) -> None:
        if size != (wanted := os.path.getsize(source)):
            raise StorageError(
                f"writing {path} at {self.shown} failed: {size} bytes arrived instead of {wanted}"
            )

    def _receive(self, fs: Any, path: str, target: str, tell: Tell | None) -> None:
        fs.get_file(path, target, callback=_callback(tell))

    def _send(self, fs: Any, source: str, part: str, tell: Tell | None) -> None:
        fs.put_file(source, part, callback=_callback(tell))

    def remove(self, path: str) -> None:
        with self._doing(f"removing {path}"), suppress(FileNotFoundError):
            self._fs().rm(self._path(path), recursive=True)

    def close(self) -> None:
        self._forget()


class SftpPlace(RemotePlace):
    """A folder of an SSH server."""

    renames = True

    def _root_of(self, url: PlaceUrl) -> str:
        # A path that begins with ~ is below the user's own folder.
        path = url.path.removeprefix("/~/") if url.path.startswith("/~/") else url.path
        return path or "."

    def prepare(self, source: str, path: str, tell: Tell | None = None) -> Prepared:
        try:
            return super().prepare(source, path, tell)
        except StorageError as error:
            # SFTP has no error code for a full disk.
            if self._free() < _FULL:
                text = f"writing {path} at {self.shown} failed: its disk is full. Make room there."
                raise StorageError(errno.ENOSPC, text) from error
            raise

    def close(self) -> None:
        with self._lock:
            fs, self._open = self._open, None
        if fs is not None:
            # Python collects it later, in any thread, and closing has a tenth of a second then.
            fs.loop.call_soon_threadsafe(fs.client.close)

    # Not by sshfs' get_file and put_file: their blocks are small, and asyncssh leaves out holes
    # for them, and so ends a file before one at its end.
    def _receive(self, fs: Any, path: str, target: str, tell: Tell | None) -> None:
        self._with_sftp(fs, lambda sftp: sftp.get(path, target, **_whole(tell)))

    def _send(self, fs: Any, source: str, part: str, tell: Tell | None) -> None:
        self._with_sftp(fs, lambda sftp: sftp.put(source, part, **_whole(tell)))

    def _free(self) -> int:
        async def ask(sftp: Any) -> int:
            found = await sftp.statvfs(self._root)
            return int(found.bavail * found.frsize)

        try:
            return int(self._with_sftp(self._fs(), ask, _CONNECT_SECONDS))
        except Exception:
            return _FULL  # not every server reports this

    def _with_sftp(self, fs: Any, work: Callable[[Any], Any], timeout: float | None = None) -> Any:
        async def run() -> Any:
            async with fs.client.start_sftp_client() as sftp:
                return await work(sftp)

        from fsspec.asyn import sync

        return sync(fs.loop, run, timeout=timeout)


class HttpPlace(RemotePlace):
    """Files on a web server, which is read-only."""

    def _root_of(self, url: PlaceUrl) -> str:
        port = f":{url.port}" if url.port else ""
        return f"{url.scheme}://{url.host}{port}{quote(url.path)}"

    def check(self) -> None:
        raise self.refuse()

    def size(self, path: str) -> int:
        with self._doing("looking for the file"):
            found = self._fs().info(self._path(path)).get("size")
        return -1 if found is None else int(found)

    def prepare(self, source: str, path: str, tell: Tell | None = None) -> Prepared:
        raise self.refuse()

    def remove(self, path: str) -> None:
        raise self.refuse()


def _whole(tell: Tell | None) -> dict[str, Any]:
    """Return the options by which asyncssh copies a file with its holes, and tells how far."""
    told = 0

    def count(source: bytes, target: bytes, done: int, total: int) -> None:
        nonlocal told
        if tell is not None:
            tell(done - told)
        told = done

    return {"sparse": False, "progress_handler": count}


def _callback(tell: Tell | None) -> Any:
    """Return fsspec's form of a function that gets numbers of bytes."""
    from fsspec.callbacks import Callback

    class Told(Callback):  # type: ignore[misc]  # fsspec has no types
        def relative_update(self, inc: int = 1) -> None:
            super().relative_update(inc)
            if tell is not None:
                tell(inc)

        def absolute_update(self, value: int) -> None:
            before = self.value
            super().absolute_update(value)
            if tell is not None:
                tell(value - before)

    return Told()
