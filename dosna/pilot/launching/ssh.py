"""OpenSSH's client: requests to a Python on another machine, and a way back for agents."""

from __future__ import annotations

import json
import re
import secrets
import shlex
import subprocess
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from dosna.errors import ConfigurationError, ConnectionError, StoreTimeoutError, WorkerError
from dosna.pilot.descriptions import PilotComputeDescription

__all__ = ["Ssh", "Tunnel"]

_SECONDS = 120
_HOST = re.compile(r"[\w.:][\w.:%-]*")
# The program is sent as the first line of standard input, because command lines are public.
_READ_PROGRAM = (
    "import sys, json; "
    "exec(compile(json.loads(sys.stdin.readline()), 'dosna', 'exec'), {'__name__': '__main__'})"
)


class Ssh:
    """The command ``ssh`` to the host of a pilot.

    Parameters
    ----------
    description : PilotComputeDescription
        The description, whose ``service_url`` contains the host, and a user and a port if needed.
    """

    def __init__(self, description: PilotComputeDescription) -> None:
        self.host, port, user = _parts_of(description.service_url)
        self._python = description.python or "python3"
        self._environment = description.environment
        self._base = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20"]
        self._base += ["-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=3"]
        for option in description.ssh_options:
            self._base += ["-o", option]
        if description.userkey:
            key = str(Path(description.userkey).expanduser())
            self._base += ["-i", key, "-o", "IdentitiesOnly=yes"]
        if port:
            self._base += ["-p", str(port)]
        if user:
            self._base += ["-l", user]

    def command(self, *options: str) -> list[str]:
        """Return the command that runs a program from its standard input there."""
        words = [self._python, "-c", _READ_PROGRAM]
        if self._environment:
            words = ["env", *self._environment, *words]
        return [*self._base, *options, "--", self.host, shlex.join(words)]

    def ask(self, program: str, request: dict[str, Any]) -> Any:
        """Run a program there with a request, and return its answer.

        Raises
        ------
        ConnectionError
            The host cannot be reached, or has no such Python.
        StoreTimeoutError
            There is no answer in time.
        WorkerError
            The request has failed.
        """
        sent = f"{json.dumps(program)}\n{json.dumps(request)}\n".encode()
        try:
            done = subprocess.run(
                self.command(),
                input=sent,
                capture_output=True,
                timeout=_SECONDS,
                start_new_session=True,  # Ctrl-C is for the program
            )
        except subprocess.TimeoutExpired:
            raise StoreTimeoutError(
                f"ssh {self.host}: no answer within {_SECONDS} s. Check whether the host is busy."
            ) from None
        except OSError as error:
            raise ConnectionError(
                f"ssh cannot be run: {error.strerror}. Install OpenSSH's client."
            ) from None
        lines = done.stdout.decode(errors="replace").strip().splitlines()
        try:
            answer = json.loads(lines[-1])
        except (IndexError, ValueError):
            cause = done.stderr.decode(errors="replace").strip()[-500:] or done.returncode
            raise ConnectionError(
                f"ssh {self.host}: {cause}. Check whether 'ssh {self.host} {self._python} -V' "
                "works"
            ) from None
        if "error" in answer:
            raise WorkerError(f"{self.host}: {answer['error']}")
        return answer["answer"]


def _parts_of(url: str) -> tuple[str, int | None, str]:
    """Return the host, the port and the user of a ``service_url``.

    The errors do not show it: where it has another form, nobody knows which part is a password.
    """
    try:
        parts = urlsplit(url)
        host, port, user = parts.hostname or "", parts.port, unquote(parts.username or "")
    except ValueError:
        raise ConfigurationError(
            "service_url cannot be understood: write ssh://[user@]host[:port]"
        ) from None
    if parts.password is not None:
        raise ConfigurationError(
            "service_url has a password, which SSH's client does not accept: pass a key as "
            "userkey, or use the SSH agent"
        )
    if not _HOST.fullmatch(host):
        raise ConfigurationError(
            "service_url names no host that SSH could reach: write ssh://[user@]host[:port]"
        )
    return host, port, user


class Tunnel:
    """A relay on another machine, and the tunnel from it to a port of this one.

    Parameters
    ----------
    ssh : Ssh
        The connection to the other machine.
    folder : str
        The folder of the pilot there, to which the relay writes its addresses.
    port : int
        The port of the manager.
    everywhere : bool
        Whether agents connect from other machines than the relay's.
    """

    def __init__(self, ssh: Ssh, folder: str, port: int, everywhere: bool) -> None:
        path = f"/tmp/dosna-{secrets.token_hex(8)}.sock"
        forward = f"{path}:127.0.0.1:{port}"
        command = ssh.command("-o", "ExitOnForwardFailure=yes", "-R", forward)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        # It writes a line for each failed connection, and would block if these were not read.
        self._said: deque[bytes] = deque(maxlen=20)
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()
        program = Path(__file__).with_name("relay.py").read_text()
        request = {"socket": path, "folder": folder, "everywhere": everywhere}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{json.dumps(program)}\n{json.dumps(request)}\n".encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended, and has written the reason
        timer = threading.Timer(_SECONDS, self._process.kill)
        timer.start()
        try:
            while (line := self._process.stdout.readline()) not in (b"ready\n", b""):
                pass
        finally:
            timer.cancel()
        if not line:
            cause = self._close()
            raise ConnectionError(
                f"ssh {ssh.host}: {cause or 'no relay'}. Agents cannot reach the manager: allow "
                "forwarding (AllowStreamLocalForwarding) on that machine."
            )

    @property
    def is_open(self) -> bool:
        """True if the relay passes bytes on."""
        return self._process.poll() is None

    def close(self) -> None:
        """End the relay."""
        self._close()

    def _listen(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            self._said.extend(lines)

    def _close(self) -> str:
        self._process.terminate()
        self._process.wait()
        # A process that ssh has left behind may have it open.
        self._reader.join(1)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        return b"".join(self._said).decode(errors="replace").strip()[-500:]
