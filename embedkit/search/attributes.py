"""Which attributes products have: a name that none has is most often a misspelt one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from embedkit.errors import BadInput, did_you_mean, listed
from embedkit.filters import Path
from embedkit.matching import value_at
from embedkit.search.ranks import attributes_of

if TYPE_CHECKING:
    from embedkit.metadata.rows import CollectionRow
    from embedkit.metadata.store import MetadataStore
    from embedkit.types import Hit

__all__ = ["check_group", "unknown_attributes"]

_OWN: frozenset[Path] = frozenset({("key",), ("title",)})  # which every product has
_READ = 1_000  # products whose attributes are named


def check_group(store: MetadataStore, row: CollectionRow, path: Path, hits: Sequence[Hit]) -> None:
    """Raise BadInput if hits are grouped by an attribute that neither they nor any other product has."""
    if any(value_at(attributes_of(hit.product), path) is not None for hit in hits):
        return
    for told in unknown_attributes(store, row, [path]) if hits else ():
        raise BadInput(told)


def unknown_attributes(store: MetadataStore, row: CollectionRow, paths: Iterable[Path]) -> list[str]:
    """A sentence for each path at which no product of the collection has a value, with the nearest names there are.

    A question to the store for each, which the first product with a value answers.
    """
    lacking = [path for path in sorted(paths) if path not in _OWN and not store.has_attribute(row.id, path)]
    if not lacking:
        return []
    products = next(store.product_pages(row.id, batch=_READ), [])
    known = sorted({name for product in products for name in _names(product.attributes)})
    there = f"they have {listed(known, 12)}" if known else "they have none"
    return [
        f"No product of {row.name!r} has the attribute {name!r}; {did_you_mean(name, known) or there}"
        for name in map(".".join, lacking)
    ]


def _names(attributes: Mapping[str, object], head: str = "") -> Iterator[str]:
    """The names of all values, nested ones with dots."""
    for name, value in attributes.items():
        if isinstance(value, Mapping):
            yield from _names(value, f"{head}{name}.")
        elif value is not None:
            yield head + name
