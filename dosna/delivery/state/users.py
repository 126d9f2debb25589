"""The users, each with the identifier of the valid token."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence

import sqlalchemy as sa

from dosna.delivery.state.requests import Row
from dosna.delivery.state.tables import users
from dosna.io.database import Database

__all__ = ["Users"]


class Users:
    """The table of users.

    Parameters
    ----------
    database : Database
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def renew(self, name: str) -> str:
        """Add a user, or replace the user's token; return the identifier of the new one."""
        token = secrets.token_urlsafe(24)
        row = {"token": token, "created": time.time()}
        with self._database.change() as connection:
            connection.execute(self._database.insert_new(users, "name"), {"name": name, **row})
            connection.execute(sa.update(users).where(users.c.name == name).values(row))
        return token

    def token(self, name: str) -> str | None:
        """Return the identifier of a user's token, or None if there is no such user."""
        with self._database.look() as connection:
            query = sa.select(users.c.token).where(users.c.name == name)
            found = connection.execute(query).scalar()
        return None if found is None else str(found)

    def remove(self, name: str) -> bool:
        """Remove a user and invalidate the tokens; return whether there was one."""
        with self._database.change() as connection:
            return bool(connection.execute(sa.delete(users).where(users.c.name == name)).rowcount)

    def all(self) -> Sequence[Row]:
        """Return all users."""
        with self._database.look() as connection:
            return connection.execute(sa.select(users).order_by(users.c.name)).all()
