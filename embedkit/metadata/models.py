"""The tables: what exists, where its vectors are, and what happened on the way in."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

__all__ = [
    "Base",
    "Collection",
    "CollectionVersion",
    "Failure",
    "IngestRun",
    "Product",
    "UtcDateTime",
    "Vector",
    "table_of",
]

# SQLite numbers rows by itself only in INTEGER columns; they hold 64 bits all the same.
BigId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
# Keys are ordered by code point on every database, so that paging and Python agree.
KeyText = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def table_of(model: type[Base]) -> sa.Table:
    """The table behind a model; statements on tables skip the ORM's unit of work."""
    table = model.__table__
    if not isinstance(table, sa.Table):
        raise TypeError(f"{model.__name__} is not mapped to a table")
    return table


class UtcDateTime(sa.TypeDecorator[datetime]):
    """A time in UTC, also on databases that forget the zone."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        del dialect
        return value.astimezone(timezone.utc) if value else None

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        del dialect
        return value.replace(tzinfo=value.tzinfo or timezone.utc).astimezone(timezone.utc) if value else None


class Base(DeclarativeBase):
    """Constraint names are fixed, so that migrations can name them."""

    metadata = sa.MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Collection(Base):
    """A collection; `views` is a list of ViewRow fields, `keywords` of attribute paths whose words are searched.

    `epoch` goes up with every change of its versions.
    """

    __tablename__ = "collection"
    __table_args__ = (sa.UniqueConstraint("name", "backend_url"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(KeyText)
    backend_url: Mapped[str] = mapped_column(sa.Text)
    version: Mapped[int]
    views: Mapped[list[dict[str, Any]]] = mapped_column(sa.JSON)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    keywords: Mapped[list[str] | None] = mapped_column(sa.JSON)
    epoch: Mapped[int] = mapped_column(server_default="0")


class CollectionVersion(Base):
    """A version that does not serve: one built beside the other, or that has served. `since`: of its state.

    Of one that is gone a row without views stays, for its number.
    """

    __tablename__ = "collection_version"

    collection_id: Mapped[int] = mapped_column(
        BigId, sa.ForeignKey("collection.id", ondelete="CASCADE"), primary_key=True
    )
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    state: Mapped[str] = mapped_column(sa.Text)
    views: Mapped[list[dict[str, Any]]] = mapped_column(sa.JSON)
    since: Mapped[datetime] = mapped_column(UtcDateTime)


class Product(Base):
    """A product. `last_run`: the newest run that saw it. `deleted`: on its way out. `words`: see `full_text`."""

    __tablename__ = "product"
    __table_args__ = (
        sa.UniqueConstraint("collection_id", "key"),
        sa.Index("ix_product_collection_id_content_hash", "collection_id", "content_hash"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    collection_id: Mapped[int] = mapped_column(BigId, sa.ForeignKey("collection.id", ondelete="CASCADE"))
    key: Mapped[str] = mapped_column(KeyText)
    title: Mapped[str | None] = mapped_column(sa.Text)
    uri: Mapped[str | None] = mapped_column(sa.Text)
    attributes: Mapped[dict[str, Any]] = mapped_column(sa.JSON)
    content_hash: Mapped[str | None] = mapped_column(sa.Text)
    validator: Mapped[str | None] = mapped_column(sa.Text)
    last_run: Mapped[int | None] = mapped_column(BigId)
    deleted: Mapped[bool]
    words: Mapped[str | None] = mapped_column(sa.Text)


class Vector(Base):
    """A vector: its id is the backend's id, issued here and never given out twice."""

    __tablename__ = "vector"
    __table_args__ = (
        sa.UniqueConstraint("product_id", "view"),
        sa.Index("ix_vector_collection_id_view_state", "collection_id", "view", "state"),
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    collection_id: Mapped[int] = mapped_column(BigId, sa.ForeignKey("collection.id", ondelete="CASCADE"))
    product_id: Mapped[int] = mapped_column(BigId, sa.ForeignKey("product.id", ondelete="CASCADE"))
    view: Mapped[str] = mapped_column(sa.Text)
    version: Mapped[int]
    state: Mapped[str] = mapped_column(sa.Text)
    content_hash: Mapped[str] = mapped_column(sa.Text)
    fingerprint: Mapped[str] = mapped_column(sa.Text)


class IngestRun(Base):
    """One run; `offset` is its checkpoint, `counts` are RunCounts fields."""

    __tablename__ = "ingest_run"
    __table_args__ = (sa.Index("ix_ingest_run_collection_id", "collection_id"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    collection_id: Mapped[int] = mapped_column(BigId, sa.ForeignKey("collection.id", ondelete="CASCADE"))
    source: Mapped[str] = mapped_column(sa.Text)
    source_fingerprint: Mapped[str | None] = mapped_column(sa.Text)
    state: Mapped[str] = mapped_column(sa.Text)
    offset: Mapped[int] = mapped_column(sa.BigInteger)
    counts: Mapped[dict[str, int]] = mapped_column(sa.JSON)
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class Failure(Base):
    """A record that could not go in, with what is needed to try it again."""

    __tablename__ = "failure"

    collection_id: Mapped[int] = mapped_column(
        BigId, sa.ForeignKey("collection.id", ondelete="CASCADE"), primary_key=True
    )
    key: Mapped[str] = mapped_column(KeyText, primary_key=True)
    locator: Mapped[str] = mapped_column(sa.Text)
    stage: Mapped[str] = mapped_column(sa.Text)
    error: Mapped[str] = mapped_column(sa.Text)
    record: Mapped[dict[str, Any]] = mapped_column(sa.JSON)
    attempts: Mapped[int]
    first_seen: Mapped[datetime] = mapped_column(UtcDateTime)
    last_seen: Mapped[datetime] = mapped_column(UtcDateTime)
