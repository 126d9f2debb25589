"""Launching the jobs of pilots: on this machine or by SSH, with PSI/J in both cases."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import socket
import sys
import threading
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dosna.errors import ConfigurationError, MissingDependencyError, WorkerError
from dosna.pilot import agent
from dosna.pilot.descriptions import PilotComputeDescription
from dosna.pilot.launching import jobs
from dosna.pilot.launching.ssh import Ssh, Tunnel

__all__ = ["Launcher"]

_EXECUTORS = {
    "fork": "local",
    "flux": "flux",
    "lsf": "lsf",
    "pbs": "pbs",
    "pbs_classic": "pbs_classic",
    "slurm": "slurm",
}
_SCHEME = re.compile(r"[a-z][a-z0-9_+.-]{0,40}")
_AGENT_MAIN = "from dosna_agent.loop import main\n\nmain()\n"


class Launcher:
    """A launcher, which starts, watches and cancels the job of one pilot.

    Parameters
    ----------
    description : PilotComputeDescription
        Of the pilot.

    Raises
    ------
    ConfigurationError
        The ``service_url`` is of an unknown kind.
    """

    def __init__(self, description: PilotComputeDescription) -> None:
        self.description = description
        scheme, found, rest = description.service_url.partition("://")
        kind, _, by = scheme.partition("+")
        if scheme == "ssh":
            kind, by = "fork", "ssh"
        if not found or kind not in _EXECUTORS or by not in ("", "ssh"):
            kinds = ", ".join(f"{one}://localhost" for one in _EXECUTORS)
            # Not all of it, because where a password ends is unknown.
            shown = f" {scheme}://" if found and _SCHEME.fullmatch(scheme) else ""
            raise ConfigurationError(
                f"service_url{shown} is not of a kind that starts pilots: use {kinds}, "
                "ssh://host, or slurm+ssh://host and the like"
            )
        if not by:
            _require_here(kind, rest)
        self.executor = _EXECUTORS[kind]
        self.is_batch = self.executor != "local"
        self._ssh = Ssh(description) if by else None
        self._tunnel: Tunnel | None = None
        self._lock = threading.Lock()

    @property
    def is_by_ssh(self) -> bool:
        """True if the job is started on another machine."""
        return self._ssh is not None

    @property
    def needs_all_interfaces(self) -> bool:
        """True if agents connect to the manager from other machines, and not through SSH."""
        return self.is_batch and self._ssh is None

    @property
    def nodes(self) -> int:
        """The number of nodes, each with an agent."""
        if not self.is_batch:
            return 1
        return -(-self.description.number_of_processes // self.description.processes_per_node)

    @property
    def slots(self) -> int:
        """The number of processes of each agent."""
        whole = self.description.number_of_processes
        return whole if not self.is_batch else min(whole, self.description.processes_per_node)

    def deploy(self, pilot: str, secret: Mapping[str, str], options: Mapping[str, Any]) -> str:
        """Write the agent and its configuration; return the pilot's folder."""
        parent = self.description.working_directory or ("~" if self._ssh else os.getcwd())
        own = {**secret, "options": {**options, "pilot": pilot, "slots": self.slots}}
        files = {"agent.pyz": _archive(), "agent.json": json.dumps(own).encode()}
        texts = {name: base64.b64encode(content).decode() for name, content in files.items()}
        return str(self._ask({"do": "deploy", "folder": f"{parent}/{pilot}", "files": texts}))

    def connect(self, folder: str, port: int) -> None:
        """Tell the agents of a folder how to reach the manager, again if the way was lost."""
        with self._lock:
            if self._ssh is not None:
                if self._tunnel is None or not self._tunnel.is_open:
                    if self._tunnel is not None:
                        self._tunnel.close()
                        self._tunnel = None
                    self._tunnel = Tunnel(self._ssh, folder, port, everywhere=self.is_batch)
                return
        hosts = [socket.getfqdn(), socket.gethostname()] if self.is_batch else []
        addresses = [[host, port] for host in [*hosts, "127.0.0.1"]]
        content = base64.b64encode(json.dumps(addresses).encode()).decode()
        self._ask({"do": "deploy", "folder": folder, "files": {"manager.json": content}})

    def submit(self, pilot: str, folder: str) -> str:
        """Submit the job, and return its native id."""
        described = self.description
        default = "python3" if self._ssh else sys.executable
        request = {
            "do": "submit",
            "executor": self.executor,
            "python": described.python or default,
            "folder": folder,
            "name": pilot,
            "environment": [one.split("=", 1) for one in described.environment],
            "nodes": self.nodes,
            "slots": self.slots,
            "walltime": described.walltime,
            "queue": described.queue,
            "project": described.project,
        }
        return str(self._ask(request))

    def look(self, native: str, folder: str) -> tuple[str, str]:
        """Return the state of the job (``queued``, ``active``, …, ``gone``), and the reason."""
        request = {
            "do": "look",
            "executor": self.executor,
            "native": native,
            "folder": folder,
            "seconds": 5.0 if self._ssh else 0.0,
        }
        state, message = self._ask(request)
        return str(state), str(message)

    def cancel(self, native: str) -> None:
        """Cancel the job."""
        self._ask({"do": "cancel", "executor": self.executor, "native": native})

    def close(self) -> None:
        """Close the way back by SSH."""
        with self._lock:
            if self._tunnel is not None:
                self._tunnel.close()
                self._tunnel = None

    def _ask(self, request: dict[str, Any]) -> Any:
        if self._ssh is not None:
            return self._ssh.ask(Path(jobs.__file__).read_text(), request)
        try:
            return jobs.handle(request)
        except ImportError as error:
            raise MissingDependencyError(
                f"pilots need {error.name}: pip install 'dosna[pilot]'"
            ) from error
        except jobs.FolderError as error:
            raise WorkerError(str(error)) from error
        except Exception as error:
            # PSI/J and the programs that it runs raise many kinds of errors.
            raise WorkerError(
                f"the pilot's job cannot be handled: {type(error).__name__}: {error}. Look at "
                f"{self.executor} on this machine."
            ) from error


def _require_here(kind: str, rest: str) -> None:
    """Refuse the URL of another machine: its job would be started on this one."""
    try:
        host = urlsplit(f"//{rest}").hostname or ""
    except ValueError:
        host = "?"
    own = socket.gethostname().lower()
    if host not in ("", "localhost", "127.0.0.1", "::1", own, own.partition(".")[0]):
        other = "ssh" if kind == "fork" else f"{kind}+ssh"
        raise ConfigurationError(
            f"service_url {kind}:// is for this machine: write {kind}://localhost, or "
            f"{other}://host for another one"
        )


def _archive() -> bytes:
    """Return the agent as an archive that Python runs."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("__main__.py", _AGENT_MAIN)
        for path in sorted(Path(agent.__file__).parent.glob("*.py")):
            archive.writestr(f"dosna_agent/{path.name}", path.read_bytes())
    return content.getvalue()
