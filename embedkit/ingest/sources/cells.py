"""Values of tables and databases as plain JSON."""

from __future__ import annotations

import json
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

__all__ = ["is_utf8", "plain", "typed"]


def plain(value: Any) -> Any:
    """What databases and Parquet hold beyond JSON, as JSON: dates in ISO 8601, decimals as numbers.

    >>> plain({"when": date(2026, 1, 2), "sizes": (Decimal("1.50"), Decimal("2"))})
    {'when': '2026-01-02', 'sizes': [1.5, 2]}
    """
    if isinstance(value, Decimal):
        return int(value) if value.is_finite() and value == value.to_integral_value() else float(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, bytes | memoryview):
        return None
    if isinstance(value, dict):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def typed(cell: str) -> Any:
    """Numbers only as JSON writes them, so that ``007`` and phone numbers stay text.

    >>> [typed(cell) for cell in ("007", "1e3", "true", "n/a", "-2", "x")]
    ['007', 1000.0, True, None, -2, 'x']
    """
    text = cell.strip()
    if text == "" or text.lower() in ("nan", "null", "none", "n/a", "na"):
        return None
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if text[0] in "-0123456789" and len(text) < 25:
        try:
            value = json.loads(text)
        except ValueError:
            return cell
        return value if isinstance(value, int | float) else cell
    return cell


def is_utf8(text: str) -> bool:
    """Whether a text read with ``surrogateescape`` was valid UTF-8."""
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)
