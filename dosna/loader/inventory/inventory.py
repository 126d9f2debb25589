"""The inventory, for watchers, workers and people."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from dosna.errors import ConfigurationError
from dosna.io.database import Database
from dosna.io.texts import cleaned
from dosna.loader.bucket import Entry
from dosna.loader.inventory import claims, tables
from dosna.loader.inventory.adding import add
from dosna.loader.inventory.rows import Claim, Counts, Row
from dosna.loader.inventory.tables import (
    DIFFERENT,
    DONE,
    FAILED,
    NOT_YET,
    PENDING,
    RUNNING,
    Phase,
    files,
    now,
)

__all__ = ["Inventory"]

_MOST_PAUSE = 3600.0


class Inventory:
    """The files that are to be loaded, in a database.

    Parameters
    ----------
    url : str
        The URL of the database: ``sqlite:///path`` for workers of one machine,
        ``postgresql://user@host/database`` for those of many.

    Raises
    ------
    ConfigurationError
        The URL names another kind of database, or is not a URL.
    MissingDependencyError
        The driver of that database is not installed.
    """

    def __init__(self, url: str) -> None:
        self._database = Database(url, "inventory")

    def __repr__(self) -> str:
        return f"<Inventory {self._database.shown}>"

    def __enter__(self) -> Inventory:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the database."""
        self._database.close()

    # -- the whole ------------------------------------------------------------------------

    def prepare(self, **places: str) -> None:
        """Create the tables if they do not exist.

        Parameters
        ----------
        **places
            The places that the inventory belongs to, such as ``source`` and ``target``. They
            are stored in a new inventory, and compared with those of an existing one.

        Raises
        ------
        ConfigurationError
            The inventory belongs to other places.
        """
        with self._database.change() as connection:
            self._database.create_tables(connection, tables.metadata)
            for name, value in places.items():
                table = tables.places
                found = connection.scalar(sa.select(table.c.value).where(table.c.name == name))
                if found is None:
                    connection.execute(table.insert().values(name=name, value=value))
                elif found != value:
                    raise ConfigurationError(
                        f"inventory {self._database.shown} belongs to {name} {found!r}, not to "
                        f"{value!r}: give each its own inventory"
                    )

    def time(self) -> float:
        """Return the time of the database, in seconds since 1970."""
        with self._database.look() as connection:
            return float(connection.execute(sa.select(now())).scalar_one())

    def add(self, entries: Sequence[Entry], asked: float | None = None) -> tuple[int, int]:
        """Add files that were listed.

        A file whose ETag differs from the stored one will be loaded again; if a worker is
        loading it, after that has ended.

        Parameters
        ----------
        entries : sequence of Entry
            The files.
        asked : float, optional
            The `time` before the list was requested. The list tells nothing new about a file
            that a worker has opened since.

        Returns
        -------
        new, changed : int
            The numbers of files that were new, and that had changed.
        """
        return add(self._database, entries, asked)

    # -- claims ---------------------------------------------------------------------------

    def claim(self, phase: Phase, worker: str, lease: float, max_attempts: int) -> Claim | None:
        """Claim a file to load or to verify.

        Files without a failed attempt come first, and those of dead workers last.

        Parameters
        ----------
        phase : {'load', 'diff'}
            The work to be done with the file.
        worker : str
            The name of the worker, for people.
        lease : float
            The seconds after which others may claim the file, unless `renew` was called.
        max_attempts : int
            The most times that a file may be claimed.

        Returns
        -------
        Claim or None
            None if there is nothing to do now.
        """
        token = secrets.token_hex(16)
        with self._database.change_at_once() as connection:
            found = claims.take_waiting(connection, phase, token, worker, lease)
        if found is None:
            with self._database.change() as connection:
                found = claims.take_dead(connection, phase, token, worker, lease, max_attempts)
        return None if found is None else Claim(token, *found)

    def renew(self, tokens: Iterable[str], lease: float) -> set[str]:
        """Extend leases from now on; return the tokens of the claims that still hold."""
        with self._database.change_at_once() as connection:
            found = connection.execute(
                files.update()
                .where(files.c.claim.in_(list(tokens)))
                .values(lease_until=now() + lease)
                .returning(files.c.claim)
            )
            return set(found.scalars())

    def loaded(self, claim: Claim, entry: Entry, message: str = "") -> bool:
        """Record that a file was loaded to its end, in the state that the entry describes.

        Returns
        -------
        bool
            False if the claim is lost and nothing was recorded.
        """
        loaded = {"loaded_etag": entry.etag, "loaded_size": entry.size}
        return self._end(
            "loaded", "load", claim, {**loaded, "claimed_etag": claim.etag, "text": message}
        )

    def compared(self, claim: Claim, passed: bool, message: str) -> bool:
        """Record the result of verifying a file."""
        state = DONE if passed else DIFFERENT
        return self._end("compared", "diff", claim, {"state": state, "text": message})

    def outdated(self, claim: Claim, message: str) -> bool:
        """Record that a file must be loaded again before it can be verified."""
        return self._end("outdated", "diff", claim, {"text": message})

    def failed(
        self, phase: Phase, claim: Claim, message: str, retry_time: float, max_attempts: int
    ) -> bool:
        """Record a failed attempt; unless it was the last, another follows after a while."""
        pause = min(_MOST_PAUSE, retry_time * 2.0 ** min(claim.attempts - 1, 64))
        state = FAILED if claim.attempts >= max_attempts else PENDING
        given = {"state": state, "pause": pause, "text": message}
        return self._end("failed", phase, claim, given)

    def release(self, phase: Phase, claim: Claim) -> bool:
        """Release a file as if it had not been claimed."""
        return self._end("released", phase, claim, {})

    def _end(
        self, outcome: claims.Outcome, phase: Phase, claim: Claim, values: dict[str, Any]
    ) -> bool:
        if "text" in values:
            values["text"] = cleaned(values["text"])
        with self._database.change_at_once() as connection:
            return claims.end(connection, outcome, phase, claim.token, values)

    def unsettled(self, phase: Phase) -> int:
        """Count the files whose loading, or loading and verifying, has not ended."""
        c = files.c
        open_: sa.ColumnElement[bool] = c.load_status.in_([PENDING, RUNNING])
        if phase == "diff":
            open_ |= c.diff_status.in_([PENDING, RUNNING])
        with self._database.look() as connection:
            return connection.scalar(sa.select(sa.func.count()).where(open_)) or 0

    # -- for people -----------------------------------------------------------------------

    def counts(self, within: float = 60.0) -> Counts:
        """Count the files by state; the rates are those of the last `within` seconds."""
        c = files.c
        load: Counter[str] = Counter()
        diff: Counter[str] = Counter()
        count = nbytes = loaded = 0
        with self._database.look() as connection:
            for state, verified, number, size in connection.execute(
                sa.select(
                    c.load_status, c.diff_status, sa.func.count(), sa.func.sum(c.size)
                ).group_by(c.load_status, c.diff_status)
            ):
                load[state] += number
                diff[verified] += number
                count, nbytes = count + number, nbytes + int(size)
                loaded += int(size) if state == DONE else 0
            rates = []
            for phase in ("load", "diff"):
                late = c[f"{phase}_finish"] > now() - within
                ended = c[f"{phase}_status"].in_([DONE, DIFFERENT])
                found = connection.scalar(sa.select(sa.func.count()).where(late, ended))
                rates.append((found or 0) / within)
        return Counts(count, nbytes, dict(load), dict(diff), rates[0], rates[1], loaded)

    def rows(self, state: str | None = None, limit: int | None = None) -> list[Row]:
        """List all files, or those in a state of loading or verifying, in order of arrival."""
        c = files.c
        wanted = sa.select(*(c[name] for name in Row.__dataclass_fields__)).order_by(c.id)
        if state is not None:
            wanted = wanted.where(sa.or_(c.load_status == state, c.diff_status == state))
        with self._database.look() as connection:
            return [Row(*found) for found in connection.execute(wanted.limit(limit))]

    def reset(
        self, pattern: str | None = None, *, every: bool = False, diff_only: bool = False
    ) -> int:
        """Make files available for another try, with all their attempts.

        Files that a worker has now are not changed.

        Parameters
        ----------
        pattern : str, optional
            A pattern of keys, with ``*`` and ``?``; all keys by default.
        every : bool
            Whether to include files that have not failed.
        diff_only : bool
            Whether to verify again only, without loading.

        Returns
        -------
        int
            The number of files that were reset.
        """
        c = files.c
        idle = sa.and_(c.load_status != RUNNING, c.diff_status != RUNNING)
        verify = (c.diff_status.in_([FAILED, DIFFERENT]), c.load_status == DONE)
        where = [idle]
        if pattern is not None:
            where.append(self._database.is_like(c.key, pattern))
        values: dict[str, Any] = {"not_before": 0.0, "diff_attempts": 0, "message": ""}
        if diff_only:
            where.append(c.load_status == DONE)
            values |= {"diff_status": PENDING, "diff_finish": None}
        else:
            values |= {"load_status": PENDING, "load_attempts": 0, "diff_status": NOT_YET}
        if not every:
            failed = sa.and_(*verify)
            where.append(failed if diff_only else sa.or_(failed, c.load_status == FAILED))
        with self._database.change() as connection:
            return connection.execute(files.update().where(*where).values(values)).rowcount
