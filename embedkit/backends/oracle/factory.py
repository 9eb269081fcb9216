"""``oracle://name``: the exact NumPy backend, to hold other backends to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedkit.backends.contract import BackendOptions, Capabilities
from embedkit.backends.oracle.capabilities import CAPABILITIES

if TYPE_CHECKING:
    from embedkit.backends.contract import VectorBackend

__all__ = ["FACTORY"]


class _Factory:
    def capabilities(self, url: str) -> Capabilities:
        del url
        return CAPABILITIES

    def open(self, url: str, options: BackendOptions) -> VectorBackend:
        from embedkit.backends.oracle.backend import OracleBackend

        del options
        return OracleBackend(url)


FACTORY = _Factory()
