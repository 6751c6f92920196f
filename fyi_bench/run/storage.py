"""The database behind a sweep: an Optuna storage that is opened safely and asked with patience.

sqlite is for the processes of one machine, PostgreSQL for any number of machines. Optuna's sqlite storage lets two
processes take the same trial, as it reads before it locks; here every transaction begins as a writer. A server that
restarts is waited for.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fyi_bench.duration import format_duration
from fyi_bench.errors import StoreError, UsageError

if TYPE_CHECKING:
    import sqlalchemy
    from optuna.storages import BaseStorage, RDBStorage

PATIENCE_S = 300.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0
_OPENINGS, _OPENING_PAUSE_S = 10, 0.3  # several processes may create the tables at the same moment
_BUSY_S = 60  # how long sqlite waits for another writer
_CONNECT_S = 10
_EXAMPLES = "sqlite:///sweep.sqlite3 or postgresql+psycopg://user:password@host/database"
# what PostgreSQL says of a user or database that waiting does not make right
_REFUSED = ("password authentication failed", "no password supplied", "does not exist", "no pg_hba.conf entry",
            "not permitted to log in")  # fmt: skip
_NO_RIGHT = "42501"  # PostgreSQL's code for a role that may not do what was asked
# what a URL without a driver means here; psycopg is the driver of the extra `cluster`
_DRIVERS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}


def sqlite_url(path: Path) -> str:
    """URL of a sqlite file."""
    from sqlalchemy import URL

    return URL.create("sqlite", database=str(path.absolute())).render_as_string(hide_password=False)


def shown(url: str) -> str:
    """The URL as it may be printed: without its password."""
    return _parsed(url).render_as_string(hide_password=True)


def check_there(url: str) -> None:
    """Raise StoreError for a sqlite file that is not there: who opens it to work would make an empty one."""
    parsed = _parsed(url)
    if parsed.get_backend_name() == "sqlite" and not Path(str(parsed.database)).exists():
        raise StoreError(
            f"There is no queue in {parsed.database}: the file does not exist.\n"
            "Check --storage; a command with --storage and --enqueue makes one."
        )


def check_usable(url: str) -> None:
    """Raise what `open_storage` would, without making a file or a table: a server is asked, a folder looked at."""
    from sqlalchemy import create_engine

    parsed = _parsed(url)
    if parsed.get_backend_name() == "sqlite":
        file = Path(str(parsed.database)).absolute()
        there = next(path for path in (file, *file.parents) if path.exists())
        if (
            (there.is_dir() and there == file)
            or not os.access(there, os.W_OK)
            or (there != file and not there.is_dir())
        ):
            raise StoreError(f"The storage {shown(url)} cannot be written.\nChoose another --storage.")
        if there != file:
            return
    try:
        with create_engine(parsed, **_ENGINE.get(parsed.get_backend_name(), {})).connect() as connection:
            connection.exec_driver_sql("SELECT 1" if parsed.get_backend_name() != "sqlite" else "PRAGMA schema_version")
    except Exception as error:
        raise _explained(error, parsed) from error


def open_storage(url: str) -> RDBStorage:
    """The storage at this URL, its tables created when missing.

    Raises UsageError for a URL that is none or names a database without a driver here, StoreError for one that
    cannot be reached or written, or that another version of Optuna made.
    """
    parsed = _parsed(url)
    if parsed.get_backend_name() == "sqlite":
        _make_folder(parsed)
        file = Path(str(parsed.database))
        if file.exists() and not file.is_file():  # sqlite would wait at a pipe for ever
            raise StoreError(f"{file} is no regular file.\nRemove it, or choose another --storage.")
    for opening in range(_OPENINGS):
        try:
            return _opened(parsed)
        except Exception as error:
            last = opening == _OPENINGS - 1
            if last or not _created_meanwhile(error):
                raise _explained(error, parsed) from error
            time.sleep(_OPENING_PAUSE_S)
    raise AssertionError("unreachable")


class Patient:
    """Calls a storage's methods, and waits for a database that is busy or restarting.

    `check()` is called while waiting and may raise; `say(line)` is told once a wait. What was asked twice because the
    answer was lost must be harmless: the callers see to that.
    """

    def __init__(
        self,
        storage: BaseStorage,
        shown_url: str,
        check: Callable[[], None] = lambda: None,
        say: Callable[[str], None] = lambda line: None,
        patience_s: float = PATIENCE_S,
    ):
        self.storage, self.shown_url = storage, shown_url
        self._check, self._say, self._patience_s = check, say, patience_s

    def __call__(self, method: str, *arguments: Any, **named: Any) -> Any:
        """The result of `storage.method(…)`. Raises StoreError when the database stays away or refuses."""
        began, pause = time.monotonic(), _FIRST_PAUSE_S
        while True:
            try:
                return getattr(self.storage, method)(*arguments, **named)
            except Exception as error:
                if not _of_storage(error):
                    raise
                waited = time.monotonic() - began
                if waited > self._patience_s or not passing(error):
                    raise StoreError(self._failure(error, waited)) from error
                if pause == _FIRST_PAUSE_S:
                    self._say(f"Waiting for the storage {self.shown_url} ({first_line(error)}).")
            self._check()
            time.sleep(pause)
            pause = min(_LONGEST_PAUSE_S, pause * 2)

    def once(self, method: str, *arguments: Any) -> Any:
        """Ask once, without waiting: StoreError at the first trouble."""
        try:
            return getattr(self.storage, method)(*arguments)
        except Exception as error:
            if not _of_storage(error):
                raise
            raise StoreError(self._failure(error, 0.0)) from error

    def _failure(self, error: Exception, waited: float) -> str:
        after = f" for {format_duration(waited)}" if waited > 1 else ""
        return f"The storage {self.shown_url} does not answer{after}: {first_line(error)}.\n{_remedy(error)}"


def in_memory() -> Patient:
    """A storage of this process alone: no database is loaded or made for it."""
    with _without_bars():
        from optuna.storages import InMemoryStorage

    class Alone(InMemoryStorage):
        def set_trial_state_values(self, trial_id: int, state: Any, values: Sequence[float] | None = None) -> bool:
            """As of a database: a finished run need not have a value, which Optuna takes for granted in memory."""
            return super().set_trial_state_values(
                trial_id, state, values or ([math.nan] if state.is_finished() else None)
            )

    return Patient(Alone(), "in memory")


def _of_storage(error: Exception) -> bool:
    """Whether an error is one of a database, and not an answer of the storage such as 'that trial is over'."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    return isinstance(error, StorageInternalError | SQLAlchemyError)


