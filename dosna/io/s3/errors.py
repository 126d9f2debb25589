"""Failures of requests to S3: the errors of two clients and many servers, in the words of dosna.

Messages repeat nothing of what was sent, because the answers of servers can contain what was
signed. Only the status, the code and the region of an answer are used.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import botocore.exceptions as boto
import obstore.exceptions as obs
from botocore.parsers import ResponseParserError

from dosna.errors import (
    ConfigurationError,
    ConnectionError,
    DosnaError,
    StorageError,
    StoreTimeoutError,
)
from dosna.io import failure
from dosna.io.failure import CUT, TIMED_OUT, UNREACHABLE, pause_of

_SLOWER_CODES = {
    "RequestLimitExceeded",
    "SlowDown",
    "SlowDownRead",
    "SlowDownWrite",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
}
"""Codes by which servers ask for fewer requests."""

_TRANSIENT_CODES = {
    "ConditionalRequestConflict",
    "InternalError",
    "OperationAborted",
    "RequestTimeout",
    *_SLOWER_CODES,
}
_REFUSED = "the credentials are refused"
_EXPIRED = "the credentials have expired: get new ones"
_WRONG_KEY = {
    "ExpiredToken": _EXPIRED,
    "InvalidAccessKeyId": _REFUSED,
    "InvalidToken": _REFUSED,
    "RequestExpired": "the clocks of this machine and of the server differ too much: set this one",
    "RequestTimeTooSkewed": (
        "the clocks of this machine and of the server differ too much: set this one"
    ),
    "SignatureDoesNotMatch": (
        f"{_REFUSED}: the secret key is not that of the access key, or a proxy changes requests"
    ),
    "TokenRefreshRequired": _EXPIRED,
}
"""Codes of answers about the user who makes a request, and not about what is requested."""

_ELSEWHERE = {
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "PermanentRedirect",
    "TemporaryRedirect",
}


class Failure(failure.Failure):
    """The reason why one request to S3 failed. Its `detail` is the code of S3.

    Parameters
    ----------
    kind, status, code, error
        See `dosna.io.failure.Failure`.
    region : str
        The region that the answer names.
    """

    def __init__(
        self,
        kind: str,
        status: int = 0,
        code: str = "",
        error: type[DosnaError] = StorageError,
        region: str = "",
    ) -> None:
        super().__init__(kind, status, code, error)
        self.region = region

    @property
    def code(self) -> str:
        """The code of S3, such as ``NoSuchKey``; empty if the answer had none."""
        return self.detail

    @property
    def unclear(self) -> bool:
        """True if the server refused without a reason, as answers to HEAD have no body."""
        if self.code in _ELSEWHERE:
            return not self.region
        return not self.code and (300 <= self.status < 400 or self.status in (400, 401, 403, 404))

    @property
    def transient(self) -> bool:
        """True if the same request may succeed later."""
        return super().transient or self.code in _TRANSIENT_CODES

    @property
    def throttled(self) -> bool:
        """True if the server says that there are too many requests, and not that it fails."""
        return super().throttled or (self.busy and self.code in _SLOWER_CODES)

    @property
    def gone(self) -> bool:
        """True if an S3 server said that the object or bucket does not exist.

        The 404 of a web server does not prove that.
        """
        return self.status == 404 and self.code.startswith("NoSuch")

    @property
    def conflict(self) -> bool:
        """True if a condition on the stored object did not hold."""
        return self.status == 412 or self.code == "NoSuchKey"


class NotS3Error(boto.BotoCoreError):  # type: ignore[misc]  # botocore has no types
    """An answer to one of boto3's requests that is not from an S3 server."""

    fmt = "the answer is not from an S3 server"


_STATUS = re.compile(r"status code: (\d{3})")
_REGION = re.compile(r"<Region>([a-z0-9-]{1,40})</Region>")
_PLACE = re.compile(r"\bs3[.-]([a-z]{2}(?:-[a-z]+)+-\d)\.")
_STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (obs.PreconditionError, 412),
    (FileNotFoundError, 404),
    (obs.NotFoundError, 404),
    (obs.PermissionDeniedError, 403),
    (obs.UnauthenticatedError, 401),
)
"""The statuses that obstore's classes stand for. AlreadyExistsError stands for 409 and 412."""
_CODE = re.compile(r"<Code>(\w+)</Code>")
_KIND = re.compile(r"HttpError \{\s*kind: (\w+)")


