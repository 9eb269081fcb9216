"""Versions of a collection beside the one that serves."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the table, and the number by which writers see that it has changed."""
    op.add_column("collection", sa.Column("epoch", sa.Integer, nullable=False, server_default="0"))
    op.create_table(
        "collection_version",
        sa.Column("collection_id", _ID, sa.ForeignKey("collection.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("views", sa.JSON, nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
    )


def downgrade() -> None:
    """Forget the versions that do not serve."""
    op.drop_table("collection_version")
    with op.batch_alter_table("collection") as table:
        table.drop_column("epoch")
