"""The FAISS backend: a folder with one sub-folder a collection, and the aliases in one small file."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from embedkit.backends.contract import (
    CollectionSpec,
    Fetched,
    IndexSpec,
    IndexUse,
    SearchParams,
    SearchResult,
    VectorBackend,
)
from embedkit.backends.faiss.capabilities import CAPABILITIES
from embedkit.backends.faiss.collection import FaissCollection
from embedkit.backends.faiss.errors import already_there, not_found, translated
from embedkit.backends.faiss.folders import removed, sweep
from embedkit.backends.validation import (
    check_filter,
    checked_columns,
    checked_ids,
    checked_k,
    checked_queries,
    checked_rows,
    checked_spec,
    closed,
)
from embedkit.errors import BadInput, ConfigError, DataCorrupt
from embedkit.filters import Filter
from embedkit.types import Attributes

if TYPE_CHECKING:
    from embedkit.types import IdArray, VectorArray

__all__ = ["FaissBackend"]

_ALIASES = "aliases.json"


class FaissBackend(VectorBackend):
    """Opens collections on first use and keeps them mapped."""

    capabilities = CAPABILITIES

    def __init__(self, root: Path) -> None:
        self.url = f"faiss:///{root.as_posix()}"
        self._root = root
        self._lock = threading.RLock()
        self._open: dict[str, FaissCollection] = {}
        self._alias_table: dict[str, str] = {}
        self._alias_mark: tuple[int, int, int] | None = None
        self._closed = False
        sweep(root)

    def _check_open(self) -> None:
        if self._closed:
            raise closed(self.url)

    def _get(self, name: str) -> FaissCollection:
        with self._lock:
            self._check_open()
            real = self._aliases().get(name, name)
            there = self._open.get(real)
            if there is not None and there.exists():
                return there
            if there is not None:  # another process has dropped it
                self._open.pop(real).close(dropped=True)
            if not real or real.startswith(".") or "/" in real:
                raise not_found(name)
            self._open[real] = FaissCollection(self._root / real)
            return self._open[real]

    def _aliases(self) -> dict[str, str]:
        """Read again when the file is another one than last time; a switch puts a new file in its place."""
        path = self._root / _ALIASES
        try:
            stat = os.stat(path)
            mark = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if mark != self._alias_mark:
                self._alias_table, self._alias_mark = json.loads(path.read_text(encoding="utf-8")), mark
        except FileNotFoundError:
            return {}
        except NotADirectoryError as error:
            raise ConfigError(
                f"{str(self._root)!r} is a file, and {self.url} needs a folder; choose another"
            ) from error
        except (OSError, ValueError) as error:
            raise DataCorrupt(f"{path}: the aliases cannot be read ({error}); switch them again") from error
        return self._alias_table

    def _write_aliases(self, table: dict[str, str]) -> None:
        draft = self._root / f".{_ALIASES}.{os.getpid()}"
        with translated(self._root):
            draft.write_text(json.dumps(table, indent=1), encoding="utf-8")
            os.replace(draft, self._root / _ALIASES)

    def create(self, spec: CollectionSpec) -> None:
        wanted = checked_spec(spec, CAPABILITIES)
        with self._lock:
            self._check_open()
            if (self._root / wanted.name).exists() or wanted.name in self._aliases():
                raise already_there(self._root / wanted.name)
            FaissCollection.create(self._root / wanted.name, wanted)
            if wanted.index != IndexSpec():
                self._built(wanted)

    def _built(self, spec: CollectionSpec) -> None:
        """The index of a new collection; without it there is no collection either."""
        try:
            self.build_index(spec.name, spec.index)
        except BaseException:
            self.drop(spec.name)
            raise

    def drop(self, name: str) -> None:
        with self._lock, translated(self._root):
            self._check_open()
            if name in self._open:
                self._open.pop(name).close(dropped=True)
            if name in self.list():
                removed(self._root / name)
            left = {alias: target for alias, target in self._aliases().items() if target != name}
            if left != self._aliases():
                self._write_aliases(left)

    def list(self) -> tuple[str, ...]:
        self._check_open()
        self._aliases()  # which says so if the folder is a file
        found = (path.parent.name for path in self._root.glob("*/rows.sqlite"))
        return tuple(sorted(name for name in found if not name.startswith(".")))

    def describe(self, name: str) -> CollectionSpec:
        there = self._get(name)
        there.count()  # reads the state again if another process has built an index
        return replace(there.spec)

    def upsert(
        self, name: str, ids: IdArray, vectors: VectorArray, columns: Sequence[Attributes] | None = None
    ) -> None:
        there = self._get(name)
        ids, rows = checked_rows(there.spec, ids, vectors)
        texts = checked_columns(columns, len(ids), CAPABILITIES)
        if len(ids):
            there.upsert(ids, rows, texts)

    def update_columns(self, name: str, ids: IdArray, columns: Sequence[Attributes]) -> None:
        there, ids = self._get(name), checked_ids(ids)
        texts = checked_columns(columns, len(ids), CAPABILITIES)
        if len(ids):
            there.update_columns(ids, texts)

    def delete(self, name: str, ids: IdArray) -> None:
        there, ids = self._get(name), checked_ids(ids)
        if len(ids):
            there.delete(ids)

    def search(
        self,
        name: str,
        queries: VectorArray,
        k: int,
        where: Filter | None = None,
        params: SearchParams | None = None,
    ) -> SearchResult:
        there = self._get(name)
        if where is not None:
            check_filter(where, CAPABILITIES)
        return there.search(checked_queries(there.spec, queries), checked_k(k, CAPABILITIES), where, params)

    def fetch(self, name: str, ids: IdArray) -> Fetched:
        return self._get(name).fetch(checked_ids(ids))

    def scan_ids(self, name: str, batch: int = 10_000) -> Iterator[IdArray]:
        return self._get(name).scan_ids(batch)

    def count(self, name: str) -> int:
        return self._get(name).count()

    def flush(self, name: str) -> None:
        self._get(name).flush()

    def build_index(self, name: str, spec: IndexSpec) -> None:
        there = self._get(name)
        checked_spec(replace(there.spec, index=spec), CAPABILITIES)
        there.build_index(spec)

    def index_use(self, name: str) -> IndexUse:
        return self._get(name).index_use()

    def switch_alias(self, alias: str, name: str) -> None:
        with self._lock:
            target = self._get(name).folder.name
            if alias in self.list():
                raise BadInput(f"{alias!r} is a collection; an alias needs a name of its own")
            self._write_aliases({**self._aliases(), alias: target})

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for there in self._open.values():
                there.close()
            self._open.clear()
