"""Indexes for the log of a webhook and for what it is owed. Expand only."""

from collections.abc import Sequence

from alembic import op

from app.db.migrations.resume import create_index

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    """Add the indexes; a run that was killed half way may be repeated."""
    create_index("ix_webhook_deliveries_webhook_id_id", "webhook_deliveries", ["webhook_id", "id"])
    create_index(
        "ix_webhook_deliveries_webhook_id_status_next_attempt_at",
        "webhook_deliveries",
        ["webhook_id", "status", "next_attempt_at"],
    )


def downgrade() -> None:
    """Drop what upgrade made."""
    op.drop_index("ix_webhook_deliveries_webhook_id_status_next_attempt_at", "webhook_deliveries")
    op.drop_index("ix_webhook_deliveries_webhook_id_id", "webhook_deliveries")