def obstore_failure(error: Exception) -> Failure:
    """Return the failure for an error of obstore.

    Its class tells some statuses. All else, such as the code, is only in its message.
    """
    text = str(error)
    status, code, kind = _STATUS.search(text), _CODE.search(text), _KIND.search(text)
    number = next((number for kinds, number in _STATUSES if isinstance(error, kinds)), 0)
    if not number and status is not None:
        number = int(status[1])
    if not number and isinstance(error, obs.AlreadyExistsError):
        number = 412
    if number:
        region = _REGION.search(text) or _PLACE.search(text)
        return _answered(number, code[1] if code else "", region[1] if region else "")
    if "BareRedirect" in text:
        return _answered(301, "PermanentRedirect")
    if "ETag Header missing" in text or "Content-Length Header missing" in text:
        return not_s3()
    if "InvalidContentType" in text:
        return _plain_http()
    if "certificate" in text.lower():
        return _bad_certificate()
    if kind is not None and kind[1] == "Connect":
        return Failure(UNREACHABLE, error=ConnectionError)
    if (kind is not None and kind[1] == "Timeout") or "TimedOut" in text:
        return Failure(TIMED_OUT, error=StoreTimeoutError)
    if kind is not None or "error decoding response body" in text or "HTTP error" in text:
        return Failure(CUT)
    return Failure(f"the request cannot be made: {text.splitlines()[0]}")


def boto_failure(error: Exception) -> Failure:
    """Return the failure for an error of boto3."""
    if isinstance(error, boto.ClientError):
        answer = error.response
        found, meta = answer.get("Error", {}), answer.get("ResponseMetadata", {})
        places = (
            f"<Region>{found.get('Region')}</Region>",
            f"<Region>{meta.get('HTTPHeaders', {}).get('x-amz-bucket-region')}</Region>",
            str(found.get("Endpoint")),
        )
        regions = [r[1] for p in places if (r := _REGION.search(p) or _PLACE.search(p))]
        status, code = meta.get("HTTPStatusCode", 0), found.get("Code", "")
        # If an answer has no body, boto3 takes its status for the code.
        failure = _answered(status, "" if code.isdecimal() else code, "".join(regions[:1]))
        if failure.busy:
            failure.pause = pause_of(meta.get("HTTPHeaders", {}))
        return failure
    if isinstance(error, (NotS3Error, ResponseParserError)):
        return not_s3()
    if isinstance(error, boto.SSLError):
        return _plain_http() if "WRONG_VERSION_NUMBER" in str(error) else _bad_certificate()
    if isinstance(error, boto.ReadTimeoutError):
        return Failure(TIMED_OUT, error=StoreTimeoutError)
    if isinstance(error, (boto.EndpointConnectionError, boto.ConnectTimeoutError)):
        return Failure(UNREACHABLE, error=ConnectionError)
    if isinstance(error, boto.HTTPClientError):
        return Failure(CUT)
    return Failure(f"the request cannot be made ({type(error).__name__})")


def refusals(answer: Mapping[str, Any]) -> list[tuple[str, Failure]]:
    """Return the keys that the answer to DeleteObjects says were not deleted, and why."""
    meta, found = answer.get("ResponseMetadata", {}), []
    for error in answer.get("Errors", ()):
        code = error.get("Code", "")
        failure = _answered(503 if code in _SLOWER_CODES else 0, code)
        if failure.busy:
            failure.pause = pause_of(meta.get("HTTPHeaders", {}))
        found.append((error["Key"], failure))
    return found


def _bad_certificate() -> Failure:
    return Failure(
        "its certificate does not verify: trust its authority by verify='authorities.pem'",
        error=ConnectionError,
    )


def _plain_http() -> Failure:
    return Failure(
        "the endpoint does not speak https: give its endpoint_url= with http://",
        error=ConnectionError,
    )


def not_s3() -> Failure:
    """Return the failure of a request that was not answered by an S3 server."""
    return Failure(
        "the answer is not from an S3 server, but perhaps from a web server, a proxy or a login "
        "page: check endpoint_url= and the network",
        200,
        error=ConnectionError,
    )


def _answered(status: int, code: str, region: str = "") -> Failure:
    if code in _WRONG_KEY:
        return Failure(_WRONG_KEY[code], status, code, ConnectionError)
    if code in _ELSEWHERE or 300 <= status < 400:
        where = f"in the region {region!r}" if region else "in another region"
        hint = f"region_name={region!r}" if region else "its own by region_name="
        kind = f"the bucket is {where}, or at another endpoint: give {hint}"
        return Failure(kind, status, code, region=region)
    if status in (401, 403):
        return Failure("access is denied", status, code)
    return Failure("the request failed", status, code)


def setup_error(error: Exception, profile: str | None) -> DosnaError:
    """Return the error for a session that cannot be made."""
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
