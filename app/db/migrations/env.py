"""Alembic's entry: runs the revisions on the connection that app.db.migrate opened and locked."""

from alembic import context
from sqlalchemy import Connection

from app.db import schema

connection = context.config.attributes["connection"]
assert isinstance(connection, Connection)  # noqa: S101  only app.db.migrate runs this module

context.configure(
    connection=connection,
    target_metadata=schema.metadata,
    # SQLite cannot alter most things in place: Alembic copies the table instead
    render_as_batch=connection.dialect.name == "sqlite",
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
