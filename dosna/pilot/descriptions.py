"""Descriptions of pilots, places, data units and compute units, whose fields are checked."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self
from urllib.parse import quote

from dosna.core.sizes import parse_size
from dosna.errors import ConfigurationError, DosnaError

__all__ = [
    "HIDDEN",
    "ComputeUnitDescription",
    "DataUnitDescription",
    "PilotComputeDescription",
    "PilotDataDescription",
    "without_secrets",
]

HIDDEN = "***"
_URL_SECRET = re.compile(r"(?<=//)([^/@:\s]*):[^/\s]*@")
_SIGNED = re.compile(r"(?<=\?).+", re.DOTALL)
_OPTION_SECRET = re.compile("pass|secret|token|cred|key|auth|sas", re.IGNORECASE)
"""Of the names of options of drivers, as far as can be known."""


def without_secrets(text: str) -> str:
    """Return a text, such as a URL, with the passwords of URLs in it replaced by ``***``."""
    return _URL_SECRET.sub(rf"\1:{HIDDEN}@", text)


def absolute(url: str) -> str:
    """Return a path, or the URL of datasets in a folder, such that it is not relative.

    The agents that use it, and programs that continue with a state, run in other folders.
    """
    if url.startswith("dosna:"):
        return f"dosna:{_absolute_place(url.removeprefix('dosna:'))}"
    return url if not url or "://" in url else os.path.abspath(os.path.expanduser(url))


def _absolute_place(url: str) -> str:
    from dosna.backends import registry
    from dosna.backends.folders.connection import FolderConnection

    backend, colon, path = url.partition(":")
    is_relative = colon and path.partition("?")[0] and not path.startswith("/")
    if not is_relative or "directory=" in path.partition("?")[2]:
        return url
    try:
        is_folder = issubclass(registry.get(backend).connection, FolderConnection)
    except DosnaError:
        return url  # whoever opens it says why that cannot be
    return f"{backend}:{quote(os.path.join(os.getcwd(), ''))}{path}" if is_folder else url


@dataclass(kw_only=True)
class _Description:
    """The base of all descriptions. Unknown fields are an error."""

    OLD_NAMES: ClassVar[Mapping[str, str]] = {}
    """Older names of fields."""

    SECRET: ClassVar[frozenset[str]] = frozenset()
    """Fields that are never shown or kept."""

    affinity_datacenter_label: str = ""
    affinity_machine_label: str = ""

    def __post_init__(self) -> None:
        self._check_strings("affinity_datacenter_label", "affinity_machine_label")

    @classmethod
    def of(cls, fields: Mapping[str, Any] | Self) -> Self:
        """Create a description from the fields of the Pilot-API.

        Raises
        ------
        ConfigurationError
            A field is unknown, is missing, or has an invalid value.
        """
        if isinstance(fields, cls):
            return fields
        if not isinstance(fields, Mapping):
            raise ConfigurationError(
                f"{cls.__name__}: a mapping of fields is needed, but got {type(fields).__name__}"
            )
        known = {one.name for one in dataclasses.fields(cls)}
        values = {cls.OLD_NAMES.get(name, name): value for name, value in fields.items()}
        unknown = sorted(str(name) for name in values.keys() - known)
        if unknown:
            raise ConfigurationError(
                f"{cls.__name__} has no field {', '.join(unknown)}: use {', '.join(sorted(known))}"
            )
        try:
            return cls(**values)
        except TypeError as error:
            raise ConfigurationError(f"{cls.__name__}: {error}") from None

    def fields(self) -> dict[str, Any]:
        """Return all fields that may be stored and shown, which excludes secrets."""
        values = dataclasses.asdict(self)
        for name in self.SECRET:
            values.pop(name)
        if "service_url" in values:
            values["service_url"] = without_secrets(values["service_url"])
        return values

    def secrets(self) -> dict[str, Any]:
        """Return the fields that `fields` leaves out and that have a value."""
        return {name: getattr(self, name) for name in self.SECRET if getattr(self, name)}

    def _refuse(self, name: str, value: Any, allowed: str) -> ConfigurationError:
        shown = "a value" if name in self.SECRET else without_secrets(repr(value))
        return ConfigurationError(f"{type(self).__name__}: {name} is {shown}: use {allowed}")

    def _check_counts(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            try:
                count = int(value)
            except (TypeError, ValueError, OverflowError):
                count = 0
            if count < 1 or (isinstance(value, float) and value != count):
                raise self._refuse(name, value, "a whole number of at least 1")
            setattr(self, name, count)

    def _check_minutes(self, name: str) -> None:
        value = getattr(self, name)
        try:
            minutes = float(value or 0)
        except (TypeError, ValueError, OverflowError):
            minutes = -1.0
        if not 0 <= minutes < math.inf:
            raise self._refuse(name, value, "minutes, or 0 for no limit")
        setattr(self, name, minutes)

    def _check_strings(self, *names: str) -> None:
        """Check single texts; None is an empty one."""
        for name in names:
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise self._refuse(name, value, "a text")
            setattr(self, name, value or "")

    def _check_texts(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if isinstance(value, str) or not all(isinstance(one, str) for one in value):
                raise self._refuse(name, value, "a list of texts")
            setattr(self, name, list(value))

    def _check_environment(self) -> None:
        value = getattr(self, "environment")  # noqa: B009 -- of the classes below
        if isinstance(value, Mapping):
            value = [f"{name}={one}" for name, one in value.items()]
        setattr(self, "environment", value)  # noqa: B010
        self._check_texts("environment")
        for one in getattr(self, "environment"):  # noqa: B009
            name, equals, _ = one.partition("=")
            if not equals or not name.isidentifier():
                raise self._refuse("environment", name, "texts of the form NAME=value")


@dataclass(kw_only=True)
class PilotComputeDescription(_Description):
    """A pilot: a job that runs compute units.

    ``service_url`` is ``fork://localhost``, ``ssh://host``, ``slurm://localhost``,
    ``slurm+ssh://host``, or the same with pbs, lsf or flux. ``python`` is the Python interpreter
    that runs the agent on the machine, ``environment`` contains environment variables for it, and
    ``ssh_options`` are options of OpenSSH's client, such as ``Port=2222``.
    """

    OLD_NAMES: ClassVar[Mapping[str, str]] = {
        "allocation": "project",
        "total_cpu_count": "number_of_processes",
    }

    service_url: str
    number_of_processes: int = 1
    processes_per_node: int = 1
    working_directory: str = ""
    queue: str = ""
    project: str = ""
    walltime: float = 0
    userkey: str = ""
    python: str = ""
    environment: list[str] = field(default_factory=list)
    ssh_options: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_strings(
            "service_url", "working_directory", "queue", "project", "userkey", "python"
        )
        self._check_counts("number_of_processes", "processes_per_node")
        self._check_texts("ssh_options")
        self._check_environment()
        self._check_minutes("walltime")


@dataclass(kw_only=True)
class PilotDataDescription(_Description):
    """A place that stores data units; its ``service_url`` may be ssh, s3, http, file and so on."""

    SECRET: ClassVar[frozenset[str]] = frozenset(
        {"access_key_id", "secret_access_key", "session_token", "password"}
    )

    service_url: str
    size: int = 0
    userkey: str = ""
    access_key_id: str = ""
    secret_access_key: str = ""
    session_token: str = ""
    password: str = ""
    region: str = ""
    endpoint_url: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_strings("service_url", "userkey", "region", "endpoint_url", *self.SECRET)
        if not isinstance(self.options, Mapping):
            raise self._refuse("options", type(self.options).__name__, "a mapping")
        self.options = dict(self.options)
        self.service_url = absolute(self.service_url)
        try:
            json.dumps(self.options)
            if isinstance(self.size, str):
                parse_size(self.size)
            elif self.size is not None and int(self.size) < 0:
                raise ValueError
        except TypeError:
            raise self._refuse("options", "of other types", "texts, numbers and lists") from None
        except (ValueError, OverflowError):
            allowed = "a number of megabytes, or a text such as '500G'"
            raise self._refuse("size", self.size, allowed) from None

    def fields(self) -> dict[str, Any]:
        values = super().fields()
        values["endpoint_url"] = without_secrets(self.endpoint_url)
        values["options"] = {
            name: value for name, value in self.options.items() if not _is_secret(name)
        }
        return values

    def secrets(self) -> dict[str, Any]:
        found = super().secrets()
        if any(_is_secret(name) for name in self.options):
            found["options"] = self.options
        for name in ("service_url", "endpoint_url"):
            if (value := getattr(self, name)) != without_secrets(value):
                found[name] = value
        return found


def _is_secret(option: object) -> bool:
    return _OPTION_SECRET.search(str(option)) is not None


@dataclass(kw_only=True)
class DataUnitDescription(_Description):
    """Files that belong together. ``file_urls`` may be empty, for a unit that receives outputs."""

    file_urls: list[str] = field(default_factory=list)
    number_of_replicas: int = 1
    name: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_strings("name")
        self._check_texts("file_urls")
        self.file_urls = [absolute(url) for url in self.file_urls]
        self._check_counts("number_of_replicas")

    def fields(self) -> dict[str, Any]:
        return {**super().fields(), "file_urls": [_without_signature(u) for u in self.file_urls]}

    def secrets(self) -> dict[str, Any]:
        shown = self.fields()["file_urls"]
        return {} if shown == self.file_urls else {"file_urls": self.file_urls}


def _without_signature(url: str) -> str:
    """Return a URL of a file without a password, and without a query that may be a signature."""
    url = without_secrets(url)
    return _SIGNED.sub(HIDDEN, url) if url.startswith(("http://", "https://")) else url


@dataclass(kw_only=True)
class ComputeUnitDescription(_Description):
    """A command with its inputs and outputs.

    ``input_data`` is a list of URLs of data units, or of mappings of a URL to names or patterns of
    files; ``output_data`` is a list of mappings of a URL to the patterns of the files to store
    there. ``retries`` is the number of times that the unit may be run again, and ``walltime`` the
    limit of each attempt in minutes, with the staging of its data.
    """

    OLD_NAMES: ClassVar[Mapping[str, str]] = {"total_cpu_count": "number_of_processes"}

    executable: str
    arguments: list[str] = field(default_factory=list)
    environment: list[str] = field(default_factory=list)
    number_of_processes: int = 1
    spmd_variation: str = "single"
    working_directory: str = ""
    input: str = ""
    output: str = "stdout"
    error: str = "stderr"
    input_data: list[Any] = field(default_factory=list)
    output_data: list[Any] = field(default_factory=list)
    retries: int = 0
    walltime: float = 0
    depends_on: list[str] = field(default_factory=list)
    name: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_strings("working_directory", "input", "output", "error", "name")
        if not isinstance(self.executable, str) or not self.executable:
            raise self._refuse("executable", self.executable, "the name of a program")
        if isinstance(self.arguments, (list, tuple)):
            self.arguments = [
                str(one) if isinstance(one, (int, float)) else one for one in self.arguments
            ]
        self._check_texts("arguments", "depends_on")
        self._check_environment()
        self._check_counts("number_of_processes")
        if str(self.spmd_variation).lower() not in ("single", "mpi"):
            raise self._refuse("spmd_variation", self.spmd_variation, "'single' or 'mpi'")
        self.spmd_variation = str(self.spmd_variation).lower()
        if not isinstance(self.retries, int) or self.retries < 0:
            raise self._refuse("retries", self.retries, "a whole number")
        self._check_minutes("walltime")
        self.inputs()
        self.outputs()

    def inputs(self) -> list[tuple[str, list[str]]]:
        """Return pairs of the URL of a data unit and the patterns of files to read from it."""
        return self._pairs("input_data", self.input_data, ["*"])

    def outputs(self) -> list[tuple[str, list[str]]]:
        """Return pairs of the URL of a data unit and the patterns of files to store there."""
        return self._pairs("output_data", self.output_data, None)

    def _pairs(
        self, name: str, values: Any, default: list[str] | None
    ) -> list[tuple[str, list[str]]]:
        pairs = []
        for one in [values] if isinstance(values, (str, Mapping)) else values:
            if isinstance(one, str) and default is not None:
                pairs.append((one, default))
            elif isinstance(one, Mapping):
                for url, patterns in one.items():
                    listed = [patterns] if isinstance(patterns, str) else list(patterns)
                    pairs.append((str(url), [str(pattern) for pattern in listed]))
            else:
                raise self._refuse(name, one, "a URL, or {URL: [patterns]}")
        return pairs

    def to_json(self) -> str:
        """Return the fields as JSON, for the state."""
        return json.dumps(self.fields())
