"""The loader's configuration: ``config.yml``, secrets, the environment and the command line.

Each place overrides those before it. The keys of HDF Group's bucket loader have the same meaning
here as there; the other keys are dosna's own.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dosna.core.options import parse_options
from dosna.core.sizes import parse_size
from dosna.core.url import PASSWORD, without_password
from dosna.errors import ConfigurationError
from dosna.registry import needing

__all__ = ["KEYS", "SECRET", "Config", "Key"]

_LEVELS = ("debug", "info", "warning", "error")


def _key(default: Any, help: str, *, secret: bool = False, size: bool = False) -> Any:
    return field(
        default=default,
        repr=not secret,
        metadata={"help": help, "secret": secret, "size": size},
    )


@dataclass(frozen=True)
class Config:
    """The source of files, their target, and the way of loading; see ``docs/loader.md``.

    `Config.read` makes one; null means the default. Secrets are left out of its ``repr``.

    Raises
    ------
    ConfigurationError
        A value is not possible, or values contradict each other.
    """

    src_bucket: str = _key("", "bucket in S3; or folder, if it contains a '/'")
    src_prefix: str | None = _key(None, "load only files whose keys begin so")
    src_suffix: str | None = _key(None, "load only files whose keys end so, such as .h5")
    target: str | None = _key(None, "URL of a connection, such as hdf5:/data or s3://bucket/a")
    tgt_bucket: str | None = _key(None, "bucket of HSDS, if it is not HSDS's default")
    tgt_folder: str | None = _key(None, "folder of HSDS, instead of target")
    link_files: bool = _key(False, "store where the chunks are in the files, without their data")
    inventory: str = _key("sqlite:///loader.sqlite", "URL of the inventory's database")
    inventory_domain: str | None = _key(None, "not used: the inventory is a database")
    hs_username: str | None = _key(None, "user of HSDS")
    hs_password: str | None = _key(None, "password of that user", secret=True)
    public_read: bool = _key(False, "let everybody read the HSDS domains that are created")
    aws_s3_gateway: str | None = _key(None, "endpoint URL of the S3 server; Amazon's by default")
    aws_region: str | None = _key(None, "region of the S3 server")
    aws_access_key_id: str | None = _key(
        None, "access key; boto3 finds it by default", secret=True
    )
    aws_secret_access_key: str | None = _key(None, "secret key of the access key", secret=True)
    hsds_global: str | None = _key(None, "endpoint of HSDS")
    hsds_local: str | None = _key(None, "endpoint of HSDS that is used for writing")
    watchdog_sleep_time: float = _key(60.0, "seconds between two listings of the bucket")
    log_level: str = _key("info", "debug, info, warning or error")
    jobs: int = _key(4, "number of files that a process works on at a time")
    scheduler: str | None = _key(None, "address of a Dask scheduler whose workers do the work")
    lease_time: float = _key(60.0, "seconds after which a dead worker's files are free")
    max_attempts: int = _key(3, "number of attempts after which a file counts as failed")
    retry_time: float = _key(10.0, "seconds before the second attempt; doubled for each more")
    memory_limit: str | int = _key("512m", "most memory of a process for data", size=True)
    on_error: str = _key("raise", "'skip' leaves out arrays that a dataset cannot represent")
    chunk_size: str | None = _key(None, "size of chunks, such as '4 MiB'; the file's by default")
    compression: str | None = _key(None, "compression of datasets, such as gzip")
    heartbeat: str | None = _key(None, "file that is touched while the work goes on")

    def __post_init__(self) -> None:
        def wrong(key: str, wanted: str) -> ConfigurationError:
            return ConfigurationError(f"{key} must be {wanted}, not {getattr(self, key)!r}")

        if self.log_level.lower() not in _LEVELS:
            raise wrong("log_level", f"one of {', '.join(_LEVELS)}")
        if self.on_error not in ("raise", "skip"):
            raise wrong("on_error", "'raise' or 'skip'")
        for key in ("jobs", "max_attempts"):
            if getattr(self, key) < 1:
                raise wrong(key, "at least 1")
        for key in ("lease_time", "watchdog_sleep_time"):
            if not 0 < getattr(self, key) < float("inf"):
                raise wrong(key, "a positive number of seconds")
        if not 0 <= self.retry_time < float("inf"):
            raise wrong("retry_time", "a number of seconds")
        for key in ("memory_limit", "chunk_size"):
            value = getattr(self, key)
            if value is not None:
                try:
                    parse_size(value)
                except ValueError as error:
                    raise ConfigurationError(f"{key}: {error}") from None
        for key in set(KEYS) - SECRET - {"inventory"}:
            if PASSWORD.search(str(getattr(self, key))):
                # The password would appear in messages and in the inventory.
                raise ConfigurationError(
                    f"{key} has a password in it, which would be shown: give the secrets of S3 "
                    f"and HSDS as {', '.join(sorted(SECRET))}"
                )
        if self.target is not None and self.tgt_folder is not None:
            raise ConfigurationError(
                "target (a dosna URL) and tgt_folder (a folder of HSDS) exclude each other: give "
                "one of them"
            )
        if self.scheduler is not None and self.tgt_folder is not None:
            raise ConfigurationError(
                "scheduler is for a target (a dosna URL): domains of HSDS are written by the "
                "loader's own processes. Leave scheduler out, and start more of them"
            )

    @property
    def memory_bytes(self) -> int:
        """The `memory_limit` in bytes."""
        return parse_size(self.memory_limit)

    @property
    def in_folder(self) -> bool:
        """True if files come from a folder, False if they come from S3."""
        return not self.src_bucket.startswith("s3://") and (
            "/" in self.src_bucket or self.src_bucket in (".", "..")
        )

    def require(self, *keys: str) -> None:
        """Raise ConfigurationError if one of these keys was not given."""
        for key in keys:
            if not getattr(self, key):
                raise ConfigurationError(
                    f"{key} is missing: set it in config.yml, as {key.upper()} of the environment "
                    f"or by --{key.replace('_', '-')}"
                )

    def shown(self) -> dict[str, Any]:
        """Return every value, with stars in place of secrets."""
        found = {key: getattr(self, key) for key in KEYS}
        for key, value in found.items():
            if key in SECRET and value is not None:
                found[key] = "***"
        found["inventory"] = without_password(self.inventory)
        return found

    def __repr__(self) -> str:
        values = ", ".join(f"{key}={value!r}" for key, value in self.shown().items())
        return f"Config({values})"

    @property
    def s3_keys(self) -> tuple[str, str] | None:
        """The access key and the secret key of S3; None if boto3 finds them.

        Those in the environment come first, as a session token may be there that belongs to them.
        """
        keys = self.aws_access_key_id, self.aws_secret_access_key
        if keys == (None, None) or os.environ.get("AWS_ACCESS_KEY_ID"):
            return None
        if keys[0] is None or keys[1] is None:
            raise ConfigurationError(
                "one key of S3 is missing: give both aws_access_key_id and aws_secret_access_key"
            )
        return keys[0], keys[1]

    @classmethod
    def read(
        cls,
        config: str | os.PathLike[str] | None = None,
        *,
        override: str | os.PathLike[str] | None = None,
        secrets: str | os.PathLike[str] | None = None,
        environ: Mapping[str, str] | None = None,
        **given: Any,
    ) -> Config:
        """Read the configuration from all its places, the weakest first.

        The places are the defaults; ``config.yml``; ``override.yml`` beside it; the file of
        secrets; the environment, where keys are in capitals (and HSDS_ENDPOINT is hsds_global);
        and `given`, as on the command line.

        Parameters
        ----------
        config : path, optional
            The configuration file; by default ``config.yml`` of the present folder, if it exists.
        override : path, optional
            A file that overrides it; by default ``override.yml`` beside it, if it exists.
        secrets : path, optional
            The file of secrets; by default the one that DOSNA_LOADER_SECRETS names.
        environ : mapping, optional
            The environment; `os.environ` by default.
        **given
            Values of keys; None means not given.

        Returns
        -------
        Config

        Raises
        ------
        ConfigurationError
            A file is missing or is not YAML, a key is unknown, a value has another type, or a
            secret is in a place that others can read.
        """
        environ = os.environ if environ is None else environ
        values: dict[str, Any] = {}
        path = os.fspath(config) if config is not None else "config.yml"
        if config is not None or os.path.exists(path):
            _take(values, path, _from_yaml(path))
        beside = os.path.join(os.path.dirname(path), "override.yml")
        changed = os.fspath(override) if override is not None else beside
        if override is not None or os.path.exists(changed):
            _take(values, changed, _from_yaml(changed))
        hidden = os.fspath(secrets) if secrets is not None else environ.get("DOSNA_LOADER_SECRETS")
        if hidden:
            _take(values, hidden, _from_yaml(hidden), secret=True)
        found = {key: environ[key.upper()] for key in KEYS if environ.get(key.upper())}
        if environ.get("HSDS_ENDPOINT"):
            found.setdefault("hsds_global", environ["HSDS_ENDPOINT"])
        _take(values, "the environment", found, secret=True)
        _take(values, "the arguments", {k: v for k, v in given.items() if v is not None})
        return cls(**values)


@dataclass(frozen=True)
class Key:
    """A key of the configuration: its help, and its type and default as text."""

    help: str
    type: str
    default: str


KEYS = {
    f.name: Key(f.metadata["help"], str(f.type), "null" if f.default is None else str(f.default))
    for f in dataclasses.fields(Config)
}
"""All keys, in the order of the documentation."""

SECRET = frozenset(f.name for f in dataclasses.fields(Config) if f.metadata["secret"])
"""The keys that only the environment and the file of secrets may have."""


def _take(
    values: dict[str, Any], where: str, found: Mapping[str, Any], secret: bool = False
) -> None:
    """Override the values of weaker places with those found at a place."""
    for key, value in found.items():
        if value is None:
            values.pop(key, None)
            continue
        reveals = key in SECRET or (key == "inventory" and PASSWORD.search(str(value)))
        if reveals and not secret:
            raise ConfigurationError(
                f"{where} has a secret, {key}: put it into the environment as {key.upper()}, or "
                "into a file of secrets (--secrets)"
            )
        try:
            values.update(parse_options(_SIGNATURE, [f"{key}={value}"]))
        except ConfigurationError as error:
            # The value given for a secret is not repeated.
            text = f"{key} has a wrong value" if reveals else str(error)
            raise ConfigurationError(f"{where}: {text}") from None


_SIGNATURE = inspect.signature(Config)


def _from_yaml(path: str) -> dict[str, Any]:
    with needing(f"reading {path} needs", "loader"):
        import yaml

    class Texts(yaml.SafeLoader):
        """A loader that keeps 0123, 1.10, 12:30 and 2024_01 as text, and not as numbers."""

    Texts.yaml_implicit_resolvers = {
        first: [pair for pair in known if pair[0].endswith(":null")]
        for first, known in Texts.yaml_implicit_resolvers.items()
    }
    try:
        with open(path, encoding="utf-8") as file:
            found = yaml.load(file, Texts)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        # YAML's own message would repeat the text of the file, which may be secret.
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        raise ConfigurationError(f"{path} is not YAML{line}: write lines of KEY: VALUE") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ConfigurationError(
            f"{path} does not have keys and values: write lines of KEY: VALUE"
        )
    for key, value in found.items():
        if isinstance(value, (dict, list)):
            raise ConfigurationError(f"{path}: {key} must be a single value, not several")
    return {str(key): value for key, value in found.items()}
