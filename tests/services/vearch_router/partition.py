"""A partition server: one table in a process of its own, which dies at once where an engine takes seconds to close."""

from __future__ import annotations

import multiprocessing
import shutil
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

INDEX_TYPES = ("BINARYIVF", "FLAT", "HNSW", "IVFFLAT", "IVFPQ")
SCALARS = ("string", "keyword", "stringArray", "integer", "long", "float", "double")


class Partition:
    """Calls on a `gamma.Table`, one at a time. It ends with the process that made it."""

    def __init__(self, folder: Path, fields: list[dict[str, Any]]) -> None:
        (self.vector,) = (field for field in fields if field["type"] == "vector")
        self._folder, self._lock = folder, threading.Lock()
        self._calls, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.Process(target=_serve, args=(theirs, folder, fields), daemon=True)
        self._process.start()
        theirs.close()
        self._received()

    def call(self, method: str, *arguments: Any, **keywords: Any) -> Any:
        """What the method of the table returns, or raises."""
        with self._lock:
            self._calls.send((method, arguments, keywords))
            return self._received()

    def _received(self) -> Any:
        good, answer = self._calls.recv()
        if good:
            return answer
        raise answer

    def drop(self) -> None:
        """End it and remove its files."""
        self._process.kill()
        self._process.join()
        self._calls.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _serve(calls: Connection, folder: Path, fields: list[dict[str, Any]]) -> None:
    import gamma

    try:
        table = gamma.Table(folder, fields)
    except RuntimeError as error:
        calls.send((False, error))
        return
    calls.send((True, None))
    while True:
        try:
            method, arguments, keywords = calls.recv()
        except EOFError:
            return
        try:
            answer = (True, getattr(table, method)(*arguments, **keywords))
        except Exception as error:  # noqa: BLE001 - it is the caller's
            answer = (False, error)
        calls.send(answer)
