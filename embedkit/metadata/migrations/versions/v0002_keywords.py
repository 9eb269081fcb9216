"""The words of a product, and an index over them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from embedkit.metadata.full_text import drop_index, make_index, product_words

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_PAGE = 5_000
_PRODUCT = sa.table("product", sa.column("id"), sa.column("title"), sa.column("words"))


def upgrade() -> None:
    """Add the words of every title, then the index."""
    op.add_column("collection", sa.Column("keywords", sa.JSON))
    op.add_column("product", sa.Column("words", sa.Text))
    connection, after = op.get_bind(), 0
    page = sa.select(_PRODUCT.c.id, _PRODUCT.c.title).order_by(_PRODUCT.c.id).limit(_PAGE)
    change = sa.update(_PRODUCT).where(_PRODUCT.c.id == sa.bindparam("b_id")).values(words=sa.bindparam("b_words"))
    while rows := connection.execute(page.where(_PRODUCT.c.id > after)).all():
        connection.execute(change, [{"b_id": row.id, "b_words": product_words(row.title, {}, ())} for row in rows])
        after = rows[-1].id
    make_index(connection)


def downgrade() -> None:
    """Drop the index, then the words."""
    drop_index(op.get_bind())
    op.drop_column("product", "words")
    op.drop_column("collection", "keywords")
