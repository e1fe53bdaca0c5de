"""The full-text index over messages. Expand only."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

from app.db.migrations.resume import create_index, create_table

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None

# FTS5 with external content (sqlite.org/fts5.html §4.4.3): triggers keep it like the table
_FTS5 = (
    "CREATE VIRTUAL TABLE IF NOT EXISTS message_search_fts USING"
    " fts5(body, content='message_search', content_rowid='id', tokenize='trigram')",
    "CREATE TRIGGER IF NOT EXISTS message_search_added AFTER INSERT ON message_search BEGIN"
    " INSERT INTO message_search_fts (rowid, body) VALUES (new.id, new.body); END",
    "CREATE TRIGGER IF NOT EXISTS message_search_removed AFTER DELETE ON message_search BEGIN"
    " INSERT INTO message_search_fts (message_search_fts, rowid, body)"
    " VALUES ('delete', old.id, old.body); END",
    "CREATE TRIGGER IF NOT EXISTS message_search_changed AFTER UPDATE OF body ON message_search"
    " BEGIN INSERT INTO message_search_fts (message_search_fts, rowid, body)"
    " VALUES ('delete', old.id, old.body);"
    " INSERT INTO message_search_fts (rowid, body) VALUES (new.id, new.body); END",
)


def _big_id() -> TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _moment() -> TypeEngine[Any]:
    return sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql")


def upgrade() -> None:
    """Add the table and its index; a run that was killed half way may be repeated."""
    create_table(
        "message_search",
        sa.Column("id", _big_id(), nullable=False),
        sa.Column("conversation_id", _big_id(), nullable=False),
        sa.Column("stream", sa.SmallInteger(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("inbox_id", _big_id(), nullable=False),
        sa.Column("created_at", _moment(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_message_search"),
        sa.UniqueConstraint(
            "conversation_id", "stream", "seq", name="uq_message_search_conversation_id_stream_seq"
        ),
    )
    create_index("ix_message_search_created_at_id", "message_search", ["created_at", "id"])
    bind = op.get_bind()
    if bind.dialect.name == "sqlite":
        for statement in _FTS5:
            op.execute(statement)
        return
    present = {index["name"] for index in sa.inspect(bind).get_indexes("message_search")}
    if "ft_message_search_body" not in present:
        # with stop words an ngram that holds an "a" or an "i" is left out; the index keeps what
        # is set when it is made. A replica makes its own: roles/mysql sets the same for the server
        op.execute("SET SESSION innodb_ft_enable_stopword = OFF")
        op.execute(
            "CREATE FULLTEXT INDEX ft_message_search_body ON message_search (body)"
            " WITH PARSER ngram"
        )


def downgrade() -> None:
    """Drop what upgrade made; the next upgrade indexes everything anew."""
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TABLE message_search_fts")
    op.drop_table("message_search")
    op.execute("DELETE FROM search_marks")
