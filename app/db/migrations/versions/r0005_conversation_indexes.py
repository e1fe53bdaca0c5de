"""Indexes for the conversations of a team and for the queue of an inbox. Expand only."""

from collections.abc import Sequence

from alembic import op

from app.db.migrations.resume import create_index

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    """Add the indexes; a run that was killed half way may be repeated."""
    create_index("ix_conversations_team_id_updated_at", "conversations", ["team_id", "updated_at"])
    create_index(
        "ix_conversations_inbox_id_status_assignee_id_waiting_since",
        "conversations",
        ["inbox_id", "status", "assignee_id", "waiting_since"],
    )


def downgrade() -> None:
    """Drop what upgrade made."""
    op.drop_index("ix_conversations_inbox_id_status_assignee_id_waiting_since", "conversations")
    op.drop_index("ix_conversations_team_id_updated_at", "conversations")
