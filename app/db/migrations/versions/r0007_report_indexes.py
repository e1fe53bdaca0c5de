"""Indexes for reports and retention, which ask when a conversation was resolved or rated."""

from collections.abc import Sequence

from alembic import op

from app.db.migrations.resume import create_index

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    """Add the indexes; a run that was killed half way may be repeated."""
    create_index("ix_conversations_resolved_at", "conversations", ["resolved_at"])
    create_index("ix_conversations_csat_at", "conversations", ["csat_at"])


def downgrade() -> None:
    """Drop what upgrade made."""
    op.drop_index("ix_conversations_csat_at", "conversations")
    op.drop_index("ix_conversations_resolved_at", "conversations")
