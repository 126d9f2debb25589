"""Ports for services that bind them later than they are chosen."""

from __future__ import annotations

import random
import socket


def take_ports(count: int, address: str = "127.0.0.1") -> tuple[list[int], list[socket.socket]]:
    """Choose ports that no other test chooses while the sockets are open.

    They are below those that the system gives to connections, which could take a free one before
    its daemon listens, or while it is dead.
    """
    ports, claims = [], []
    for port in random.SystemRandom().sample(range(10_000, 32_000), 1000):
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0dosna-tests-port-{port}")
            socket.create_server((address, port)).close()
        except OSError:
            claim.close()
            continue
        ports.append(port)
        claims.append(claim)
        if len(ports) == count:
            return ports, claims
    raise SystemExit("no port is free")
