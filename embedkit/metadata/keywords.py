"""The store's part that finds products by words: full text in the database itself."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

import sqlalchemy as sa

from embedkit.errors import StoreError
from embedkit.metadata.full_text import has_fts5, has_index, make_index, product_words
from embedkit.metadata.models import Collection, table_of
from embedkit.metadata.models import Product as ProductTable
from embedkit.metadata.session import Session
from embedkit.types import Product

__all__ = ["Keywords"]

_C = table_of(Collection)
_P = table_of(ProductTable)
_PAGE = 5_000

_ALONE = """
SELECT p.key, p.title, p.uri, CAST(p.attributes AS TEXT), p.content_hash, -bm25(product_words) AS score
FROM product_words JOIN product AS p ON p.id = product_words.rowid
WHERE product_words MATCH ? AND p.collection_id = ? AND NOT p.deleted {among}
ORDER BY score DESC, p.key LIMIT ? OFFSET ?
"""
# The same, from the places of the words in this collection alone; FTS5 itself counts over the whole index.
_TOGETHER = """
WITH held AS MATERIALIZED (
  SELECT place.term, place.doc AS id, count(*) AS often
  FROM json_each(?) AS asked CROSS JOIN product_words_places AS place ON place.term = asked.value
  GROUP BY place.term, place.doc
), found AS MATERIALIZED (
  SELECT held.*, length(p.words) - length(replace(p.words, ' ', '')) + 1 AS size
  FROM held CROSS JOIN product AS p ON p.id = held.id WHERE p.collection_id = ?
), word AS MATERIALIZED (
  SELECT found.term, rarity(counts.products, count(*)) AS weight, 1.0 * counts.products / counts.words AS share
  FROM product_words_counts AS counts CROSS JOIN found WHERE counts.collection_id = ? GROUP BY found.term
), scored AS (
  SELECT found.id, sum(word.weight * found.often * 2.2 / (found.often + 1.2 * (0.25 + 0.75 * found.size * word.share)))
    AS score
  FROM word CROSS JOIN found ON found.term = word.term GROUP BY found.id
)
SELECT p.key, p.title, p.uri, CAST(p.attributes AS TEXT), p.content_hash, scored.score
FROM scored CROSS JOIN product AS p ON p.id = scored.id WHERE NOT p.deleted {among}
ORDER BY scored.score DESC, p.key LIMIT ? OFFSET ?
"""
_OTHERS = "SELECT EXISTS (SELECT 1 FROM product_words_counts WHERE collection_id != ? AND products)"
_POSTGRES = """
SELECT p.key, p.title, p.uri, CAST(p.attributes AS TEXT), p.content_hash, ts_rank(p.product_words, asked, 1) AS score
FROM product AS p, to_tsquery('simple', %s) AS asked
WHERE p.product_words @@ asked AND p.collection_id = %s AND NOT p.deleted {among}
ORDER BY score DESC, p.key LIMIT %s OFFSET %s
"""
_AMONG = {
    "sqlite": "AND p.key IN (SELECT value FROM json_each(?))",
    "postgresql": "AND p.key IN (SELECT json_array_elements_text(%s::json))",
}


class Keywords(Session):
    """Products by the words of their titles, and of the attributes that a collection names."""

    _indexed = False  # seen once, it stays

    def keyword_ranking(
        self, cid: int, words: Sequence[str], *, limit: int, offset: int = 0, among: Sequence[str] | None = None
    ) -> list[tuple[Product, float]]:
        """Products with any of the words, and their scores, best first; equal ones by key.

        SQLite scores by BM25 as FTS5 computes it (k1 = 1.2, b = 0.75), rarity and length measured in this collection;
        PostgreSQL by ``ts_rank`` over the logarithm of the length. `words` as `words_in` gives them; `among`: only
        products with these keys. Raises StoreError where SQLite lacks FTS5.
        """
        self._with_index()
        keys = [] if among is None else [json.dumps(list(among))]
        statement, asked = self._asked(cid, words)
        statement = statement.format(among=_AMONG[self._engine.dialect.name] if keys else "")
        values = (*asked, *keys, limit, offset)
        return [
            (Product(key, title, uri, json.loads(attributes), content_hash), float(score))
            for key, title, uri, attributes, content_hash, score in self._rows(statement, values)
        ]

    def _asked(self, cid: int, words: Sequence[str]) -> tuple[str, tuple[object, ...]]:
        """The statement, and its values up to the keys.

        FTS5's own BM25 is twice as fast, but counts over all collections: it is asked where only this one has words.
        """
        if self._engine.dialect.name != "sqlite":
            return _POSTGRES, (" | ".join(f"'{word}'" for word in words), cid)
        ((others,),) = self._rows(_OTHERS, (cid,))
        if others:
            return _TOGETHER, (json.dumps(list(words)), cid, cid)
        return _ALONE, (" OR ".join(f'"{word}"' for word in words), cid)

    def _with_index(self) -> None:
        """Make the index if a SQLite that could not opened the store first. Raises StoreError if this one cannot."""
        if self._indexed:
            return
        with self._read() as connection:
            self._indexed = has_index(connection)
            able = self._indexed or has_fts5(connection)
        if not able:
            raise StoreError(
                f"The SQLite of this Python ({sqlite3.sqlite_version}) was built without FTS5, which a search by "
                "keywords needs; use a Python whose SQLite has it, or a metadata store in PostgreSQL"
            )
        if not self._indexed:
            with self._write() as connection:
                if not has_index(connection):
                    make_index(connection)
            self._indexed = True

    def set_keywords(self, cid: int, paths: Sequence[str]) -> None:
        """Choose the attributes, by dotted path, whose words count beside the title's; every product follows."""
        after = 0
        with self._write() as connection:
            connection.execute(sa.update(_C).where(_C.c.id == cid).values(keywords=list(paths)))
            page = (
                sa.select(_P.c.id, _P.c.title, _P.c.attributes)
                .where(_P.c.collection_id == cid)
                .order_by(_P.c.id)
                .limit(_PAGE)
            )
            change = sa.update(_P).where(_P.c.id == sa.bindparam("b_id")).values(words=sa.bindparam("b_words"))
            while rows := connection.execute(page.where(_P.c.id > after)).all():
                values = [{"b_id": row.id, "b_words": product_words(row.title, row.attributes, paths)} for row in rows]
                connection.execute(change, values)
                after = rows[-1].id
