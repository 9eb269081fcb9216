"""The words that a product is found by, and each database's own index over them.

A product's row holds its words as plain text: those of its title and of the attributes that the collection's
setting `keywords` names, folded as `words_in` does, so that both databases and every question split a text alike.
SQLite indexes the column by FTS5 through triggers, PostgreSQL by a generated ``tsvector`` with a GIN index: neither
can fall out of step with a product, since both are part of the transaction that writes it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import sqlalchemy as sa

from embedkit.matching import value_at
from embedkit.types import Attributes

__all__ = ["drop_index", "has_fts5", "has_index", "make_index", "product_words", "words_in"]

_WORD = re.compile(r"[^\W_]+")

_SQLITE = (
    "CREATE VIRTUAL TABLE product_words USING fts5"
    "(words, content='product', content_rowid='id', tokenize='unicode61 remove_diacritics 0')",
    "CREATE TRIGGER product_words_insert AFTER INSERT ON product WHEN new.words IS NOT NULL BEGIN "
    "INSERT INTO product_words(rowid, words) VALUES (new.id, new.words); END",
    "CREATE TRIGGER product_words_delete AFTER DELETE ON product WHEN old.words IS NOT NULL BEGIN "
    "INSERT INTO product_words(product_words, rowid, words) VALUES ('delete', old.id, old.words); END",
    "CREATE TRIGGER product_words_update AFTER UPDATE OF words ON product WHEN old.words IS NOT new.words BEGIN "
    "INSERT INTO product_words(product_words, rowid, words) "
    "SELECT 'delete', old.id, old.words WHERE old.words IS NOT NULL; "
    "INSERT INTO product_words(rowid, words) SELECT new.id, new.words WHERE new.words IS NOT NULL; END",
    "INSERT INTO product_words(rowid, words) SELECT id, words FROM product WHERE words IS NOT NULL",
)
_SQLITE_DROP = (
    "DROP TRIGGER IF EXISTS product_words_update",
    "DROP TRIGGER IF EXISTS product_words_delete",
    "DROP TRIGGER IF EXISTS product_words_insert",
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
    apart = unicodedata.normalize("NFKD", text.casefold())
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
