"""Stores that several machines share: a tracking server or a database, seen to answer, and a new
database prepared by one process alone."""

from __future__ import annotations

import contextlib
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from retrain.errors import StoreError
from retrain.knock import TIMEOUT_SECONDS, knock_at_port, knock_at_web
from retrain.lazy import filelock, mlflow, optuna, sqlalchemy
from retrain.masking import mask

DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
# Of the lock in a PostgreSQL server that clients of all hosts take: a number that nobody else has.
_ADVISORY_LOCK = 0x7265747261696E
_CORRECT = "Start it or correct its address in the environment, then run the command again."


def check_server(address: str) -> None:
    """Health check of a server or database, before the minutes of retries that MLflow allows it.

    A web server must send an HTTP answer, whatever it says; a database must have an open port.
    """
    try:
        if is_web(address):
            parts = urllib.parse.urlsplit(address)
            path = parts.path.rstrip("/") + "/health"
            knock_at_web(urllib.parse.urlunsplit((parts.scheme, parts.netloc, path, "", "")))
        else:
            _knock_at_database(address)
    except OSError as error:
        raise StoreError(
            f"The tracking server {address} does not answer ({error}). Nothing was changed.",
            hint=_CORRECT,
        ) from error
    except ValueError as error:
        raise StoreError(
            f"The address of the tracking server, {address}, can't be read: it must look like "
            "http://HOST:PORT or postgresql+psycopg2://HOST:PORT/DATABASE, with `/`, `@` and the "
            "like in a password written as %2F, %40. Nothing was changed.",
            hint="Correct it in the environment, then run the command again.",
        ) from error


def is_web(address: str) -> bool:
    """Whether MLflow's own server is meant, and no database."""
    return address.startswith(("http://", "https://"))


def _knock_at_database(address: str) -> None:
    try:
        url = sqlalchemy.engine.make_url(address)
    except sqlalchemy.exc.ArgumentError:
        raise ValueError("not an address") from None
    port = url.port or DATABASE_PORTS.get(url.get_backend_name())
    if url.host and port:
        knock_at_port(url.host, port)


def prepare_database(address: str) -> None:
    """Let MLflow create its tables under a lock that holds for all hosts: of processes that do it
    at the same time most fail, and SQLite's file is left broken.

    Raises StoreError where the database does not let us in.
    """
    url = sqlalchemy.engine.make_url(address)
    with contextlib.ExitStack() as stack:
        if url.get_backend_name() == "sqlite":
            stack.enter_context(_sqlite_lock(url.database))
        elif url.get_backend_name() == "postgresql" and stack.enter_context(
            _postgres_lock(address)
        ):
            return
        mlflow.MlflowClient(address).search_experiments(max_results=1)


def prepare_studies(address: str) -> str:
    """Let Optuna create its tables, as MLflow's are; returns the address that leads to them.

    In PostgreSQL they get a schema of their own: both libraries keep the state of their tables in a
    table of one name.
    """
    check_server(address)
    url = sqlalchemy.engine.make_url(address)
    with contextlib.ExitStack() as stack:
        if url.get_backend_name() == "sqlite":
            stack.enter_context(_sqlite_lock(url.database))
        elif url.get_backend_name() == "postgresql":
            connection = stack.enter_context(_connect(address))
            _wait_for_lock(connection)
            connection.execute(sqlalchemy.text("create schema if not exists optuna"))
            options = " ".join([*url.normalized_query.get("options", ()), "-csearch_path=optuna"])
            url = url.update_query_dict({"options": options})
        address = url.render_as_string(hide_password=False)
        optuna.storages.RDBStorage(address).engine.dispose()
    return address


@contextlib.contextmanager
def _sqlite_lock(database: str | None) -> Iterator[None]:
    """A lock beside the file is held."""
    file = Path(database or "mlflow.db")
    try:
        with filelock.FileLock(file.with_name(file.name + ".lock"), timeout=120):
            yield
    except OSError as error:
        raise StoreError(
            f"The tracking store {file} can't be used ({error.strerror}). Nothing was changed.",
            hint="Make its folder, mend its permissions, or correct its address.",
        ) from error


@contextlib.contextmanager
def _postgres_lock(address: str) -> Iterator[bool]:
    """Whether the database has been prepared; if not, its advisory lock is held."""
    with _connect(address) as connection:
        if _is_prepared(connection):
            yield True
            return
        _wait_for_lock(connection)
        yield _is_prepared(connection)


def _wait_for_lock(connection: sqlalchemy.Connection) -> None:
    """Closing the connection gives the lock back."""
    connection.execute(sqlalchemy.text(f"select pg_advisory_lock({_ADVISORY_LOCK})"))


def _connect(address: str) -> sqlalchemy.Connection:
    """Raises StoreError where the database does not let us in."""
    try:
        engine = sqlalchemy.create_engine(
            address,
            poolclass=sqlalchemy.pool.NullPool,
            connect_args={"connect_timeout": TIMEOUT_SECONDS},
            isolation_level="AUTOCOMMIT",
        )
        return engine.connect()
    except (ImportError, sqlalchemy.exc.SQLAlchemyError) as error:
        raise _no_entry(address, error) from error


def _is_prepared(connection: sqlalchemy.Connection) -> bool:
    """MLflow creates its default experiment when all tables are there."""
    if not sqlalchemy.inspect(connection).has_table("experiments"):
        return False
    found = connection.execute(sqlalchemy.text("select 1 from experiments limit 1"))
    return found.first() is not None


def _no_entry(address: str, error: Exception) -> StoreError:
    if isinstance(error, ImportError):
        return StoreError(
            f"The driver of the tracking database {address} is not installed ({error}).",
            hint="pip install -c constraints.txt -e '.[postgres]', and begin the address with "
            "postgresql+psycopg2://",
        )
    # SQLAlchemy puts the class of the driver's error before the message.
    reason = mask(str(getattr(error, "orig", error))).strip().splitlines()[0]
    return StoreError(
        f"The tracking database {address} does not let us in: {reason}. Nothing was changed.",
        hint="Correct user, password and name of the database in the environment, or let its "
        "administrator create it (`createdb`); then run the command again.",
    )
