"""Opening a database: engine, pragmas, migrations."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from embedkit.errors import ConfigError, DiskFull, MissingExtra, StoreBusy, StoreError, disk_is_full
from embedkit.metadata.errors import is_refusal, told
from embedkit.metadata.full_text import rarity
from embedkit.sqlite import SqliteConnection, connect_sqlite
from embedkit.urls import redact

__all__ = ["HEAD", "open_engine"]

HEAD = "0004"  # the newest migration; a test holds it to the files
BUSY_SECONDS = 30.0
_NEWER = "The metadata store {} was written by a newer embedkit ({}); upgrade embedkit to open it."
_MIGRATION_LOCK = 0x656D6265  # any number, the same for every embedkit


def open_engine(url: str, folder: Path) -> sa.Engine:
    """An engine on a database whose tables are up to date; a relative path of SQLite is in `folder`.

    Transactions of a connection with the execution option ``write=True`` take SQLite's write lock
    at their start, so that two writers wait for each other instead of failing half-way; without it there
    is no transaction, and every statement sees the newest commit. A database that cannot be written is opened for
    reading.
    Raises ConfigError, DiskFull, MissingExtra, StoreBusy, StoreError.
    """
    parsed = _parsed(url)
    safe = redact(url)
    options: dict[str, Any] = {}
    if parsed.get_backend_name() == "sqlite":
        parsed = parsed.set(database=str(folder / str(parsed.database)))
        _make_folder(parsed, safe)
        options["creator"] = lambda: connect_sqlite(Path(str(parsed.database)), timeout=BUSY_SECONDS)
    try:
        engine = sa.create_engine(
            parsed,
            json_serializer=partial(json.dumps, ensure_ascii=False, separators=(",", ":")),
            pool_size=16,
            max_overflow=48,
            pool_pre_ping=parsed.get_backend_name() != "sqlite",
            **options,
        )
    except sa.exc.NoSuchModuleError:
        raise ConfigError(
            f"{safe!r} is not a metadata store; write for example sqlite:///.embedkit/embedkit.db or "
            "postgresql://user@host/database"
        ) from None
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "psycopg", "postgres", needed_for=f"The metadata store {safe}") from error
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "checkout", _look_again)
        sa.event.listen(engine, "begin", _begin_sqlite)
    try:
        with told(safe):
            _migrate(engine, safe)
    except StoreBusy as error:
        engine.dispose()
        if engine.dialect.name == "sqlite":
            raise
        raise StoreError(f"{error} Check the address and that the server runs.") from error
    except BaseException:
        engine.dispose()
        raise
    return engine


def _parsed(url: str) -> sa.URL:
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        raise ConfigError(
            f"{redact(url)!r} is not a metadata store; write for example sqlite:///.embedkit/embedkit.db"
        ) from None
    if parsed.drivername in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise ConfigError(
            f"{redact(url)!r} is not a metadata store; write for example sqlite:///.embedkit/embedkit.db or "
            "postgresql://user@host/database"
        )
    if "@" in (parsed.host or ""):  # else the driver would show it as a part of the host's name
        raise ConfigError(f"The password in {redact(url)!r} holds an @; write %40 for it")
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise ConfigError("A metadata store lives in a file; write for example sqlite:///.embedkit/embedkit.db")
    return parsed


def _make_folder(parsed: sa.URL, safe: str) -> None:
    folder = Path(str(parsed.database)).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        kind = DiskFull if disk_is_full(error) else StoreError
        raise kind(f"The folder of the metadata store {safe} cannot be made: {error.strerror}.") from error


def _prepare_sqlite(connection: SqliteConnection, record: object) -> None:
    del record
    cursor = connection.cursor()
    if connection.writes:
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA cache_size=-16384")  # of each connection: threads that search have one each, which they keep
    cursor.close()
    connection.create_function("rarity", 2, rarity, deterministic=True)


def _look_again(connection: SqliteConnection, record: object, proxy: object) -> None:
    """Have the pool make a new connection where one cannot see what others have written since."""
    del record, proxy
    if not connection.is_current():
        raise sa.exc.DisconnectionError


def _begin_sqlite(connection: sa.Connection) -> None:
    if connection.get_execution_options().get("write", False):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _migrate(engine: sa.Engine, safe: str) -> None:
    with engine.connect() as connection:
        version, driver = _version(connection), connection.connection.driver_connection
    if version == HEAD:
        return
    if isinstance(driver, SqliteConnection) and not driver.writes:
        raise StoreError(_behind(safe, version))
    try:
        with engine.connect().execution_options(write=True) as connection, connection.begin():
            if connection.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
            if _version(connection) != HEAD:
                _upgrade(connection, safe)
    except sa.exc.DBAPIError as error:
        if not is_refusal(error):
            raise
        raise StoreError(_behind(safe, version)) from error


def _behind(safe: str, version: str | None) -> str:
    """Why a store that cannot be written cannot be read either."""
    if version is None:
        return f"The metadata store {safe} has no tables yet, and cannot be written to make them."
    if version > HEAD:
        return _NEWER.format(safe, f"its tables are of version {version}")
    return (
        f"The tables of the metadata store {safe} are those of an older embedkit ({version}, not {HEAD}), and may not "
        "be brought up to date here; run once, as a user who may write to it: embedkit status"
    )


def _version(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(sa.text("select version_num from alembic_version")).scalar()
    return str(found) if found else None


def _upgrade(connection: sa.Connection, safe: str) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise StoreError(_NEWER.format(safe, error)) from error
