"""``faiss:///folder``: memory-mapped files on this machine, searched by FAISS."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedkit.backends.contract import BackendOptions, Capabilities
from embedkit.backends.faiss.capabilities import CAPABILITIES

if TYPE_CHECKING:
    from embedkit.backends.contract import VectorBackend

__all__ = ["FACTORY"]


class _Factory:
    def capabilities(self, url: str) -> Capabilities:
        del url
        return CAPABILITIES

    def open(self, url: str, options: BackendOptions) -> VectorBackend:
        from embedkit.backends.faiss.backend import FaissBackend
        from embedkit.backends.url import parse_url

        del options
        parsed = parse_url(url)
        parsed.check_options()
        return FaissBackend(parsed.local_path)


FACTORY = _Factory()
