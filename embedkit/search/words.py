"""Search by keywords: what is asked, and the products that the store finds, those alone that a filter admits."""

from __future__ import annotations

from dataclasses import dataclass

from embedkit.arguments import check_kind
from embedkit.errors import BadInput
from embedkit.filters import Filter
from embedkit.matching import matches
from embedkit.metadata.full_text import words_in
from embedkit.metadata.rows import CollectionRow
from embedkit.metadata.store import MetadataStore
from embedkit.search.ranks import attributes_of
from embedkit.types import Hit, Product

__all__ = ["VIEW", "Keywords", "check_text", "keyword_scores", "ranked_by_keywords", "words_of"]

VIEW = "keywords"  # what `Hit.view` says of a hit that no vector found
_MOST = 64  # different words of one question
_PAGE = 1_000


@dataclass(frozen=True, slots=True)
class Keywords:
    """Words, each once, and their share when they are joined with vectors."""

    words: tuple[str, ...]
    weight: float = 1.0


def check_text(text: str) -> None:
    """Raise BadInput unless words can be searched by."""
    check_kind(text, str, "What is searched by is a text")
    if not text.strip():
        raise BadInput("The text to search by is empty")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadInput(f"The text to search by is not valid text: {error.reason} at {error.start + 1}") from error


def words_of(text: str) -> tuple[str, ...]:
    """The different words of a question. Raises BadInput."""
    check_text(text)
    words = tuple(dict.fromkeys(words_in(text)))
    if not words:
        raise BadInput(f"The keywords {text!r} hold no word; give letters or digits")
    if len(words) > _MOST:
        raise BadInput(f"{len(words)} different keywords are more than {_MOST}; name fewer, or search by text")
    return words


def ranked_by_keywords(
    store: MetadataStore, row: CollectionRow, asked: Keywords, count: int, *, where: Filter | None, without: str | None
) -> list[Hit]:
    """The `count` best products that a filter admits; `score` and `distance` are the database's score."""
    found: list[tuple[Product, float]] = []
    page = count + (without is not None) if where is None else max(_PAGE, count)
    start = 0
    while len(found) < count:
        matched = store.keyword_ranking(row.id, asked.words, limit=page, offset=start)
        found += [
            (product, score)
            for product, score in matched
            if product.key != without and (where is None or matches(where, attributes_of(product)))
        ]
        if len(matched) < page:
            break
        start, page = start + page, 4 * page  # every page is ranked anew, so there are few of them
    return [Hit(product, score, score, -1, VIEW) for product, score in found[:count]]


def keyword_scores(
    store: MetadataStore, row: CollectionRow, asked: Keywords, products: dict[str, Product]
) -> dict[str, float]:
    """The scores of some products; those without any of the words are left out."""
    keys = list(products)
    matched = store.keyword_ranking(row.id, asked.words, limit=len(keys), among=keys)
    return {product.key: score for product, score in matched}
