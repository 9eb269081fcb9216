"""``faiss:///folder``: memory-mapped files on this machine, searched by FAISS."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedkit.backends.contract import BackendOptions, Capabilities

if TYPE_CHECKING:
    from embedkit.backends.contract import VectorBackend

__all__ = ["CAPABILITIES", "FACTORY"]

CAPABILITIES = Capabilities(
    name="faiss",
    metrics=("cosine", "ip", "l2"),
    vector_kinds=("float",),
    index_families=("flat", "hnsw", "ivf"),
    alias_switch=True,
    many_processes=True,
    emulated={
        "delete": "a tombstone at once, the space back by compaction in the background",
        "filter": "columns kept in typed arrays beside the vectors, evaluated before the search",
    },
)


class _Factory:
    def capabilities(self, url: str) -> Capabilities:
        del url
        return CAPABILITIES

    def open(self, url: str, options: BackendOptions) -> VectorBackend:
        from embedkit.backends.faiss.backend import FaissBackend
        from embedkit.backends.url import parse_url

        del options
        return FaissBackend(parse_url(url).local_path)


FACTORY = _Factory()
