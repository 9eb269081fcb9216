"""Documents as the JSON that goes out.

The official client takes lists of Python numbers, where a float32 has up to 18 digits, twice as many as tell it from
every other. To write and read these was most of what an upsert costs on both sides, but for the index.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from embedkit.backends.vearch.filters import TOKENS, tokens
from embedkit.backends.vearch.reading import Place
from embedkit.backends.vearch.schema import COLUMNS, ID

if TYPE_CHECKING:
    from embedkit.types import IdArray, VectorArray

__all__ = ["documents", "id_token"]


def id_token(row: int) -> str:
    """The token by which a search is kept to some rows."""
    return f"#{row}"


def documents(place: Place, ids: IdArray, rows: VectorArray, texts: Sequence[str], stamp: str) -> list[str]:
    """One document a row: ids ``(n,)``, rows ``(n, spec.width)``, columns as JSON. `stamp`: a token of all of them."""
    form = f'{{{{"_id":"{{0}}","{ID}":{{0}},"{TOKENS}":["{{1}}"],"{COLUMNS}":{{2}},"{place.layout.field}":{{3}}}}}}'
    made = []
    for row, text, vector in zip(ids.tolist(), texts, place.layout.written(rows, place.spec), strict=True):
        # No token holds anything that JSON escapes.
        every = '","'.join(tokens(json.loads(text), [id_token(row), stamp]))
        made.append(form.format(row, every, json.dumps(text), vector))
    return made
