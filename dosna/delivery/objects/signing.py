"""Verification of the signatures of S3 requests: version 4, and version 2 for presigned URLs.

The formats are those of "Authenticating Requests (AWS Signature Version 4)" and "Signing and
Authenticating REST Requests" in the documentation of Amazon S3. boto3 uses version 2 for presigned
URLs of other servers than Amazon's.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import parse_qsl, quote

__all__ = ["Asked", "SignatureError", "access_key_of", "check"]

_SKEW = 900.0
"""Seconds that a client's clock may be wrong."""
_MOST_V4 = 7 * 86400
_CREDENTIAL = re.compile(r"([A-Za-z0-9]{1,64})/(\d{8})/([a-z0-9-]{0,40})/s3/aws4_request")
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 +Credential=([^,\s]+), *SignedHeaders=([a-z0-9;-]+), *"
    r"Signature=([0-9a-f]{64})"
)
_SECONDS = re.compile(r"[0-9]{1,12}")
_EMPTY = hashlib.sha256(b"").hexdigest()
_IN_V2 = frozenset(("location", "versionId", "uploads", "partNumber", "acl", "policy"))


class SignatureError(Exception):
    """Raised for a request with an invalid signature.

    Parameters
    ----------
    code : str
        The code of S3.
    message : str
        The reason.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Asked:
    """A request as it was sent.

    Parameters
    ----------
    method : str
        The method.
    path : str
        The path with its escapes.
    query : str
        The query with its escapes.
    headers : mapping of str to str
        The headers; names are in lower case.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]

    def pairs(self) -> list[tuple[str, str]]:
        """Return the names and values of the query."""
        return parse_qsl(self.query, keep_blank_values=True)


def access_key_of(asked: Asked) -> str:
    """Return the access key that a request names.

    Raises
    ------
    SignatureError
        It is not signed.
    """
    query = dict(asked.pairs())
    found = query.get("AWSAccessKeyId", "")
    if not found:
        text = query.get("X-Amz-Credential", "")
        if not text and (
            parts := _AUTHORIZATION.fullmatch(asked.headers.get("authorization", ""))
        ):
            text = parts[1]
        credential = _CREDENTIAL.fullmatch(text)
        found = credential[1] if credential else ""
    if not found:
        raise SignatureError("AccessDenied", "the request is not signed")
    return found


def check(asked: Asked, secret: str, clock: Callable[[], float] = time.time) -> None:
    """Check the signature of a request.

    Parameters
    ----------
    asked : Asked
        The request.
    secret : str
        The secret key.
    clock : callable
        The clock, in seconds since 1970.

    Raises
    ------
    SignatureError
        The signature is wrong, or too old.
    """
    query = dict(asked.pairs())
    now = clock()
    if "AWSAccessKeyId" in query:
        wanted, given = _version_2(asked, query, secret, now), query.get("Signature", "")
    elif "X-Amz-Signature" in query:
        wanted, given = _version_4_url(asked, query, secret, now), query["X-Amz-Signature"]
    else:
        wanted, given = _version_4_headers(asked, secret, now)
    if not hmac.compare_digest(wanted.encode(), given.encode()):
        raise SignatureError("SignatureDoesNotMatch", "the signature is not that of the key")


def _version_2(asked: Asked, query: Mapping[str, str], secret: str, now: float) -> str:
    expires = query.get("Expires", "")
    if not _SECONDS.fullmatch(expires) or int(expires) < now:
        raise SignatureError("AccessDenied", "the URL has expired")
    amz = sorted(
        (name, value.strip()) for name, value in asked.headers.items() if name.startswith("x-amz-")
    )
    parts = [n if not v else f"{n}={v}" for n, v in sorted(query.items()) if _matters(n)]
    resource = asked.path + ("?" + "&".join(parts) if parts else "")
    text = "\n".join(
        [
            asked.method,
            asked.headers.get("content-md5", ""),
            asked.headers.get("content-type", ""),
            expires,
            *(f"{name}:{value}" for name, value in amz),
            resource,
        ]
    )
    made = hmac.new(secret.encode(), text.encode(), hashlib.sha1).digest()
    return base64.b64encode(made).decode()


def _matters(name: str) -> bool:
    return name in _IN_V2 or name.startswith("response-")


def _version_4_url(asked: Asked, query: Mapping[str, str], secret: str, now: float) -> str:
    stamp, lasts = query.get("X-Amz-Date", ""), query.get("X-Amz-Expires", "")
    begins = _time(stamp)
    if not _SECONDS.fullmatch(lasts) or not 0 < int(lasts) <= _MOST_V4:
        raise SignatureError("AuthorizationQueryParametersError", "X-Amz-Expires is not valid")
    if now > begins + int(lasts):
        raise SignatureError("AccessDenied", "the URL has expired")
    if query.get("X-Amz-Algorithm") != "AWS4-HMAC-SHA256":
        raise SignatureError("AuthorizationQueryParametersError", "the algorithm is unknown")
    others = [(name, value) for name, value in asked.pairs() if name != "X-Amz-Signature"]
    signed = query.get("X-Amz-SignedHeaders", "")
    return _version_4(
        asked, others, signed, "UNSIGNED-PAYLOAD", stamp, query["X-Amz-Credential"], secret
    )


def _version_4_headers(asked: Asked, secret: str, now: float) -> tuple[str, str]:
    parts = _AUTHORIZATION.fullmatch(asked.headers.get("authorization", ""))
    if parts is None:
        raise SignatureError("AccessDenied", "the request is not signed")
    stamp = asked.headers.get("x-amz-date", "")
    if abs(now - _time(stamp)) > _SKEW:
        raise SignatureError("RequestTimeTooSkewed", "the clocks differ by too much")
    payload = asked.headers.get("x-amz-content-sha256", _EMPTY)
    if payload not in (_EMPTY, "UNSIGNED-PAYLOAD"):
        raise SignatureError("AccessDenied", "the request has a body")
    credential, signed, given = parts.groups()
    return _version_4(asked, asked.pairs(), signed, payload, stamp, credential, secret), given


def _version_4(
    asked: Asked,
    query: list[tuple[str, str]],
    signed: str,
    payload: str,
    stamp: str,
    credential: str,
    secret: str,
) -> str:
    """Return the signature of version 4 that a request should have."""
    scope = _CREDENTIAL.fullmatch(credential)
    names = signed.split(";")
    if scope is None or scope[2] != stamp[:8]:
        raise SignatureError("AuthorizationHeaderMalformed", "the credential is malformed")
    if "host" not in names:
        raise SignatureError("AccessDenied", "the header host is not signed")
    pairs = sorted((quote(n, safe="-_.~"), quote(v, safe="-_.~")) for n, v in query)
    canonical = "\n".join(
        [
            asked.method,
            asked.path,
            "&".join(f"{name}={value}" for name, value in pairs),
            *(f"{name}:{' '.join(asked.headers.get(name, '').split())}" for name in names),
            "",
            signed,
            payload,
        ]
    )
    text = "\n".join(
        [
            "AWS4-HMAC-SHA256",
            stamp,
            credential.partition("/")[2],
            hashlib.sha256(canonical.encode()).hexdigest(),
        ]
    )
    key = b"AWS4" + secret.encode()
    for part in (scope[2], scope[3], "s3", "aws4_request", text):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key.hex()


def _time(stamp: str) -> float:
    try:
        return datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise SignatureError("AccessDenied", "the request has no time") from None
