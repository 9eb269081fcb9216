"""``vearch://host:9001/database``: a Vearch cluster, by its router."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedkit.backends.contract import BackendOptions, Capabilities
from embedkit.backends.url import parse_url
from embedkit.backends.vearch.capabilities import CAPABILITIES

if TYPE_CHECKING:
    from embedkit.backends.contract import VectorBackend

__all__ = ["FACTORY"]


class _Factory:
    def capabilities(self, url: str) -> Capabilities:
        parse_url(url)
        return CAPABILITIES

    def open(self, url: str, options: BackendOptions) -> VectorBackend:
        from embedkit.backends.vearch.connect import connect

        parsed = parse_url(url)
        parsed.check_options()
        backend: VectorBackend = connect(parsed, options)
        return backend


FACTORY = _Factory()
