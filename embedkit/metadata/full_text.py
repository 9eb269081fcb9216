"""The words that a product is found by, and each database's own index over them.

A product's row holds its words as plain text: those of its title and of the attributes that the collection's
setting `keywords` names, folded as `words_in` does, so that both databases and every question split a text alike.
SQLite indexes the column by FTS5 through triggers, PostgreSQL by a generated ``tsvector`` with a GIN index: neither
can fall out of step with a product, since both are part of the transaction that writes it. The same triggers count the
words of each collection, of which BM25 wants to know how many there are.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence

import sqlalchemy as sa

from embedkit.matching import value_at
from embedkit.types import Attributes

__all__ = ["drop_index", "has_fts5", "has_index", "make_index", "product_words", "rarity", "words_in"]

_WORD = re.compile(r"[^\W_]+")

_SIZE = "(length({0}) - length(replace({0}, ' ', '')) + 1)"
_IN = (
    "INSERT INTO product_words(rowid, words) SELECT new.id, new.words WHERE new.words IS NOT NULL; "
    f"INSERT INTO product_words_counts SELECT new.collection_id, 1, {_SIZE.format('new.words')} "
    "WHERE new.words IS NOT NULL ON CONFLICT (collection_id) "
    "DO UPDATE SET products = products + 1, words = words + excluded.words; "
)
_OUT = (
    "INSERT INTO product_words(product_words, rowid, words) "
    "SELECT 'delete', old.id, old.words WHERE old.words IS NOT NULL; "
    f"UPDATE product_words_counts SET products = products - 1, words = words - {_SIZE.format('old.words')} "
    "WHERE collection_id = old.collection_id AND old.words IS NOT NULL; "
)
_SQLITE = (
    # Words are folded and stand apart by spaces, so a tokeniser that knows no letters beyond ASCII keeps each whole.
    "CREATE VIRTUAL TABLE product_words USING fts5(words, content='product', content_rowid='id', tokenize='ascii')",
    "CREATE VIRTUAL TABLE product_words_places USING fts5vocab(product_words, instance)",
    "CREATE TABLE product_words_counts (collection_id INTEGER PRIMARY KEY REFERENCES collection ON DELETE CASCADE, "
    "products INTEGER NOT NULL, words INTEGER NOT NULL)",
    f"CREATE TRIGGER product_words_insert AFTER INSERT ON product BEGIN {_IN} END",
    f"CREATE TRIGGER product_words_delete AFTER DELETE ON product BEGIN {_OUT} END",
    "CREATE TRIGGER product_words_update AFTER UPDATE OF words ON product WHEN old.words IS NOT new.words "
    f"BEGIN {_OUT} {_IN} END",
    "INSERT INTO product_words(rowid, words) SELECT id, words FROM product WHERE words IS NOT NULL",
    f"INSERT INTO product_words_counts SELECT collection_id, count(*), sum({_SIZE.format('words')}) "
    "FROM product WHERE words IS NOT NULL GROUP BY collection_id",
)
_SQLITE_DROP = (
    "DROP TRIGGER IF EXISTS product_words_update",
    "DROP TRIGGER IF EXISTS product_words_delete",
    "DROP TRIGGER IF EXISTS product_words_insert",
    "DROP TABLE IF EXISTS product_words_counts",
    "DROP TABLE IF EXISTS product_words_places",
    "DROP TABLE IF EXISTS product_words",
)
_POSTGRES = (
    "ALTER TABLE product ADD COLUMN product_words tsvector "
    "GENERATED ALWAYS AS (to_tsvector('simple', coalesce(words, ''))) STORED",
    "CREATE INDEX product_words_gin ON product USING gin (product_words)",
)
_POSTGRES_DROP = ("DROP INDEX IF EXISTS product_words_gin", "ALTER TABLE product DROP COLUMN IF EXISTS product_words")


def words_in(text: str) -> list[str]:
    """The words of a text in order: runs of letters and digits, without case and accents.

    >>> words_in("Café-Crème, size_42")
    ['cafe', 'creme', 'size', '42']
    """
    plain = unicodedata.normalize("NFKD", text).casefold()  # some letters are capital only once they are plain
    apart = unicodedata.normalize("NFKD", plain)
    return _WORD.findall("".join(char for char in apart if not unicodedata.combining(char)))


def product_words(title: str | None, attributes: Attributes, paths: Sequence[str]) -> str | None:
    """What is indexed of a product: its title, then the attributes at dotted paths; None if there is no word.

    Texts count, whole numbers (an article may be called 501), and lists of them.
    """
    texts = [title or "", *(text for path in paths for text in _texts(value_at(attributes, tuple(path.split(".")))))]
    return " ".join(word for text in texts for word in words_in(text)) or None


def _texts(value: object) -> list[str]:
    if isinstance(value, list):
        return [text for one in value for text in _texts(one)]
    return [str(value)] if isinstance(value, str | int) and not isinstance(value, bool) else []


def rarity(products: int, holding: int) -> float:
    """The weight of a word in BM25, as FTS5 has it: what every second product holds weighs next to nothing.

    >>> round(rarity(100, 1), 3), rarity(100, 50)
    (4.195, 1e-06)
    """
    return max(1e-6, math.log((products - holding + 0.5) / (holding + 0.5)))


def has_fts5(connection: sa.Connection) -> bool:
    """Whether this SQLite was compiled with full-text search."""
    return bool(connection.execute(sa.text("SELECT 1 FROM pragma_module_list WHERE name = 'fts5'")).scalar())


def has_index(connection: sa.Connection) -> bool:
    """Whether the index is there; a SQLite without FTS5 opened the store first if it is not."""
    return connection.dialect.name != "sqlite" or sa.inspect(connection).has_table("product_words")


def make_index(connection: sa.Connection) -> None:
    """Make the index over all products and keep it in step from now on; nothing on a SQLite without FTS5."""
    if connection.dialect.name == "sqlite" and not has_fts5(connection):
        return
    for statement in _SQLITE if connection.dialect.name == "sqlite" else _POSTGRES:
        connection.exec_driver_sql(statement)


def drop_index(connection: sa.Connection) -> None:
    """Take the index away."""
    for statement in _SQLITE_DROP if connection.dialect.name == "sqlite" else _POSTGRES_DROP:
        connection.exec_driver_sql(statement)
