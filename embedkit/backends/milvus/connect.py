"""Opening a connection: embedded Lite in a file, or a server with credentials and TLS."""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from embedkit import plugins
from embedkit.backends.contract import BackendOptions
from embedkit.backends.milvus.capabilities import LITE, SERVER
from embedkit.backends.url import BackendUrl
from embedkit.errors import BackendUnavailable, ConfigError, DiskFull, disk_is_full

__all__ = ["connect"]

_PORT = 19530
# Lite's own server hangs up on a client that asks whether it is there and nothing else, as pymilvus does every ten
# seconds, and gRPC writes that on the terminal. The two are one process: nothing need be asked.
_IDLE = {"grpc.keepalive_permit_without_calls": 0}


def connect(url: BackendUrl, options: BackendOptions) -> Any:
    """A MilvusBackend. Raises BackendUnavailable, ConfigError."""
    from embedkit.backends.milvus.backend import MilvusBackend
    from embedkit.backends.milvus.errors import translated

    plugins.require("pymilvus", "milvus", needed_for="The backend 'milvus'")
    from pymilvus import MilvusClient

    # These log every error with its stack before raising it; here it is translated and raised once.
    for name in ("pymilvus", "milvus_lite", "grpc._server"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with translated(url.safe):
        if url.host is None:
            path = url.local_path.absolute()
            client = _open_lite(path, MilvusClient)
            return MilvusBackend(url.safe, client, LITE, options.timeout, at_close=partial(_LITE.release, path))
        client = MilvusClient(**_server_arguments(url, options))
        return MilvusBackend(url.safe, client, SERVER, options.timeout)


class _Engines:
    """How many connections of this process use each embedded engine; the last one to go lets its file go too."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users: Counter[Path] = Counter()

    def hold(self, path: Path) -> None:
        with self._lock:
            self._users[path] += 1

    def release(self, path: Path) -> None:
        from milvus_lite.server_manager import server_manager_instance

        with self._lock:
            self._users[path] -= 1
            if self._users[path] <= 0:
                del self._users[path]
                server_manager_instance.release_server(str(path))


_LITE = _Engines()


def _open_lite(path: Path, client: Any) -> Any:
    plugins.require("milvus_lite", "milvus", needed_for="An embedded Milvus", package="milvus-lite")
    if path.suffix != ".db":
        raise ConfigError(f"An embedded Milvus lives in a path that ends in .db, and {str(path)!r} does not")
    from pymilvus.exceptions import MilvusException

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _no_room(path, error) from error
    if path.is_file():
        raise ConfigError(f"{str(path)!r} is a file, and an embedded Milvus lives in a folder; choose another path")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ConfigError(f"The embedded Milvus {str(path)!r} cannot be written; change its permissions")
    _LITE.hold(path)
    try:
        return client(str(path), grpc_options=_IDLE)
    except MilvusException as error:
        _LITE.release(path)
        raise BackendUnavailable(
            f"The embedded Milvus {str(path)!r} cannot be opened ({error.message}); if it is open in another process, "
            "wait for that to end, or use a Milvus server"
        ) from error


def _no_room(path: Path, error: OSError) -> Exception:
    if disk_is_full(error):
        return DiskFull(f"The disk of {str(path)!r} is full; free some space and run the same command again")
    return ConfigError(f"The folder of {str(path)!r} cannot be made: {error.strerror or error}")


def _server_arguments(url: BackendUrl, options: BackendOptions) -> dict[str, Any]:
    secure = options.tls or bool(options.tls_ca or options.tls_cert)
    for name in ("tls_ca", "tls_cert", "tls_key"):
        file = getattr(options, name)
        if file and not Path(file).is_file():
            raise ConfigError(f"backend_options.{name} names the file {file!r}, which is not there")
    arguments: dict[str, Any] = {
        "uri": f"{'https' if secure else 'http'}://{url.host}:{url.port or _PORT}",
        "user": url.user or options.user or "",
        "password": url.password or options.password or "",
        "token": options.token or "",
        "db_name": url.path,
        "timeout": options.timeout,
        "dedicated": True,  # else pymilvus takes the open connection of another client, whatever its password
    }
    if secure:
        arguments["secure"] = True
    pairs = {
        "ca_pem_path": options.tls_ca,
        "client_pem_path": options.tls_cert,
        "client_key_path": options.tls_key,
        "server_name": options.tls_server_name,
    }
    return {**arguments, **{name: value for name, value in pairs.items() if value}}
