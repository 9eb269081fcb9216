"""What a collection does beside ingesting and answering: new versions, other backends, backups, imports."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from embedkit.arguments import check_kind, check_texts
from embedkit.errors import BadInput

if TYPE_CHECKING:
    from embedkit.ingest.report import ProgressCallback
    from embedkit.living.backup import BackupReport
    from embedkit.living.copy import CopyReport
    from embedkit.living.reindex import ReindexReport
    from embedkit.living.versions import GcReport, Switched
    from embedkit.metadata.rows import CollectionRow
    from embedkit.resources import Resources

__all__ = ["Living"]

_ROW_SECONDS = 1.0


class Living:
    """The part of `Collection` that knows that it has versions, and other places to be."""

    def __init__(self, name: str, resources: Resources) -> None:
        self.name = name
        self._resources = resources
        self._row: CollectionRow | None = None
        self._row_until = 0.0

    # -- versions ----------------------------------------------------------------------------------

    def reindex(
        self,
        *,
        encoder: Mapping[str, str] | None = None,
        index: str | None = None,
        switch: bool = True,
        max_failed: float = 0.01,
        k: int = 10,
        queries: int = 200,
        progress: ProgressCallback | None = None,
    ) -> ReindexReport:
        """Build a new version beside the one that serves, compare the two, and let the new one serve.

        `encoder`: spec strings of the views that change; pictures are read again from where they were ingested.
        `index`: of every view; where only it changes, vectors are copied. Neither: go on with the version begun. What a
        killed run has made is kept. Ingests and deletes meanwhile, in any process, go into both versions.

        `switch`: let it serve, unless more than the share `max_failed` of the products failed. `queries` products ask
        both versions for their `k` nearest (`ReindexReport.comparison`).

        Raises BackendUnavailable, BadInput, CollectionExists, CollectionNotFound, ConfigError, DiskFull,
        EncoderMismatch, StoreBusy (another reindex runs), UnsupportedByBackend; the old version serves on.
        """
        from embedkit.living.reindex import reindex

        check_texts(encoder, 'encoder is a mapping such as {"image": "effnet-lite0"}')
        check_kind(index, str | None, "index is a text such as 'hnsw(m=32)'")
        check_kind(max_failed, Real, "max_failed is a share")
        for name, value in (("k", k), ("queries", queries)):
            check_kind(value, Integral, f"{name} is a whole number")
            if value < 1:
                raise BadInput(f"{name}={value} is not a number of products; give 1 or more")
        try:
            return reindex(
                self._resources,
                self.name,
                encoder=dict(encoder or {}),
                index=index,
                switching=switch,
                max_failed=max_failed,
                k=k,
                queries=queries,
                progress=progress,
            )
        finally:
            self._row = None

    def rollback(self) -> Switched:
        """Let the version serve that did so before the last switch; once more, and it is switched back.

        Raises BadInput, CollectionNotFound, EncoderMismatch, StoreBusy.
        """
        from embedkit.living.versions import roll_back

        try:
            return roll_back(self._resources, self.name)
        finally:
            self._row = None

    def gc(self, *, unfinished: bool = False, dry_run: bool = False) -> GcReport:
        """Drop the versions that have served and no longer do; with `unfinished` those that were begun, too.

        Raises CollectionNotFound, StoreBusy.
        """
        from embedkit.living.versions import collect_garbage

        return collect_garbage(self._resources, self.name, unfinished=unfinished, dry_run=dry_run)

    # -- other places ------------------------------------------------------------------------------

    def copy_to(self, url: str, *, index: str | None = None, progress: ProgressCallback | None = None) -> CopyReport:
        """Copy the collection to another backend, without encoding anything; it is then a collection of that place.

        `index`: another index there. Every product and vector is read back and compared with the one here before this
        says that it is done. Killed, it goes on with the next call; a second call copies what has changed.

        Raises BackendUnavailable, BadInput, CollectionExists, CollectionNotFound, DataCorrupt, DiskFull,
        UnsupportedByBackend.
        """
        from embedkit.living.copy import copy_collection

        check_kind(url, str, "A backend is a URL")
        check_kind(index, str | None, "index is a text such as 'hnsw(m=32)'")
        self._existing()
        return copy_collection(self._resources, self.name, url, index=index, progress=progress)

    def backup(self, folder: str | Path, *, progress: ProgressCallback | None = None) -> BackupReport:
        """Write keys, titles, attributes and vectors into a new folder, as Parquet with a manifest of checksums.

        `Kit.restore` makes a collection of it again. Raises BadInput, CollectionNotFound, ConfigError, DiskFull.
        """
        from embedkit.living.backup import back_up

        check_kind(folder, str | Path, "A folder is a path")
        self._existing()
        return back_up(self._resources, self.name, Path(folder), progress=progress)

    # -- how ---------------------------------------------------------------------------------------

    def _existing(self) -> CollectionRow:
        """The row, at most a second old.

        So long a search may take the version that served before a switch, and ask with parameters of before a tuning.
        """
        self._resources.check_open()
        row = self._row  # which another thread may forget meanwhile
        return self._fresh() if row is None or monotonic() > self._row_until else row

    def _fresh(self) -> CollectionRow:
        self._resources.check_open()
        row = self._resources.store.collection(self.name, self._resources.backend_url)
        self._row, self._row_until = row, monotonic() + _ROW_SECONDS
        self._resources.notice(row)
        return row
