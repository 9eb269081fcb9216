"""The store's locks on a collection, which a killed process lets go of by itself."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import sqlalchemy as sa

from embedkit.errors import StoreBusy, StoreError
from embedkit.metadata.errors import not_writable
from embedkit.metadata.session import Session
from embedkit.sqlite import may_write

__all__ = ["LockName", "Locks"]

LockName = Literal["versions", "writing"]
_SPACES: dict[LockName, int] = {"versions": 0x656D6266, "writing": 0x656D6267}  # of PostgreSQL's advisory locks


class Locks(Session):
    """Files beside an SQLite database, advisory locks of PostgreSQL."""

    @contextmanager
    def changing_versions(self, cid: int, name: str) -> Iterator[None]:
        """Held as long as versions of a collection are made, switched or dropped. Raises StoreBusy at once if it is."""
        with self._locked("versions", cid, exclusive=True, wait=False) as got:
            if not got:
                raise StoreBusy(
                    f"Another process is reindexing {name!r}, or drops its old versions; wait for its end, or stop it."
                )
            yield

    @contextmanager
    def writing(self, cid: int, *, exclusive: bool = False) -> Iterator[None]:
        """Held for the moment in which products are written in store and backend.

        Any number of ingests share it. A reindex has it alone, so that nobody changes a product between its look at
        the product and its write.
        """
        with self._locked("writing", cid, exclusive=exclusive, wait=True):
            yield

    @contextmanager
    def _locked(self, name: LockName, cid: int, *, exclusive: bool, wait: bool) -> Iterator[bool]:
        if self._engine.dialect.name == "sqlite":
            with self._file_lock(f"{self._engine.url.database}.{name}-{cid}.lock", exclusive, wait) as got:
                yield got
        else:
            with self._advisory_lock(name, cid, exclusive, wait) as got:
                yield got

    @contextmanager
    def _file_lock(self, path: str, exclusive: bool, wait: bool) -> Iterator[bool]:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            if not may_write(Path(path)):
                raise not_writable(self.url) from error
            raise StoreError(f"The lock {path!r} of the metadata store cannot be made: {error.strerror}.") from error
        try:
            how = (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | (0 if wait else fcntl.LOCK_NB)
            try:
                fcntl.flock(handle, how)
            except BlockingIOError:
                yield False
                return
            yield True
        finally:
            os.close(handle)

    @contextmanager
    def _advisory_lock(self, name: LockName, cid: int, exclusive: bool, wait: bool) -> Iterator[bool]:
        shared = "" if exclusive else "_shared"
        keys = {"space": _SPACES[name], "cid": cid}
        with self._read() as connection:
            taken = connection.execute(
                sa.text(f"select pg_{'' if wait else 'try_'}advisory_lock{shared}(:space, :cid)"), keys
            ).scalar()
            got = taken is not False  # the one that waits answers nothing
            try:
                yield got
            finally:
                if got:
                    connection.execute(sa.text(f"select pg_advisory_unlock{shared}(:space, :cid)"), keys)
