"""The inventory: a database with a row for each file, from which workers take their work.

A worker *claims* a row under a token of its own, for as long as a lease lasts, and renews the
lease while it works. Every later change requires the token, so that a worker that has lost its
lease changes nothing. All times are those of the database's clock.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from dosna.errors import ConfigurationError, MissingDependencyError, StorageError
from dosna.loader.bucket import Entry
from dosna.loader.config import without_password

try:
    import sqlalchemy as sa
    from sqlalchemy.dialects import postgresql, sqlite
    from sqlalchemy.ext.compiler import compiles
    from sqlalchemy.sql.functions import FunctionElement
except ImportError as missing:
    raise MissingDependencyError(
        "the loader keeps its inventory by SQLAlchemy: pip install 'dosna[loader]'"
    ) from missing

__all__ = ["Claim", "Counts", "Inventory", "Phase", "Row"]

Phase = Literal["load", "diff"]

PENDING, RUNNING, DONE, FAILED, DIFFERENT = "pending", "running", "done", "failed", "different"
NOT_YET = "not yet"
"""The verification state of a file that is not loaded."""

_BUSY_SECONDS = 60
_LOCK = 0x646F736E61  # the advisory lock of PostgreSQL, held while tables are made
_MOST_PAUSE = 3600.0

_metadata = sa.MetaData()
_id = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_files = sa.Table(
    "dosna_files",
    _metadata,
    sa.Column("id", _id, primary_key=True),
    sa.Column("key", sa.Text, nullable=False, unique=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("etag", sa.Text, nullable=False),
    sa.Column("claim", sa.Text, index=True),
    sa.Column("lease_until", sa.Double),
    sa.Column("not_before", sa.Double, nullable=False),
    sa.Column("loads", sa.Integer, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    *(
        column
        for phase in ("load", "diff")
        for column in (
            sa.Column(f"{phase}_status", sa.Text, nullable=False),
            sa.Column(f"{phase}_attempts", sa.Integer, nullable=False),
            sa.Column(f"{phase}_worker", sa.Text),
            sa.Column(f"{phase}_start", sa.Double),
            sa.Column(f"{phase}_finish", sa.Double),
        )
    ),
)
for _phase in ("load", "diff"):
    sa.Index(
        f"dosna_files_{_phase}",
        _files.c[f"{_phase}_status"],
        _files.c[f"{_phase}_attempts"],
        _files.c.id,
    )
_places = sa.Table(
    "dosna_loader",
    _metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)


class _now(FunctionElement[float]):
    """An SQL expression for the database's time, in seconds since 1970."""

    type = sa.Double()
    inherit_cache = True


