"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_TIME = sa.DateTime(timezone=True)


def _collection_id(*, primary_key: bool = False) -> sa.Column[int]:
    return sa.Column(
        "collection_id",
        _ID,
        sa.ForeignKey("collection.id", ondelete="CASCADE"),
        nullable=False,
        primary_key=primary_key,
    )


def upgrade() -> None:
    """Make every table."""
    op.create_table(
        "collection",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("name", _KEY, nullable=False),
        sa.Column("backend_url", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("views", sa.JSON, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.UniqueConstraint("name", "backend_url", name="uq_collection_name_backend_url"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "product",
        sa.Column("id", _ID, primary_key=True),
        _collection_id(),
        sa.Column("key", _KEY, nullable=False),
        sa.Column("title", sa.Text),
        sa.Column("uri", sa.Text),
        sa.Column("attributes", sa.JSON, nullable=False),
        sa.Column("content_hash", sa.Text),
        sa.Column("validator", sa.Text),
        sa.Column("last_run", _ID),
        sa.Column("deleted", sa.Boolean, nullable=False),
        sa.UniqueConstraint("collection_id", "key", name="uq_product_collection_id_key"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_product_collection_id_content_hash", "product", ["collection_id", "content_hash"])
    op.create_table(
        "vector",
        sa.Column("id", _ID, primary_key=True),
        _collection_id(),
        sa.Column("product_id", _ID, sa.ForeignKey("product.id", ondelete="CASCADE"), nullable=False),
        sa.Column("view", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("content_hash", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.UniqueConstraint("product_id", "view", name="uq_vector_product_id_view"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_vector_collection_id_view_state", "vector", ["collection_id", "view", "state"])
    op.create_table(
        "ingest_run",
        sa.Column("id", _ID, primary_key=True),
        _collection_id(),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("source_fingerprint", sa.Text),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("offset", sa.BigInteger, nullable=False),
        sa.Column("counts", sa.JSON, nullable=False),
        sa.Column("started_at", _TIME, nullable=False),
        sa.Column("finished_at", _TIME),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_ingest_run_collection_id", "ingest_run", ["collection_id"])
    op.create_table(
        "failure",
        _collection_id(primary_key=True),
        sa.Column("key", _KEY, primary_key=True),
        sa.Column("locator", sa.Text, nullable=False),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.Column("record", sa.JSON, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("first_seen", _TIME, nullable=False),
        sa.Column("last_seen", _TIME, nullable=False),
    )


def downgrade() -> None:
    """Drop every table."""
    for table in ("failure", "ingest_run", "vector", "product", "collection"):
        op.drop_table(table)
