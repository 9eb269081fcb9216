"""What the collections of a kit share, each opened on first use: store, backend, encoders."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, cast

from embedkit.config import Settings
from embedkit.errors import ConfigError, EmbedkitError
from embedkit.urls import anchored, redact

if TYPE_CHECKING:
    from embedkit.backends.contract import BackendOptions, VectorBackend
    from embedkit.encoders.contract import Encoder, RuntimeName
    from embedkit.metadata.rows import CollectionRow
    from embedkit.metadata.store import MetadataStore

__all__ = ["Resources"]


class Resources:
    """Opened once and closed together, for good; safe to use from several threads, and by one process alone.

    Relative paths are those of the working directory in which it was made, whatever that becomes.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.backend_url = redact(settings.backend)
        self._lock = threading.RLock()
        self._store: MetadataStore | None = None
        self._backend: VectorBackend | None = None
        self._encoders: dict[str, Encoder] = {}
        self.sketched: set[str] = set()  # encoders that sketches were asked of
        self._known: dict[str, tuple[int, str]] = {}  # physical collections: whose, and the index the store named last
        self._closed = False
        self._folder = _working_folder()
        self._process = os.getpid()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "A kit holds open files and connections, and can neither be copied nor sent to another process; "
            "connect there: embedkit.connect(…)"
        )

    def check_open(self) -> None:
        """Raises ConfigError once it is closed, and in a fork of the process that opened it."""
        if self._closed:
            raise ConfigError("This kit is closed, and so are its collections; connect again: embedkit.connect(…)")
        self._check_process()

    def _check_process(self) -> None:
        """To be asked without the lock, which a thread that there is no more may hold in a fork."""
        if self._process == os.getpid():
            return
        if self._store or self._backend or self._encoders:
            raise ConfigError(
                "This kit was opened before the process forked, and its files, connections and threads belong to the "
                "parent; connect again in this one: embedkit.connect(…)"
            )
        self._lock, self._process = threading.RLock(), os.getpid()

    @property
    def store(self) -> MetadataStore:
        self._check_process()
        with self._lock:
            self.check_open()
            if self._store is None:
                from embedkit.metadata.store import open_store

                self._store = open_store(self.settings.store, folder=self._folder)
            return self._store

    @property
    def backend(self) -> VectorBackend:
        self._check_process()
        with self._lock:
            self.check_open()
            if self._backend is None:
                from embedkit.backends.open import open_backend

                self._backend = open_backend(anchored(self.settings.backend, self._folder), self.backend_options)
            return self._backend

    def check_folder(self) -> None:
        """Ask the backend of a path at which a file lies, and nothing else. Raises ConfigError if it needs a folder."""
        from embedkit.backends.url import parse_url

        url = parse_url(self.settings.backend)
        if url.path and not url.host and (self._folder / url.local_path).is_file():
            self.backend.list()

    def notice(self, row: CollectionRow) -> None:
        """Let an open backend read anew what has become another one, as when another process built an index.

        A backend that knows a collection's index puts search parameters into its words. A collection that was dropped
        and made again has the same name in the backend, and perhaps another metric.
        """
        with self._lock:
            for view in row.views:
                now = (row.id, view.index)
                if self._backend is not None and self._known.get(view.physical, now) != now:
                    try:
                        self._backend.describe(view.physical)
                    except EmbedkitError:  # which whatever asks the backend next will tell
                        continue
                self._known[view.physical] = now

    @property
    def backend_options(self) -> BackendOptions:
        """What the settings say of a backend beside its URL."""
        from embedkit.backends.contract import BackendOptions

        given = self.settings.backend_options
        return BackendOptions(
            timeout=given.timeout,
            user=given.user,
            password=given.password.get_secret_value() if given.password else None,
            token=given.token.get_secret_value() if given.token else None,
            tls=given.tls,
            tls_ca=given.tls_ca,
            tls_cert=given.tls_cert,
            tls_key=given.tls_key,
            tls_server_name=given.tls_server_name,
            partitions=given.partitions,
            replicas=given.replicas,
        )

    def encoder(self, spec: str) -> Encoder:
        """The encoder of a spec string, loaded once."""
        from embedkit.encoders.load import absolute_spec

        self._check_process()
        with self._lock:
            self.check_open()
            name = absolute_spec(spec)
            if name not in self._encoders:
                self._encoders[name] = self._loaded(spec)
            return self._encoders[name]

    def _loaded(self, spec: str) -> Encoder:
        """Codes and their floats by one network."""
        from embedkit.encoders.load import FLOATS, load_encoder

        if spec.startswith(FLOATS):
            from embedkit.encoders.floats import FloatsOfCodes

            return FloatsOfCodes(self.encoder(spec.removeprefix(FLOATS)))
        runtime = cast("RuntimeName", self.settings.runtime)
        return load_encoder(spec, runtime=runtime, cache_dir=self.settings.cache_dir)

    def read(self, uri: str) -> bytes:
        """The bytes of a picture, wherever it lies. Raises BadImage, FetchFailed, FetchTimeout."""
        from contextlib import closing

        from embedkit.errors import BadImage
        from embedkit.ingest.fetch import Fetcher, is_remote

        self.check_open()
        with closing(Fetcher(self.settings.fetch)) as fetcher:
            fetched = fetcher.submit(uri).result() if is_remote(uri) else fetcher.read_local(uri)
        if fetched.data is None:
            raise BadImage(f"{redact(uri)}: the host sent no picture")
        return fetched.data

    def close(self) -> None:
        """Release everything; what a fork has of it is the parent's to release."""
        if self._process != os.getpid():
            self._closed = True
            return
        with self._lock, ExitStack() as opened:  # which ends them all, also where one of them fails to
            self._closed = True
            for one in (self._store, self._backend, *self._encoders.values()):
                if one is not None:
                    opened.callback(one.close)
            self._encoders.clear()
            self._backend = self._store = None


def _working_folder() -> Path:
    try:
        return Path.cwd()
    except OSError:  # it was removed; what has an absolute path is found all the same
        return Path()
