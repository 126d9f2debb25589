"""The state of a service: users, datasets, requests, and a row for each file, in a database.

Every change is one transaction, and can be repeated. One process, the service, makes all changes.
"""

from __future__ import annotations

import os
from contextlib import suppress

from dosna.delivery.state.datasets import Datasets
from dosna.delivery.state.files import Files
from dosna.delivery.state.requests import Requests
from dosna.delivery.state.tables import metadata
from dosna.delivery.state.users import Users
from dosna.io.database import Database

__all__ = ["State"]


class State:
    """The tables of a service.

    Parameters
    ----------
    url : str
        The URL of the database.

    Attributes
    ----------
    users : Users
    datasets : Datasets
    requests : Requests
    files : Files
    """

    def __init__(self, url: str) -> None:
        self.database = Database(url, "the database of the service", "delivery,postgresql")
        _make_private(url)
        self.users = Users(self.database)
        self.datasets = Datasets(self.database)
        self.requests = Requests(self.database)
        self.files = Files(self.database, self.requests)

    def prepare(self) -> None:
        """Create the tables that do not exist, and columns that earlier releases had not."""
        with self.database.change() as connection:
            self.database.create_tables(connection, metadata)
            self.database.add_columns(connection, metadata)

    def close(self) -> None:
        """Close the connections to the database."""
        self.database.close()


def _make_private(url: str) -> None:
    """Create an SQLite database as a file that only this user can read: it contains keys."""
    if url.startswith("sqlite:///"):
        with suppress(OSError):
            path = url.removeprefix("sqlite:///").partition("?")[0]
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