@contextlib.contextmanager
def _without_bars() -> Iterator[None]:
    """Inside, tqdm does not complain in a notebook that it cannot draw Optuna's bars, which are not used here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "IProgress not found")
        yield


def passing(error: BaseException) -> bool:
    """Whether a database error may go away by waiting: a lost connection, a server that restarts, a lock."""
    from sqlalchemy import exc

    cause = _database_error(error)
    if cause is None:
        return isinstance(_root(error), exc.TimeoutError)
    if _module(cause) == "sqlite3":
        return "locked" in str(cause) or "busy" in str(cause)
    if _disk_full(cause) or any(words in str(cause.orig) for words in _REFUSED):
        return False
    return bool(cause.connection_invalidated) or isinstance(cause, exc.OperationalError | exc.InterfaceError)


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Keep Optuna from announcing studies on stderr; its verbosity is as before afterwards."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def _parsed(url: str) -> sqlalchemy.URL:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise UsageError(f"'{url}' is no storage URL.\nWrite for instance {_EXAMPLES}.") from None
    parsed = parsed.set(drivername=_DRIVERS.get(parsed.drivername, parsed.drivername))
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise UsageError(f"'{url}' names no file, and workers could not share it.\nWrite for instance {_EXAMPLES}.")
    return parsed


def _opened(parsed: sqlalchemy.URL) -> RDBStorage:
    with _without_bars():
        from optuna.storages import RDBStorage

    backend = parsed.get_backend_name()
    url = parsed.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")  # Optuna fills templates
    with quiet_optuna():
        storage = RDBStorage(url, engine_kwargs=_ENGINE.get(backend, {"pool_pre_ping": True}))
    if backend == "sqlite":
        _begin_as_writer(storage.engine)
    return storage


_ENGINE: dict[str, dict[str, Any]] = {
    "sqlite": {"connect_args": {"timeout": _BUSY_S}},
    "postgresql": {"pool_pre_ping": True, "connect_args": {"connect_timeout": _CONNECT_S}},
}


def _begin_as_writer(engine: sqlalchemy.Engine) -> None:
    """Every transaction takes sqlite's write lock at its start, so that reading a state and changing it is one act."""
    from sqlalchemy import event

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, record: Any) -> None:
        connection.isolation_level = None  # the driver must not begin transactions on its own
        connection.execute(
            "PRAGMA journal_mode=WAL"
        )  # a commit costs a tenth; what is lost in a power cut is asked anew
        connection.execute("PRAGMA synchronous=NORMAL")

    @event.listens_for(engine, "begin")
    def _begun(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine.dispose()  # connections from before the listeners


def _make_folder(parsed: sqlalchemy.URL) -> None:
    folder = Path(str(parsed.database)).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"The folder {folder} of the storage cannot be made: {error.strerror or error}.\nChoose another --storage."
        ) from error


