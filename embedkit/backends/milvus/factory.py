"""``milvus:///file.db`` (embedded Lite) and ``milvus://host:19530/database`` (a server)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedkit.backends.contract import BackendOptions, Capabilities
from embedkit.backends.milvus.capabilities import LITE, SERVER
from embedkit.backends.url import parse_url

if TYPE_CHECKING:
    from embedkit.backends.contract import VectorBackend

__all__ = ["FACTORY"]


class _Factory:
    def capabilities(self, url: str) -> Capabilities:
        return SERVER if parse_url(url).host else LITE

    def open(self, url: str, options: BackendOptions) -> VectorBackend:
        from embedkit.backends.milvus.connect import connect

        parsed = parse_url(url)
        parsed.check_options()
        backend: VectorBackend = connect(parsed, options)
        return backend


FACTORY = _Factory()
