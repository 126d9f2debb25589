"""The relay on a machine that is reached by SSH: agents connect to it, and SSH forwards them.

SSH forwards a Unix socket of this machine to the manager. Agents, which may be on other nodes,
connect by TCP. The relay passes on their bytes, which are TLS between agent and manager. It ends
with the connection. Only this file is sent there.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
from typing import Any

__all__ = ["main"]


def main() -> None:
    """Relay until the end of standard input."""
    request = json.loads(sys.stdin.readline())
    listener = socket.create_server(("" if request["everywhere"] else "127.0.0.1", 0))
    port = listener.getsockname()[1]
    hosts = [socket.getfqdn(), socket.gethostname()] if request["everywhere"] else []
    path = os.path.join(request["folder"], "manager.json")
    with open(os.open(path + ".new", os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
        json.dump([[host, port] for host in [*hosts, "127.0.0.1"]], file)
    os.replace(path + ".new", path)
    threading.Thread(target=_accept, args=(listener, request["socket"]), daemon=True).start()
    print("\nready", flush=True)
    sys.stdin.read()
    with contextlib.suppress(OSError):
        os.unlink(request["socket"])
    os._exit(0)


def _accept(listener: Any, path: str) -> None:
    while True:
        near, _ = listener.accept()
        far = socket.socket(socket.AF_UNIX)
        try:
            far.connect(path)
        except OSError:
            near.close()
            far.close()
            continue
        for pair in ((near, far), (far, near)):
            threading.Thread(target=_pass, args=pair, daemon=True).start()


def _pass(source: Any, target: Any) -> None:
    with contextlib.suppress(OSError):
        while True:
            got = source.recv(1 << 16)
            if not got:
                break
            target.sendall(got)
    for one in (source, target):
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    main()
