"""Words are counted collection by collection, and each is one term of the index whatever its letters."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from embedkit.metadata.full_text import drop_index, make_index, words_in

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_PAGE = 5_000
_PRODUCT = sa.table("product", sa.column("id"), sa.column("words"))


def upgrade() -> None:
    """Fold the words once more, and make the index anew where it is SQLite's."""
    connection, after = op.get_bind(), 0
    if connection.dialect.name == "sqlite":
        drop_index(connection)
    page = sa.select(_PRODUCT).where(_PRODUCT.c.words.is_not(None)).order_by(_PRODUCT.c.id).limit(_PAGE)
    change = sa.update(_PRODUCT).where(_PRODUCT.c.id == sa.bindparam("b_id")).values(words=sa.bindparam("b_words"))
    while rows := connection.execute(page.where(_PRODUCT.c.id > after)).all():
        folded = [{"b_id": row.id, "b_words": " ".join(words_in(row.words))} for row in rows]
        changed = [new for new, row in zip(folded, rows, strict=True) if new["b_words"] != row.words]
        if changed:
            connection.execute(change, changed)
        after = rows[-1].id
    if connection.dialect.name == "sqlite":
        make_index(connection)


def downgrade() -> None:
    """Nothing: the code of before finds by this index as well."""
