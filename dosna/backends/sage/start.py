"""The start of this process's client of Motr.

The library allows one client in a process. All connections share it, and it lives as long as the
process. A start can hang for minutes, or end the process if the cluster does not know its fid, so
another process tries it first.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
from dataclasses import asdict
from typing import Any

from dosna.backends.sage.client import MotrClient, late
from dosna.backends.sage.configuration import SageConfiguration
from dosna.errors import ConnectionError, DosnaError, MissingDependencyError, StorageError

__all__ = ["client"]

_REFUSED = 3
_ENDING_SECONDS = 5.0
_TCP = re.compile(r"inet6?:tcp:(.+)@(\d+)")

_lock = threading.Lock()
_client: MotrClient | None = None
_why_not: str | None = None


def client(conf: SageConfiguration, timeout: float) -> MotrClient:
    """Return this process's client, and start it if there is none.

    Parameters
    ----------
    conf : SageConfiguration
        The configuration of the client.
    timeout : float
        The seconds for the start, and for each request.

    Returns
    -------
    MotrClient
        The client, with this timeout.

    Raises
    ------
    MissingDependencyError
        The binding is not compiled.
    ConnectionError
        The cluster does not answer, the endpoint is in use, the process was forked, or it has a
        client with another configuration.
    """
    global _client
    with _lock:
        if _client is None:
            _client = _start(conf, timeout)
        found = _client
    found.check_process()
    if found.conf != conf:
        raise ConnectionError(
            "this process is a client of Motr by another configuration, and Motr allows it one: "
            "use another process"
        )
    return found.with_timeout(timeout)


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


def _start(conf: SageConfiguration, timeout: float) -> MotrClient:
    global _why_not
    if _why_not is not None:
        raise ConnectionError(f"{_why_not}; begin a new process to try again")
    binding = _binding()
    _reach(conf.ha_addr, min(timeout, 5.0))
    address, claim = _take_endpoint(conf.laddr)
    _try_elsewhere(conf, address, timeout)
    started = MotrClient(binding, conf, address, claim, timeout)
    try:
        started.start()
    except DosnaError as error:
        # A start that the library has begun cannot be undone in this process.
        _why_not = str(error)
        raise
    return started


def _binding() -> Any:
    # By default, this takes the transport that needs no special hardware.
    os.environ.setdefault("FI_PROVIDER", "tcp")
    try:
        import _dosna_motr
    except ImportError as error:
        raise MissingDependencyError(
            f"the backend sage needs a binding that is compiled once ({error}): with Motr "
            "installed, run python -m dosna.backends.sage.binding --prefix <where Motr is>"
        ) from error
    return _dosna_motr


def _reach(ha_addr: str, timeout: float) -> None:
    """Check that a process listens at the address of the high-availability agent."""
    found = _TCP.fullmatch(ha_addr)
    if found is None:
        return
    try:
        socket.create_connection((found[1], int(found[2])), timeout).close()
    except OSError as error:
        raise ConnectionError(
            f"Motr's high-availability agent does not answer at {ha_addr} ({error}): is the "
            "cluster up, and ha_addr right?"
        ) from error


def _take_endpoint(addresses: tuple[str, ...]) -> tuple[str, socket.socket]:
    """Take the first endpoint that no process of this host has; the returned socket keeps it."""
    for address in addresses:
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            # The name is in no file system, and is free again when this process ends.
            claim.bind(f"\0dosna-sage-{address}")
            found = _TCP.fullmatch(address)
            if found is not None:
                family = socket.AF_INET6 if address.startswith("inet6") else socket.AF_INET
                with socket.socket(family) as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind((found[1], int(found[2])))
            return address, claim
        except OSError as error:
            claim.close()
            why = error
    raise ConnectionError(
        f"no endpoint is free for this process of {', '.join(addresses)} ({why}): each process "
        "needs one of its own; give laddr several, or each rank a file by prefix_conffile"
    )


def _try_elsewhere(conf: SageConfiguration, address: str, timeout: float) -> None:
    """Start a client in another process, and raise ConnectionError if that fails."""
    code = (
        "import json, sys; given = json.load(sys.stdin); sys.path[:] = given.pop('path'); "
        "from dosna.backends.sage.start import _try_here; _try_here(given)"
    )
    given = {**asdict(conf), "address": address, "timeout": timeout, "path": sys.path}
    try:
        tried = subprocess.run(
            [sys.executable, "-c", code],
            input=json.dumps(given).encode(),
            capture_output=True,
            timeout=timeout + _ENDING_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ConnectionError(late(conf, address, timeout)) from None
    if tried.returncode == 0:
        return
    if tried.returncode == _REFUSED:
        raise ConnectionError(tried.stdout.decode(errors="replace").splitlines()[-1])
    words = tried.stderr.decode(errors="replace").splitlines()
    said = next((line for line in words if "panic:" in line), words[-1] if words else "nothing")
    raise ConnectionError(
        f"Motr's library ended a process that tried to start a client at {address} with proc_fid "
        f"{conf.proc_fid}: does the cluster's configuration have this process? It said: {said}"
    )


def _try_here(given: dict[str, Any]) -> None:
    """Start a client in this process, which is to end then; its exit status tells the result."""
    address, timeout = given.pop("address"), given.pop("timeout")
    conf = SageConfiguration(**{**given, "laddr": tuple(given["laddr"])})
    try:
        MotrClient(_binding(), conf, address, None, timeout).start()
    except (ConnectionError, MissingDependencyError, StorageError) as error:
        print(error, flush=True)
        os._exit(_REFUSED)  # An ordinary exit would wait for a thread that hangs.
