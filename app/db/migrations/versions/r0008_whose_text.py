"""Of which conversation a delivery or a mail tells, so that an erasure finds it. Expand only."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from app.db.migrations.resume import add_column, create_index

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    """Add two columns and their indexes; a run that was killed half way may be repeated."""
    big_id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    for table in ("webhook_deliveries", "mails"):
        add_column(table, sa.Column("conversation_id", big_id, nullable=True))
        create_index(f"ix_{table}_conversation_id", table, ["conversation_id"])


def downgrade() -> None:
    """Drop what upgrade made."""
    for table in ("webhook_deliveries", "mails"):
        op.drop_index(f"ix_{table}_conversation_id", table)
        op.drop_column(table, "conversation_id")
