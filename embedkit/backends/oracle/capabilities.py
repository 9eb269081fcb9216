"""What the backend can do, as data."""

from __future__ import annotations

from embedkit.backends.contract import Capabilities

__all__ = ["CAPABILITIES"]

CAPABILITIES = Capabilities(
    name="oracle",
    metrics=("cosine", "ip", "l2", "hamming"),
    vector_kinds=("float", "binary"),
    index_families=("flat",),
    binary_families=("flat",),
    ties_by_id=True,
    alias_switch=True,
    durable=False,
)
