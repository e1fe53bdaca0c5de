"""Edits of messages, numbered per stream of a conversation. Expand only."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from app.db.migrations.resume import add_column, create_table

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    """Add a table and two columns; a run that was killed half way may be repeated."""
    big_id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    create_table(
        "message_edits",
        sa.Column("conversation_id", big_id, nullable=False),
        sa.Column("stream", sa.SmallInteger(), nullable=False),
        sa.Column("edit_seq", sa.Integer(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("conversation_id", "stream", "edit_seq", name="pk_message_edits"),
        sa.ForeignKeyConstraint(
            ["conversation_id"],
            ["conversations.id"],
            name="fk_message_edits_conversation_id",
            ondelete="CASCADE",
        ),
    )
    for column in ("last_edit_public", "last_edit_staff"):
        add_column(
            "conversations",
            sa.Column(column, sa.Integer(), nullable=False, server_default=sa.text("0")),
        )


def downgrade() -> None:
    """Drop what upgrade made."""
    op.drop_column("conversations", "last_edit_public")
    op.drop_column("conversations", "last_edit_staff")
    op.drop_table("message_edits")
