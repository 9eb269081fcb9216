"""Where a collection lies, and every row of it, page by page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from embedkit.backends.contract import CollectionSpec
from embedkit.backends.vearch.client import Condition, Document, VearchClient
from embedkit.backends.vearch.layout import Layout
from embedkit.backends.vearch.schema import ID

__all__ = ["Place", "pages", "rows_of_a_request"]

_HIGHEST = 2**63 - 1
_NUMBERS = 400_000  # of one message, some 8 MB of JSON
_MOST = 1_000


@dataclass(frozen=True, slots=True)
class Place:
    """What a name stands for. `name`: as it was asked for; `wire`: for the document API; `space`: behind it now.

    `enough`: rows of a partition from which on its index is trained, 0 for one that learns nothing.
    """

    name: str
    wire: str
    space: str
    spec: CollectionSpec
    layout: Layout
    enough: int


def rows_of_a_request(spec: CollectionSpec) -> int:
    """How many vectors make a message of a fair size."""
    return max(1, min(_MOST, _NUMBERS // spec.dim))


def pages(
    client: VearchClient, place: Place, conditions: Sequence[Condition], fields: Sequence[str]
) -> Iterator[list[Document]]:
    """Every document that passes, with `fields`.

    A query has a limit and no order, so ranges of ids are asked for, and halved where one holds more than a page. Ids
    are mostly written in ascending order, so the first cut is tried where that would have it.
    """
    page = rows_of_a_request(place.spec) if place.layout.field in fields else _MOST
    ranges = [(0, _HIGHEST, True)]
    while ranges:
        low, high, ascending = ranges.pop()
        between = (Condition(ID, ">=", low), Condition(ID, "<=", high))
        found = client.query(place.wire, [*conditions, *between], page + 1, ["_id", *fields], place.name)
        if len(found) > page:
            ids = sorted(int(document["_id"]) for document in found)
            cut = ids[page - 1] if ascending else ids[page // 2 - 1 if page > 1 else 0]
            ranges += [(cut + 1, high, ascending), (low, cut, False)]
        elif found:
            yield found
