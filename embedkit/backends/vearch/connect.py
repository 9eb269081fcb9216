"""Opening a connection: the official client, with a session of our own in it."""

from __future__ import annotations

import logging.config
import threading
from pathlib import Path
from typing import Any

from embedkit import plugins
from embedkit.backends.contract import BackendOptions
from embedkit.backends.url import BackendUrl
from embedkit.errors import ConfigError

__all__ = ["connect"]

_PORT = 9001
_USER = "root"
_IMPORT = threading.Lock()


def connect(url: BackendUrl, options: BackendOptions) -> Any:
    """A VearchBackend. Raises BackendUnavailable, ConfigError, MissingExtra."""
    if not url.host:
        raise ConfigError(f"The URL {url.safe!r} names no host; write for example vearch://host:{_PORT}/database")
    if not url.path or "/" in url.path:
        raise ConfigError(
            f"The URL {url.safe!r} names no database; write vearch://{url.host}:{url.port or _PORT}/database"
        )
    rest = _rest_client()
    from embedkit.backends.vearch.backend import VearchBackend
    from embedkit.backends.vearch.client import VearchClient

    secure = options.tls or bool(options.tls_ca or options.tls_cert)
    host = f"{'https' if secure else 'http'}://{url.host}:{url.port or _PORT}"
    client = rest(host=host, timeout=options.timeout)
    client.s.close()
    client.s = _session(url, options)
    calls = VearchClient(client, url.path, url.safe)
    known = calls.dbs()
    if url.path not in known:
        raise ConfigError(
            f"Vearch at {url.safe} has no database {url.path!r} (it has: {', '.join(known) or 'none'}); choose one, or "
            f"make it: curl -X POST {host}/dbs/{url.path}"
        )
    return VearchBackend(calls, options)


def _rest_client() -> Any:
    """The class, imported without what its import does: it sets up logging for the whole process, opens a file
    ``err.log`` in the working directory and closes the handlers of the program that imports it.
    """
    with _IMPORT:
        configure = logging.config.dictConfig
        logging.config.dictConfig = lambda config: None  # noqa: ARG005
        try:
            module = plugins.require(
                "vearch.core.client", "vearch", needed_for="The backend 'vearch'", package="pyvearch"
            )
        finally:
            logging.config.dictConfig = configure
    return module.RestClient


def _session(url: BackendUrl, options: BackendOptions) -> Any:
    from embedkit.backends.vearch.session import VearchSession

    password = url.password or options.password or options.token
    user = url.user or options.user or _USER
    session = VearchSession(timeout=options.timeout, auth=(user, password) if password else None)
    for name in ("tls_ca", "tls_cert", "tls_key"):
        file = getattr(options, name)
        if file and not Path(file).is_file():
            raise ConfigError(f"backend_options.{name} names the file {file!r}, which is not there")
    if options.tls_server_name:
        raise ConfigError(
            "backend_options.tls_server_name means nothing to Vearch; name the host as its certificate does"
        )
    if options.tls_ca:
        session.verify = options.tls_ca
    if options.tls_cert:
        session.cert = (options.tls_cert, options.tls_key) if options.tls_key else options.tls_cert
    return session