@compiles(_now, "sqlite")
def _(element: Any, compiler: Any, **options: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(_now, "postgresql")
def _(element: Any, compiler: Any, **options: Any) -> str:
    return "extract(epoch from clock_timestamp())::double precision"


@dataclass(frozen=True)
class Claim:
    """A file that a worker has taken.

    Parameters
    ----------
    token : str
        A token that only this claim has.
    key, size, etag
        The key, size and ETag of the file, as it was listed.
    attempts : int
        The number of times that the file was taken, including this one, since it was new or
        was reset.
    loads : int
        The number of times that the file was loaded to its end before.
    """

    token: str
    key: str
    size: int
    etag: str
    attempts: int
    loads: int


@dataclass(frozen=True)
class Row:
    """The inventory's row of a file; times are in seconds since 1970, by the database's clock."""

    key: str
    size: int
    etag: str
    loads: int
    message: str
    load_status: str
    load_attempts: int
    load_worker: str | None
    load_start: float | None
    load_finish: float | None
    diff_status: str
    diff_attempts: int
    diff_worker: str | None
    diff_start: float | None
    diff_finish: float | None


@dataclass(frozen=True)
class Counts:
    """The numbers of files by state, and the rates of loading and verifying.

    Parameters
    ----------
    files, nbytes : int
        The number of files of the inventory, and their size in bytes.
    load, diff : dict of str to int
        The number of files by state of loading, and of verifying.
    rate, diff_rate : float
        The files per second that were loaded, or verified, in the last minute.
    nbytes_loaded : int
        The size of the loaded files in bytes.
    """

    files: int
    nbytes: int
    load: dict[str, int]
    diff: dict[str, int]
    rate: float
    diff_rate: float
    nbytes_loaded: int


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
        self.shown = without_password(url)
        try:
            parsed = sa.make_url(url)
        except (sa.exc.ArgumentError, ValueError):
            raise ConfigurationError(
                f"inventory {self.shown!r} is no URL of a database: write sqlite:///path or "
                "postgresql://user@host/database"
            ) from None
        kind = parsed.get_backend_name()
        if kind not in ("sqlite", "postgresql"):
            raise ConfigurationError(
                f"inventory {self.shown!r}: a database of kind {kind!r} cannot be used, but "
                "sqlite:///path or postgresql://user@host/database"
            )
        self._sqlite = kind == "sqlite"
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        options: dict[str, Any] = {"hide_parameters": True}
        if self._sqlite:
            if parsed.database in (None, "", ":memory:"):
                raise ConfigurationError("an inventory in memory is of no use: sqlite:///path")
            options["connect_args"] = {"timeout": _BUSY_SECONDS}
        else:
            options["pool_pre_ping"] = True
        try:
            self._engine = sa.create_engine(parsed, **options)
        except ImportError as error:
            raise MissingDependencyError(
                f"inventory {self.shown!r} needs {error.name}: pip install 'dosna[postgresql]'"
            ) from error
        if self._sqlite:
            sa.event.listen(self._engine, "connect", _prepare_sqlite)
            sa.event.listen(self._engine, "begin", _begin_sqlite)
        self._insert = sqlite.insert if self._sqlite else postgresql.insert

    def __repr__(self) -> str:
        return f"<Inventory {self.shown}>"

    def __enter__(self) -> Inventory:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the database."""
        self._engine.dispose()

    @contextmanager
    def _change(self) -> Iterator[sa.Connection]:
        with self._errors(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _look(self) -> Iterator[sa.Connection]:
        # Without a transaction, which in SQLite would keep writers out.
        with self._errors(), self._engine.connect() as connection:
            yield connection.execution_options(isolation_level="AUTOCOMMIT")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.SQLAlchemyError as error:
            cause = str(getattr(error, "orig", None) or error).strip().splitlines()
            raise StorageError(
                f"inventory {self.shown} cannot be used: {cause[0] if cause else 'no reason'}"
            ) from None

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
        with self._change() as connection:
            if not self._sqlite:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
            _metadata.create_all(connection)
            for name, value in places.items():
                found = connection.scalar(sa.select(_places.c.value).where(_places.c.name == name))
                if found is None:
                    connection.execute(_places.insert().values(name=name, value=value))
                elif found != value:
                    raise ConfigurationError(
                        f"inventory {self.shown} is of {name} {found!r}, and not of {value!r}: "
                        "give each its own inventory"
                    )

    def time(self) -> float:
        """Return the time of the database, in seconds since 1970."""
        with self._look() as connection:
            return float(connection.execute(sa.select(_now())).scalar_one())

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
        c = _files.c
        with self._look() as connection:
            known = sa.select(c.key, c.etag).where(c.key.in_([entry.key for entry in entries]))
            there = {row.key: row.etag for row in connection.execute(known)}
        older = sa.true() if asked is None else sa.func.coalesce(c.load_start, 0) < asked
        rows = [
            {
                "key": entry.key,
                "size": entry.size,
                "etag": entry.etag,
                "not_before": 0.0,
                "loads": 0,
                "message": "",
                "load_status": PENDING,
                "load_attempts": 0,
                "diff_status": NOT_YET,
                "diff_attempts": 0,
            }
            for entry in entries
            if entry.key not in there
        ]
        changed = [entry for entry in entries if there.get(entry.key, entry.etag) != entry.etag]
        if not rows and not changed:
            return 0, 0
        new = 0
        with self._change() as connection:
            if rows:
                # Another watcher may have come first.
                insert = self._insert(_files).on_conflict_do_nothing(index_elements=["key"])
                new = len(connection.execute(insert.returning(c.id), rows).all())
            loading, replaced = c.load_status == RUNNING, 0
            for entry in changed:
                found = connection.execute(
                    _files.update()
                    .where(c.key == entry.key, older)
                    .values(
                        size=entry.size,
                        etag=entry.etag,
                        load_status=sa.case((loading, RUNNING), else_=PENDING),
                        load_attempts=sa.case((loading, c.load_attempts), else_=0),
                        claim=sa.case((loading, c.claim), else_=sa.null()),
                        not_before=0.0,
                        diff_status=NOT_YET,
                        diff_attempts=0,
                    )
                )
                replaced += found.rowcount
        return new, replaced

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
        table, c = _files, _files.c
        status, attempts = c[f"{phase}_status"], c[f"{phase}_attempts"]
        token = secrets.token_hex(16)

        def take(*where: Any) -> Any:
            first = (
                sa.select(c.id)
                .where(*where)
                .order_by(attempts, c.id)
                .limit(1)
                .with_for_update(skip_locked=True)
                .scalar_subquery()
            )
            return connection.execute(
                table.update()
                .where(c.id == first)
                .values(
                    {
                        status: RUNNING,
                        attempts: attempts + 1,
                        c.claim: token,
                        c.lease_until: _now() + lease,
                        c[f"{phase}_worker"]: worker,
                        c[f"{phase}_start"]: _now(),
                        c[f"{phase}_finish"]: sa.null(),
                    }
                )
                .returning(c.key, c.size, c.etag, attempts, c.loads)
            ).first()

        with self._change() as connection:
            found = take(status == PENDING, c.not_before <= _now())
            if found is None:
                dead = (status == RUNNING, c.lease_until < _now())
                connection.execute(
                    table.update()
                    .where(*dead, attempts >= max_attempts)
                    .values(
                        {
                            status: FAILED,
                            c.claim: sa.null(),
                            c.message: sa.literal("given up: ")
                            + sa.cast(attempts, sa.Text)
                            + " workers died or stalled at it, the last of them "
                            + c[f"{phase}_worker"],
                        }
                    )
                )
                found = take(*dead)
        return None if found is None else Claim(token, *found)

    def renew(self, tokens: Iterable[str], lease: float) -> set[str]:
        """Extend leases from now on; return the tokens of the claims that still hold."""
        with self._change() as connection:
            found = connection.execute(
                _files.update()
                .where(_files.c.claim.in_(list(tokens)))
                .values(lease_until=_now() + lease)
                .returning(_files.c.claim)
            )
            return set(found.scalars())

    def loaded(self, claim: Claim, entry: Entry, message: str = "") -> bool:
        """Record that a file was loaded to its end, in the state that the entry describes.

        Returns
        -------
        bool
            False if the claim is lost and nothing was recorded.
        """
        c = _files.c
        # The ETag listed meanwhile may be newer than the loaded one, or the same.
        current = sa.or_(c.etag == claim.etag, c.etag == entry.etag)
        return self._end(
            claim,
            {
                c.load_status: sa.case((current, DONE), else_=PENDING),
                c.load_attempts: sa.case((current, c.load_attempts), else_=0),
                c.load_finish: _now(),
                c.loads: c.loads + 1,
                c.etag: sa.case((current, entry.etag), else_=c.etag),
                c.size: sa.case((current, entry.size), else_=c.size),
                c.diff_status: sa.case((current, PENDING), else_=NOT_YET),
                c.diff_attempts: 0,
                c.message: message,
            },
        )

    def compared(self, claim: Claim, passed: bool, message: str) -> bool:
        """Record the result of verifying a file."""
        c = _files.c
        return self._end(
            claim,
            {
                c.diff_status: DONE if passed else DIFFERENT,
                c.diff_finish: _now(),
                c.message: message,
            },
        )

    def outdated(self, claim: Claim, message: str) -> bool:
        """Record that a file must be loaded again before it can be verified."""
        c = _files.c
        return self._end(
            claim,
            {
                c.load_status: PENDING,
                c.load_attempts: 0,
                c.diff_status: NOT_YET,
                c.message: message,
            },
        )

    def failed(
        self, phase: Phase, claim: Claim, message: str, retry_time: float, max_attempts: int
    ) -> bool:
        """Record a failed attempt; unless it was the last, another follows after a while."""
        c, finish = _files.c, f"{phase}_finish"
        last = claim.attempts >= max_attempts
        pause = min(_MOST_PAUSE, retry_time * 2.0 ** (claim.attempts - 1))
        return self._end(
            claim,
            {
                c[f"{phase}_status"]: FAILED if last else PENDING,
                c[finish]: _now(),
                c.not_before: _now() + pause,
                c.message: message,
            },
        )

    def release(self, phase: Phase, claim: Claim) -> bool:
        """Release a file as if it had not been claimed."""
        c, attempts = _files.c, _files.c[f"{phase}_attempts"]
        return self._end(claim, {c[f"{phase}_status"]: PENDING, attempts: attempts - 1})

    def _end(self, claim: Claim, values: dict[Any, Any]) -> bool:
        c = _files.c
        with self._change() as connection:
            done = connection.execute(
                _files.update()
                .where(c.claim == claim.token)
                .values({**values, c.claim: sa.null(), c.lease_until: sa.null()})
            )
            return done.rowcount == 1

    def unsettled(self, phase: Phase) -> int:
        """Count the files whose loading, or loading and verifying, has not ended."""
        c = _files.c
        open_: sa.ColumnElement[bool] = c.load_status.in_([PENDING, RUNNING])
        if phase == "diff":
            open_ |= c.diff_status.in_([PENDING, RUNNING])
        with self._look() as connection:
            return connection.scalar(sa.select(sa.func.count()).where(open_)) or 0

    # -- for people -----------------------------------------------------------------------

    def counts(self, within: float = 60.0) -> Counts:
        """Count the files by state; the rates are those of the last `within` seconds."""
        c = _files.c
        load: dict[str, int] = {}
        diff: dict[str, int] = {}
        files = nbytes = loaded = 0
        with self._look() as connection:
            for state, verified, count, size in connection.execute(
                sa.select(
                    c.load_status, c.diff_status, sa.func.count(), sa.func.sum(c.size)
                ).group_by(c.load_status, c.diff_status)
            ):
                load[state] = load.get(state, 0) + count
                diff[verified] = diff.get(verified, 0) + count
                files, nbytes = files + count, nbytes + int(size)
                loaded += int(size) if state == DONE else 0
            rates = []
            for phase in ("load", "diff"):
                late = c[f"{phase}_finish"] > _now() - within
                ended = c[f"{phase}_status"].in_([DONE, DIFFERENT])
                found = connection.scalar(sa.select(sa.func.count()).where(late, ended))
                rates.append((found or 0) / within)
        return Counts(files, nbytes, load, diff, rates[0], rates[1], loaded)

    def rows(self, state: str | None = None, limit: int | None = None) -> list[Row]:
        """List all files, or those in a state of loading or verifying, in order of arrival."""
        c = _files.c
        wanted = sa.select(*(c[name] for name in Row.__dataclass_fields__)).order_by(c.id)
        if state is not None:
            wanted = wanted.where(sa.or_(c.load_status == state, c.diff_status == state))
        with self._look() as connection:
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
        c = _files.c
        idle = sa.and_(c.load_status != RUNNING, c.diff_status != RUNNING)
        verify = (c.diff_status.in_([FAILED, DIFFERENT]), c.load_status == DONE)
        where = [idle]
        if pattern is not None:
            where.append(self._is_like(pattern))
        values: dict[str, Any] = {"not_before": 0.0, "diff_attempts": 0, "message": ""}
        if diff_only:
            where.append(c.load_status == DONE)
            values |= {"diff_status": PENDING, "diff_finish": None}
        else:
            values |= {"load_status": PENDING, "load_attempts": 0, "diff_status": NOT_YET}
        if not every:
            failed = sa.and_(*verify)
            where.append(failed if diff_only else sa.or_(failed, c.load_status == FAILED))
        with self._change() as connection:
            return connection.execute(_files.update().where(*where).values(values)).rowcount

    def _is_like(self, pattern: str) -> sa.ColumnElement[bool]:
        key = _files.c.key
        if self._sqlite:
            # SQLite's LIKE ignores case.
            return key.op("GLOB", is_comparison=True)(pattern.replace("[", "[[]"))
        escaped = "".join("\\" + x if x in "%_\\" else x for x in pattern)
        return key.like(escaped.replace("*", "%").replace("?", "_"), escape="\\")


def _prepare_sqlite(connection: Any, record: object) -> None:
    # With this, SQLAlchemy begins transactions. The driver would begin them too late.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
