"""Run by Alembic; the connection, inside a transaction that the store holds, is handed in."""

from alembic import context

from embedkit.metadata.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transactional_ddl=True,
    render_as_batch=True,
)
context.run_migrations()
