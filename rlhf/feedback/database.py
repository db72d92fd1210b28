"""The feedback database of this machine or this team: SQLite by default, PostgreSQL by URL."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.orm import Session

from rlhf.feedback.flushing import LogFlusher
from schemas.errors import ConfigError, FeedbackUnreachable

REVISION = "0001"
"""The migration that this code works with; the newest in `migrations/`."""

PLAIN = {"synchronize_session": False}
"""For an update whose rows nobody reads from the session afterwards: it need not look through what it has loaded."""

_SQLITE_WAIT = 30.0


class Feedback:
    """Reading and writing transactions on the feedback database."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._writers = engine.execution_options(writes=True)
        self._flusher = LogFlusher(engine.url.database or "") if engine.dialect.name == "sqlite" else None
        # SQLite has one writer at a time. Threads that wait here are woken at once; SQLite's own wait sleeps.
        self._turn = threading.Lock()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Open a transaction that sees one state of the database."""
        with Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Open a transaction that is committed at the end of the block, or not at all."""
        if self._flusher:
            with self._turn, Session(self._writers, expire_on_commit=False) as session, session.begin():
                yield session
            # Outside of the turn: others write while this waits for the disk.
            self._flusher.flush()
        else:
            with Session(self._writers, expire_on_commit=False) as session, session.begin():
                yield session

    def close(self) -> None:
        """Give back every connection."""
        self.engine.dispose()


def connect(url: str) -> Feedback:
    """Open the database, made or brought up to date as needed."""
    engine = _engine(url)
    feedback = Feedback(engine)
    try:
        if _revision(engine) != REVISION:
            _migrate(feedback)
    except OperationalError as error:
        reason = str(error.orig).strip().splitlines()[0]
        raise FeedbackUnreachable(
            f"The feedback database {engine.url.render_as_string()} does not answer ({reason}). Start it, or correct RLHF_FEEDBACK_URL."
        ) from None
    return feedback


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ConfigError(
            "RLHF_FEEDBACK_URL is no database URL; wanted sqlite:///FILE or postgresql://USER@HOST/NAME."
        ) from None
    if parsed.get_backend_name() == "postgresql":
        return create_engine(
            parsed.set(drivername="postgresql+psycopg"), pool_size=10, max_overflow=20, pool_pre_ping=True
        )
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        raise ConfigError(
            f"RLHF_FEEDBACK_URL names {parsed.drivername}; wanted sqlite:///FILE or postgresql://USER@HOST/NAME."
        )
    Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, pool_size=10, max_overflow=40, connect_args={"timeout": _SQLITE_WAIT})
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: Any, _: object) -> None:
    # The driver must not begin transactions of its own: a writer has to say so from the start.
    connection.isolation_level = None
    # NORMAL: a commit does not flush; `LogFlusher` does, before anything is acknowledged.
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Any) -> None:
    # A transaction that reads first and writes later would fail when another wrote in between.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _revision(engine: Engine) -> str | None:
    if not inspect(engine).has_table("alembic_version"):
        return None
    with engine.connect() as connection:
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _migrate(feedback: Feedback) -> None:
    """Bring the schema up to date, in one transaction that one process at a time may hold."""
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    with feedback.write() as session:
        connection = session.connection()
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(7305816)"))
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, REVISION)
        except CommandError as error:
            raise ConfigError(
                f"The feedback database has another layout than this version of rlhf knows ({error}). Use the version that wrote it, or name another database in RLHF_FEEDBACK_URL."
            ) from None


def now() -> float:
    """Return the time as the database keeps it."""
    return time.time()
