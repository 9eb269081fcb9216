"""What the backend can do, as data."""

from __future__ import annotations

from embedkit.backends.contract import Capabilities

__all__ = ["CAPABILITIES"]

CAPABILITIES = Capabilities(
    name="oracle",
    metrics=("cosine", "ip", "l2"),
    vector_kinds=("float",),
    index_families=("flat",),
    alias_switch=True,
    durable=False,
)
