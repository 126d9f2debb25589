"""Why requests to S3 fail: what two clients and many servers say, in words of dosna.

None of what was sent is repeated here: servers' answers can contain what was signed.
"""

from __future__ import annotations

import os
import re

import botocore.exceptions as boto

from dosna.errors import (
    ConfigurationError,
    ConnectionError,
    DosnaError,
    StorageError,
    StoreTimeoutError,
)

_TRANSIENT = {408, 429, 500, 502, 503, 504}
_TRANSIENT_CODES = {
    "ConditionalRequestConflict",
    "InternalError",
    "OperationAborted",
    "RequestTimeout",
    "SlowDown",
}
_NEVER_DONE = {429, 503}
_WRONG_KEY = {
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
}

_UNREACHABLE = "the endpoint cannot be reached"
_TIMED_OUT = "no answer in time"
_CUT = "the connection broke"
_PASSING = {_UNREACHABLE, _TIMED_OUT, _CUT}


class Failure(Exception):
    """Why one request failed, without anything of what was sent."""

    def __init__(
        self, kind: str, status: int = 0, code: str = "", error: type[DosnaError] = StorageError
    ) -> None:
        super().__init__(kind, status, code)
        self.kind = kind
        self.status = status
        self.code = code
        self.error = error

    def __str__(self) -> str:
        found = " ".join(filter(None, (self.code, f"HTTP {self.status}" if self.status else "")))
        return f"{self.kind} ({found})" if found else self.kind

    @property
    def transient(self) -> bool:
        """Whether the same request may work later."""
        if self.status:
            return self.status in _TRANSIENT or self.code in _TRANSIENT_CODES
        return self.kind in _PASSING

    @property
    def may_be_done(self) -> bool:
        """Whether a write may have happened, or may still happen."""
        return self.transient and self.status not in _NEVER_DONE and self.kind != _UNREACHABLE

    @property
    def conflict(self) -> bool:
        """Whether a condition on what is there did not hold."""
        return self.status == 412 or self.code == "NoSuchKey"


_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_KIND = re.compile(r"HttpError \{\s*kind: (\w+)")


def obstore_failure(text: str) -> Failure:
    """Tell from the words of obstore's error what happened: it has nothing else."""
    status, code, kind = _STATUS.search(text), _CODE.search(text), _KIND.search(text)
    if status is not None:
        return _answered(int(status[1]), code[1] if code else "")
    if "certificate" in text.lower():
        return _bad_certificate()
    if kind is not None and kind[1] == "Connect":
        return Failure(_UNREACHABLE, error=ConnectionError)
    if (kind is not None and kind[1] == "Timeout") or "TimedOut" in text:
        return Failure(_TIMED_OUT, error=StoreTimeoutError)
    if kind is not None or "error decoding response body" in text or "HTTP error" in text:
        return Failure(_CUT)
    return Failure(f"the request cannot be made: {text.splitlines()[0]}")


def boto_failure(error: boto.BotoCoreError | boto.ClientError) -> Failure:
    """Tell what an error of boto3 means."""
    if isinstance(error, boto.ClientError):
        answer = error.response
        return _answered(
            answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0),
            answer.get("Error", {}).get("Code", ""),
        )
    if isinstance(error, boto.SSLError):
        return _bad_certificate()
    if isinstance(error, boto.ReadTimeoutError):
        return Failure(_TIMED_OUT, error=StoreTimeoutError)
    if isinstance(error, (boto.EndpointConnectionError, boto.ConnectTimeoutError)):
        return Failure(_UNREACHABLE, error=ConnectionError)
    if isinstance(error, boto.HTTPClientError):
        return Failure(_CUT)
    return Failure(f"the request cannot be made ({type(error).__name__})")


def _bad_certificate() -> Failure:
    return Failure(
        "its certificate does not verify: trust its authority by verify='authorities.pem'",
        error=ConnectionError,
    )


def _answered(status: int, code: str) -> Failure:
    if code in _WRONG_KEY:
        return Failure("the credentials are refused", status, code, ConnectionError)
    if status in (401, 403):
        return Failure("access is denied", status, code)
    return Failure("the request failed", status, code)


def setup_error(error: Exception, profile: str | None) -> DosnaError:
    """Give the error of a session that cannot be made."""
    if isinstance(error, boto.ProfileNotFound):
        return ConfigurationError(
            f"there is no profile {profile or os.environ.get('AWS_PROFILE')!r} in "
            "~/.aws/credentials or ~/.aws/config: name another by profile_name="
        )
    if isinstance(error, (boto.NoCredentialsError, boto.PartialCredentialsError)):
        return ConnectionError(
            "no S3 credentials were found: put them into ~/.aws/credentials, or set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    return ConfigurationError(f"S3 cannot be set up: {type(error).__name__}: {error}")
