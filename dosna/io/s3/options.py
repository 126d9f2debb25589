"""The options of an S3 server, for everything that reaches one."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

from dosna.core.options import check_count, check_seconds
from dosna.errors import ConfigurationError

__all__ = ["S3Options", "takes_s3_options"]

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class S3Options:
    """The options of an S3 server, which may be sent to other processes.

    Parameters
    ----------
    endpoint_url : str, optional
        The URL of the server, such as ``https://s3.example.org``. The default is boto3's, or
        Amazon's.
    profile_name : str
        The name of a section of ``~/.aws/credentials``. 'default' also looks into the
        environment, as boto3 does without a name.
    region_name : str, optional
        The region of the server; boto3's by default.
    verify : bool or str
        Whether the server's certificate is verified, or the path of a PEM file with the
        authorities to trust.
    timeout : float
        The time for one request with all of its bytes, in seconds.
    retries : int
        The number of times that a request is repeated after a transient failure, with growing
        pauses of at most 5 seconds. It is not used up for `timeout` seconds by answers that only
        ask for fewer requests, such as SlowDown.
    keys : tuple of str, optional
        The access key and the secret key, and a session's token if there is one. By default,
        boto3 finds them.

    Raises
    ------
    ConfigurationError
        `timeout` or `retries` is not valid.
    """

    endpoint_url: str | None = None
    profile_name: str = "default"
    region_name: str | None = None
    verify: bool | str = True
    timeout: float = 30.0
    retries: int = 5
    keys: tuple[str, ...] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_seconds("timeout", self.timeout)
        check_count("retries", self.retries)

    def portable(self) -> dict[str, Any]:
        """Return the options to store with a linked dataset: no defaults and no secrets.

        Raises
        ------
        ConfigurationError
            `endpoint_url` contains a user or a password.
        """
        kept = {k: v for k, v in asdict(self).items() if v != getattr(S3Options, k)}
        kept.pop("keys", None)
        # The environment of a reader may name no endpoint, or another one.
        endpoint = self.endpoint_url or os.environ.get("AWS_ENDPOINT_URL_S3")
        endpoint = endpoint or os.environ.get("AWS_ENDPOINT_URL")
        if endpoint:
            kept["endpoint_url"] = endpoint
            if "@" in endpoint.partition("://")[2].partition("/")[0]:
                raise ConfigurationError(
                    "endpoint_url contains a user or a password, which would be stored with the "
                    "link: put keys into ~/.aws/credentials or the environment"
                )
        return kept


def takes_s3_options(function: F) -> F:
    """Declare the options of a server as keywords of a function that takes ``**options``.

    `inspect.signature`, and with it the options of URLs and of the command line, then has the
    fields of `S3Options` without `keys` in place of ``**options``.
    """
    declared = inspect.signature(function)
    own = [p for p in declared.parameters.values() if p.kind is not p.VAR_KEYWORD]
    keywords = [
        inspect.Parameter(
            f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=f.type
        )
        for f in fields(S3Options)
        if f.name != "keys"
    ]
    function.__signature__ = declared.replace(  # type: ignore[attr-defined]
        parameters=[*own, *keywords]
    )
    return function
