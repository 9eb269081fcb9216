"""Backend URLs: ``scheme://[user[:password]@]host[:port]/path``, as in SQLAlchemy and fsspec."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from embedkit.errors import ConfigError
from embedkit.urls import redact

__all__ = ["BackendUrl", "parse_url", "redact"]


@dataclass(frozen=True, slots=True)
class BackendUrl:
    """A parsed URL. With no host it names a local path: three slashes relative, four absolute."""

    scheme: str
    host: str | None
    port: int | None
    path: str
    user: str | None
    password: str | None
    query: tuple[tuple[str, str], ...] = ()

    @property
    def local_path(self) -> Path:
        """``faiss:///rel`` is relative to the working directory, ``faiss:////abs`` is absolute."""
        if self.host:
            raise ConfigError(
                f"The URL {self.safe!r} names the host {self.host!r} where a folder is meant; write "
                f"{self.scheme}:///relative/path or {self.scheme}:////absolute/path"
            )
        if not self.path:
            raise ConfigError(
                f"The URL {self.safe!r} names no file; write {self.scheme}:///relative/path or {self.scheme}:////absolute/path"
            )
        return Path(self.path)

    @property
    def safe(self) -> str:
        """The URL with ``***`` for the password."""
        user = quote(self.user, safe="") if self.user else ""
        secret = ":***" if self.password else ""
        at = f"{user}{secret}@" if user or secret else ""
        port = f":{self.port}" if self.port else ""
        return f"{self.scheme}://{at}{self.host or ''}{port}{'/' + self.path if self.path or not self.host else ''}"

    def check_options(self, *known: str) -> None:
        """Raise ConfigError for an option behind the ``?`` that the backend does not know."""
        for name, _ in self.query:
            if name not in known:
                hint = f"known: {', '.join(known)}" if known else "it takes none; write %3F for a ? in a path"
                raise ConfigError(f"The backend {self.scheme!r} has no option {name!r} in its URL; {hint}")


def parse_url(url: str) -> BackendUrl:
    """Raises ConfigError when it is no URL.

    >>> parse_url("faiss:////srv/index").local_path
    PosixPath('/srv/index')
    >>> parse_url("milvus://root:secret@db:19530/shop").safe
    'milvus://root:***@db:19530/shop'
    """
    scheme, separator, _ = url.partition("://")
    if not separator or not scheme:
        raise ConfigError(
            f"{redact(url)!r} is not a backend URL; write for example faiss:///.embedkit/faiss or milvus://host:19530"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"The backend URL {redact(url)!r} cannot be read: {error}") from error
    if "#" in url:
        raise ConfigError(f"The backend URL {redact(url)!r} holds a #; write %23 for it")
    return BackendUrl(
        scheme=scheme.lower(),
        host=parts.hostname,
        port=port,
        path=unquote(parts.path.removeprefix("/")),
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        query=tuple(parse_qsl(parts.query, keep_blank_values=True)),
    )
