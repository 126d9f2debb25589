"""Users and their tokens: a refresh token that a user keeps, and access tokens that expire."""

from __future__ import annotations

import hmac
import os
import re
import secrets
import time
from pathlib import Path
from typing import Any

import jwt

from dosna.delivery.settings import Settings
from dosna.delivery.state.users import Users
from dosna.errors import ConfigurationError

__all__ = ["NOBODY", "Tokens"]

NOBODY = "local"
"""The only user of a service without users."""

_ALGORITHM = "HS256"
_ACCESS_SECONDS = 3600
_USER = re.compile(r"[\w.@+-]{1,100}")


def _check_user(name: str) -> str:
    """Return the name of a user, if it is legal."""
    if not _USER.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} is not a legal name of a user: use letters, digits and '.@+-_'"
        )
    return name


class Tokens:
    """The tokens of a service.

    Parameters
    ----------
    settings : Settings
        The settings; the key is in the folder of the state.
    users : Users
        The users.
    """

    def __init__(self, settings: Settings, users: Users) -> None:
        self._users = users
        self._key = _key(Path(settings.state, "key"))

    def refresh_token(self, user: str) -> str:
        """Return a new refresh token for a user; earlier ones become invalid."""
        claims = {"sub": _check_user(user), "use": "refresh", "jti": self._users.renew(user)}
        return jwt.encode(claims, self._key, _ALGORITHM)

    def access_token(self, refresh: str) -> str | None:
        """Return a token for an hour, or None if the refresh token is invalid."""
        claims = self._claims(refresh, "refresh")
        if claims is None or not self._is_present(claims):
            return None
        now = int(time.time())
        made = {**claims, "use": "access", "iat": now, "exp": now + _ACCESS_SECONDS}
        return jwt.encode(made, self._key, _ALGORITHM)

    def user(self, access: str) -> str | None:
        """Return the user of an access token, or None if it is invalid."""
        claims = self._claims(access, "access")
        return str(claims["sub"]) if claims is not None and self._is_present(claims) else None

    def _claims(self, token: str, use: str) -> dict[str, Any] | None:
        needed = ["sub", "jti", "use"] + (["exp"] if use == "access" else [])
        try:
            found = jwt.decode(
                token, self._key, algorithms=[_ALGORITHM], options={"require": needed}
            )
        except jwt.InvalidTokenError:
            return None
        return found if found["use"] == use else None

    def _is_present(self, claims: dict[str, Any]) -> bool:
        """Return whether a token has not been replaced and its user has not been removed."""
        known = self._users.token(claims["sub"])
        given = str(claims["jti"]).encode()
        return known is not None and hmac.compare_digest(known.encode(), given)


def _key(path: Path) -> str:
    """Return the key that signs tokens, which the first service creates."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        found = path.read_text()
        if len(found) < 32:
            raise ConfigurationError(
                f"{path} is not the key of a service: delete it, and give users new tokens"
            ) from None
        return found
    with os.fdopen(file, "w") as out:
        found = secrets.token_urlsafe(48)
        out.write(found)
    return found
