"""The oracle evaluates filters row by row."""

from __future__ import annotations

from embedkit.matching import matches

__all__ = ["matches"]
