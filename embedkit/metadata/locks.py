"""The store's locks on a collection or a run, which a killed process lets go of by itself."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import sqlalchemy as sa

from embedkit.errors import StoreBusy, StoreError
from embedkit.metadata.errors import not_writable
from embedkit.metadata.session import Session
from embedkit.sqlite import may_write

__all__ = ["LockName", "Locks"]

LockName = Literal["run", "versions", "writing"]
_SPACES: dict[LockName, int] = {  # of PostgreSQL's advisory locks
    "versions": 0x656D6266,
    "writing": 0x656D6267,
    "run": 0x656D6268,
}


class Locks(Session):
    """Files beside an SQLite database, advisory locks of PostgreSQL."""

    @contextmanager
    def changing_versions(self, cid: int, name: str) -> Iterator[None]:
        """Held as long as versions of a collection are made, switched or dropped. Raises StoreBusy at once if it is."""
        with self._locked("versions", cid, wait=False) as got:
            if not got:
                raise StoreBusy(
                    f"Another process is reindexing {name!r}, or drops its old versions; wait for its end, or stop it."
                )
            yield

    @contextmanager
    def writing(self, cid: int) -> Iterator[None]:
        """Held alone for the moment in which products are written in store and backend: a batch, never a whole run.

        Nobody changes a product between a writer's look at it and the end of its write. A thread that holds the lock
        must not take it again.
        """
        with self._locked("writing", cid, wait=True):
            yield

    @contextmanager
    def running(self, run_id: int) -> Iterator[bool]:
        """Held as long as somebody works on a run; False at once if another one does."""
        with self._locked("run", run_id, wait=False) as got:
            try:
                yield got
            finally:
                if got and self._engine.dialect.name == "sqlite":  # or there would be a file for every run
                    Path(self._lock_file("run", run_id)).unlink(missing_ok=True)

    @contextmanager
    def _locked(self, name: LockName, number: int, *, wait: bool) -> Iterator[bool]:
        if self._engine.dialect.name == "sqlite":
            with self._file_lock(self._lock_file(name, number), wait) as got:
                yield got
        else:
            with self._advisory_lock(name, number, wait) as got:
                yield got

    def _lock_file(self, name: LockName, number: int) -> str:
        return f"{self._engine.url.database}.{name}-{number}.lock"

    @contextmanager
    def _file_lock(self, path: str, wait: bool) -> Iterator[bool]:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            if not may_write(Path(path)):
                raise not_writable(self.url) from error
            raise StoreError(f"The lock {path!r} of the metadata store cannot be made: {error.strerror}.") from error
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield _is_at(path, handle)
        finally:
            os.close(handle)

    @contextmanager
    def _advisory_lock(self, name: LockName, number: int, wait: bool) -> Iterator[bool]:
        keys = {"space": _SPACES[name], "number": number}
        with self._read() as connection:
            taken = connection.execute(
                sa.text(f"select pg_{'' if wait else 'try_'}advisory_lock(:space, :number)"), keys
            ).scalar()
            got = taken is not False  # the one that waits answers nothing
            try:
                yield got
            finally:
                if got:
                    _unlock(connection, keys)


def _is_at(path: str, handle: int) -> bool:
    """Whether an open file is still the one of that name: who held the lock may have removed it since it was opened."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


def _unlock(connection: sa.Connection, keys: Mapping[str, int]) -> None:
    try:
        connection.execute(sa.text("select pg_advisory_unlock(:space, :number)"), keys)
    except sa.exc.DBAPIError as error:
        if not error.connection_invalidated:  # else the server has let go of it with the connection
            raise
