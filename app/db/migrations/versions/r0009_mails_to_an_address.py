"""An index to count the mails that an address got lately. Expand only."""

from collections.abc import Sequence

from alembic import op

from app.db.migrations.resume import create_index

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    """Add the index; a run that was killed half way may be repeated."""
    create_index("ix_mails_to_address_created_at", "mails", ["to_address", "created_at"])


def downgrade() -> None:
    """Drop what upgrade made."""
    op.drop_index("ix_mails_to_address_created_at", "mails")