def _created_meanwhile(error: BaseException) -> bool:
    from sqlalchemy import exc

    cause = _database_error(error)
    if isinstance(cause, exc.IntegrityError):
        return True
    text = str(cause).lower() if cause is not None else ""
    return "already exists" in text or "duplicate" in text or "locked" in text


def _explained(error: Exception, parsed: sqlalchemy.URL) -> Exception:
    """The error of opening as one of ours; a defect stays what it is."""
    from sqlalchemy import exc

    url = parsed.render_as_string(hide_password=True)
    if isinstance(error, exc.NoSuchModuleError):
        return UsageError(f"'{parsed.drivername}' is no database known here.\nWrite for instance {_EXAMPLES}.")
    if isinstance(error, ImportError):
        extra = " (pip install 'fyi-bench[cluster]')" if parsed.get_backend_name() == "postgresql" else ""
        return UsageError(f"The storage {url} needs the driver '{parsed.get_driver_name()}'.\nInstall it{extra}.")
    if isinstance(error, RuntimeError):
        return StoreError(
            f"The storage {url} was made by another version of Optuna.\n"
            "Use `optuna storage upgrade`, or a new database: results stay in the store."
        )
    if isinstance(error, exc.SQLAlchemyError) or _database_error(error) is not None:
        return StoreError(f"The storage {url} cannot be used: {first_line(error)}.\n{_remedy(error)}")
    return error


def _remedy(error: BaseException) -> str:
    cause = _database_error(error)
    if cause is not None and _disk_full(cause):
        return "Nothing that is done was lost: free some space and run the command again."
    if cause is not None and any(word in str(cause.orig) for word in ("malformed", "not a database", "corrupt")):
        return "The file is damaged. Remove it: results are in the store, and the same command makes a new queue."
    if cause is not None and _module(cause) == "sqlite3":
        return (
            "See that the file is a sqlite database on a local disk that can be written, or choose another --storage."
        )
    if cause is not None and getattr(cause.orig, "sqlstate", None) == _NO_RIGHT:
        return "Give the role the right to make tables there and to write them (GRANT), or name another role."
    return "Is the server up, and are user and password right? Everything done is kept; run the command again."


def _disk_full(cause: Any) -> bool:
    text = str(cause.orig).lower()
    return getattr(cause.orig, "sqlstate", None) == "53100" or "disk is full" in text or "disk i/o" in text


def _database_error(error: BaseException) -> Any:
    """SQLAlchemy's error about the database in this error or its causes, or None."""
    from sqlalchemy.exc import DBAPIError

    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, DBAPIError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _module(cause: Any) -> str:
    return type(cause.orig).__module__.split(".")[0]


def first_line(error: BaseException) -> str:
    """What a database says, in one line."""
    cause = _database_error(error)
    text = str(cause.orig if cause is not None else _root(error)).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__
