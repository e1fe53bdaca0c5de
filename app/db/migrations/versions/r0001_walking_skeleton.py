"""The tables of the walking skeleton."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

from app.db.migrations.resume import create_index, create_table

revision: str = "0001"
down_revision: str | None = None
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def _big_id() -> TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _ascii(length: int) -> TypeEngine[str]:
    return sa.String(length).with_variant(
        mysql.VARCHAR(length, charset="ascii", collation="ascii_bin"), "mysql"
    )


def _moment() -> TypeEngine[Any]:
    return sa.DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql")


def upgrade() -> None:
    """Create everything; a run that was killed half way may be repeated."""
    create_table(
        "inboxes",
        sa.Column("id", _big_id(), nullable=False),
        sa.Column("key", _ascii(64), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("greeting", sa.String(length=500), nullable=False),
        sa.Column("color", _ascii(7), nullable=False),
        sa.Column("languages", _ascii(200), nullable=False),
        sa.Column("created_at", _moment(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_inboxes"),
        sa.UniqueConstraint("key", name="uq_inboxes_key"),
    )
    create_table(
        "job_fences",
        sa.Column("job", _ascii(64), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("job", name="pk_job_fences"),
    )
    create_table(
        "outbox",
        sa.Column("id", _big_id(), nullable=False),
        sa.Column("channel", _ascii(200), nullable=False),
        sa.Column("message", sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql"), nullable=False),
        sa.Column("created_at", _moment(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
    )
    create_table(
        "read_marks",
        sa.Column("conversation_id", _big_id(), nullable=False),
        sa.Column("stream", sa.SmallInteger(), nullable=False),
        sa.Column("reader_type", _ascii(8), nullable=False),
        sa.Column("reader_id", _big_id(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("updated_at", _moment(), nullable=False),
        sa.PrimaryKeyConstraint(
            "conversation_id", "stream", "reader_type", "reader_id", name="pk_read_marks"
        ),
    )
    create_table(
        "users",
        sa.Column("id", _big_id(), nullable=False),
        sa.Column(
            "email",
            sa.String(length=254).with_variant(
                mysql.VARCHAR(charset="utf8mb4", collation="utf8mb4_bin", length=254), "mysql"
            ),
            nullable=False,
        ),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("role", _ascii(16), nullable=False),
        sa.Column("password_hash", _ascii(255), nullable=False),
        sa.Column("avatar_url", sa.String(length=500), nullable=True),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("created_at", _moment(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
        sa.UniqueConstraint("email", name="uq_users_email"),
    )
    create_table(
        "sessions",
        sa.Column("token_hash", _ascii(64), nullable=False),
        sa.Column("user_id", _big_id(), nullable=False),
        sa.Column("created_at", _moment(), nullable=False),
        sa.Column("expires_at", _moment(), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_sessions_user_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("token_hash", name="pk_sessions"),
    )
    create_index("ix_sessions_expires_at", "sessions", ["expires_at"])
    create_index("ix_sessions_user_id", "sessions", ["user_id"])
    create_table(
        "visitors",
        sa.Column("id", _big_id(), nullable=False),
        sa.Column("inbox_id", _big_id(), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("email", sa.String(length=254), nullable=True),
        sa.Column("language", sa.String(length=35), nullable=True),
        sa.Column("browser", sa.String(length=100), nullable=True),
        sa.Column("page_url", sa.Text(), nullable=True),
        sa.Column("page_title", sa.String(length=300), nullable=True),
        sa.Column("referrer", sa.Text(), nullable=True),
        sa.Column("first_seen_at", _moment(), nullable=False),
        sa.Column("last_seen_at", _moment(), nullable=False),
        sa.ForeignKeyConstraint(["inbox_id"], ["inboxes.id"], name="fk_visitors_inbox_id"),
        sa.PrimaryKeyConstraint("id", name="pk_visitors"),
    )
    create_index("ix_visitors_inbox_id", "visitors", ["inbox_id"])
    create_table(
        "conversations",
        sa.Column("id", _big_id(), nullable=False),
        sa.Column("inbox_id", _big_id(), nullable=False),
        sa.Column("visitor_id", _big_id(), nullable=False),
        sa.Column("status", _ascii(16), nullable=False),
        sa.Column("assignee_id", _big_id(), nullable=True),
        sa.Column("last_seq_public", sa.Integer(), nullable=False),
        sa.Column("last_seq_staff", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", _moment(), nullable=False),
        sa.Column("updated_at", _moment(), nullable=False),
        sa.ForeignKeyConstraint(["assignee_id"], ["users.id"], name="fk_conversations_assignee_id"),
        sa.ForeignKeyConstraint(["inbox_id"], ["inboxes.id"], name="fk_conversations_inbox_id"),
        sa.ForeignKeyConstraint(
            ["visitor_id"], ["visitors.id"], name="fk_conversations_visitor_id"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_conversations"),
    )
    create_index(
        "ix_conversations_assignee_id_updated_at", "conversations", ["assignee_id", "updated_at"]
    )
    create_index(
        "ix_conversations_inbox_id_updated_at", "conversations", ["inbox_id", "updated_at"]
    )
    create_index("ix_conversations_updated_at", "conversations", ["updated_at"])
    create_index("ix_conversations_visitor_id", "conversations", ["visitor_id"])
    create_table(
        "messages",
        sa.Column("conversation_id", _big_id(), nullable=False),
        sa.Column("stream", sa.SmallInteger(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("client_id", _ascii(36), nullable=False),
        sa.Column("sender_type", _ascii(8), nullable=False),
        sa.Column("sender_id", _big_id(), nullable=True),
        sa.Column("kind", _ascii(8), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at", _moment(), nullable=False),
        sa.Column("edited_at", _moment(), nullable=True),
        sa.Column("deleted_at", _moment(), nullable=True),
        sa.ForeignKeyConstraint(
            ["conversation_id"], ["conversations.id"], name="fk_messages_conversation_id"
        ),
        sa.PrimaryKeyConstraint("conversation_id", "stream", "seq", name="pk_messages"),
        sa.UniqueConstraint(
            "conversation_id", "client_id", name="uq_messages_conversation_id_client_id"
        ),
    )


def downgrade() -> None:
    """Drop everything."""
    for table in (
        "messages",
        "conversations",
        "visitors",
        "sessions",
        "users",
        "read_marks",
        "outbox",
        "job_fences",
        "inboxes",
    ):
        op.drop_table(table)
