"""The whole domain: what a support team uses every day. Expand only."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

from app.db.migrations.resume import add_column, create_index, create_table

revision: str = "0002"
down_revision: str | None = "0001"
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


def _long_text() -> TypeEngine[str]:
    return sa.Text().with_variant(mysql.MEDIUMTEXT(), "mysql")


def upgrade() -> None:  # noqa: PLR0915  it is a list of steps
    """Add tables and columns; a run that was killed half way may be repeated."""
    create_table(
        "app_settings",
        sa.Column("name", _ascii(64), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("updated_at", _moment(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_app_settings"),
    )
    create_table(
        "attachments",
        sa.Column("id", _big_id(), nullable=False),
        sa.Column("token", _ascii(43), nullable=False),
        sa.Column("conversation_id", _big_id(), nullable=False),
        sa.Column("stream", sa.SmallInteger(), nullable=True),
        sa.Column("seq", sa.Integer(), nullable=True),
        sa.Column("uploader_type", _ascii(8), nullable=False),
        sa.Column("uploader_id", _big_id(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("content_type", _ascii(100), nullable=False),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.Column("width_px", sa.Integer(), nullable=True),
        sa.Column("height_px", sa.Integer(), nullable=True),
        sa.Column("sha256", _ascii(64), nullable=False),
        sa.Column("scan", _ascii(8), nullable=False),
        sa.Column("created_at", _moment(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_attachments"),
        sa.UniqueConstraint("token", name="uq_attachments_token"),
    )
    create_index(
        "ix_attachments_conversation_id_stream_seq",
        "attachments",
        ["conversation_id", "stream", "seq"],
    )
    create_index("ix_attachments_created_at", "attachments", ["created_at"])
    create_table(
        "audit_log",
        sa.Column("id", _big_id(), nullable=False),
        sa.Column("at", _moment(), nullable=False),
        sa.Column("actor_type", _ascii(8), nullable=False),
        sa.Column("actor_id", _big_id(), nullable=True),
        sa.Column("actor_name", sa.String(length=100), nullable=False),
        sa.Column("action", _ascii(64), nullable=False),
        sa.Column("object_type", _ascii(32), nullable=False),
        sa.Column("object_id", _ascii(64), nullable=True),
        sa.Column("address", _ascii(45), nullable=True),
        sa.Column("details", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_audit_log"),
    )
    create_index("ix_audit_log_actor_id_id", "audit_log", ["actor_id", "id"])
    create_index("ix_audit_log_at", "audit_log", ["at"])
    create_index(
        "ix_audit_log_object_type_object_id_id", "audit_log", ["object_type", "object_id", "id"]
    )
    create_table(
        "blocked_networks",
        sa.Column("id", _big_id(), nullable=False),
        sa.Column("network", _ascii(64), nullable=False),
        sa.Column("reason", sa.String(length=300), nullable=False),
        sa.Column("created_by", _big_id(), nullable=True),
        sa.Column("created_at", _moment(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_blocked_networks"),
        sa.UniqueConstraint("network", name="uq_blocked_networks_network"),
    )
    create_table(
        "business_hours",
        sa.Column("id", _big_id(), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("time_zone", _ascii(64), nullable=False),
        sa.Column("weekly", sa.Text(), nullable=False),
        sa.Column("holidays", _long_text(), nullable=False),
        sa.Column("created_at", _moment(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_business_hours"),
    )
    create_table(
        "labels",
        sa.Column("id", _big_id(), nullable=False),
        sa.Column("name", sa.String(length=50), nullable=False),
        sa.Column("color", _ascii(7), nullable=False),
        sa.Column("created_at", _moment(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_labels"),
        sa.UniqueConstraint("name", name="uq_labels_name"),
    )
    create_table(
        "mails",
        sa.Column("id", _big_id(), nullable=False),
        sa.Column("kind", _ascii(32), nullable=False),
        sa.Column("to_address", sa.String(length=254), nullable=False),
        sa.Column("subject", sa.String(length=300), nullable=False),
        sa.Column("body_text", _long_text(), nullable=False),
        sa.Column("body_html", _long_text(), nullable=True),
        sa.Column("status", _ascii(16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", _moment(), nullable=True),
        sa.Column("error", sa.String(length=300), nullable=True),
        sa.Column("created_at", _moment(), nullable=False),
        sa.Column("sent_at", _moment(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_mails"),
    )
    create_index("ix_mails_status_next_attempt_at", "mails", ["status", "next_attempt_at"])
    create_table(
        "teams",
        sa.Column("id", _big_id(), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("created_at", _moment(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_teams"),
        sa.UniqueConstraint("name", name="uq_teams_name"),
    )
    create_table(
        "webhook_events",
        sa.Column("id", _big_id(), nullable=False),
        sa.Column("event_id", _ascii(36), nullable=False),
        sa.Column("event", _ascii(64), nullable=False),
        sa.Column("inbox_id", _big_id(), nullable=False),
        sa.Column("conversation_id", _big_id(), nullable=False),
        sa.Column("stream", sa.SmallInteger(), nullable=True),
        sa.Column("seq", sa.Integer(), nullable=True),
        sa.Column("created_at", _moment(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_events"),
    )
    create_table(
        "api_keys",
        sa.Column("id", _big_id(), nullable=False),
        sa.Column("user_id", _big_id(), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("key_hash", _ascii(64), nullable=False),
        sa.Column("prefix", _ascii(16), nullable=False),
        sa.Column("created_at", _moment(), nullable=False),
        sa.Column("expires_at", _moment(), nullable=True),
        sa.Column("last_used_at", _moment(), nullable=True),
        sa.Column("revoked_at", _moment(), nullable=True),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_api_keys_user_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("key_hash", name="uq_api_keys_key_hash"),
    )
    create_index("ix_api_keys_user_id", "api_keys", ["user_id"])
    create_table(
        "attachment_bytes",
        sa.Column("attachment_id", _big_id(), autoincrement=False, nullable=False),
        sa.Column(
            "content", sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql"), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["attachment_id"],
            ["attachments.id"],
            name="fk_attachment_bytes_attachment_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("attachment_id", name="pk_attachment_bytes"),
    )
    create_table(
        "canned_responses",
        sa.Column("id", _big_id(), nullable=False),
        sa.Column("shortcut", sa.String(length=50), nullable=False),
        sa.Column("title", sa.String(length=100), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("inbox_id", _big_id(), nullable=True),
        sa.Column("created_at", _moment(), nullable=False),
        sa.Column("updated_at", _moment(), nullable=False),
        sa.ForeignKeyConstraint(
            ["inbox_id"], ["inboxes.id"], name="fk_canned_responses_inbox_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_canned_responses"),
        sa.UniqueConstraint("shortcut", name="uq_canned_responses_shortcut"),
    )
    create_table(
        "inbox_members",
        sa.Column("inbox_id", _big_id(), nullable=False),
        sa.Column("user_id", _big_id(), nullable=False),
        sa.ForeignKeyConstraint(
            ["inbox_id"], ["inboxes.id"], name="fk_inbox_members_inbox_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_inbox_members_user_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("inbox_id", "user_id", name="pk_inbox_members"),
    )
    create_index("ix_inbox_members_user_id", "inbox_members", ["user_id"])
    create_table(
        "team_members",
        sa.Column("team_id", _big_id(), nullable=False),
        sa.Column("user_id", _big_id(), nullable=False),
        sa.ForeignKeyConstraint(
            ["team_id"], ["teams.id"], name="fk_team_members_team_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_team_members_user_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("team_id", "user_id", name="pk_team_members"),
    )
    create_index("ix_team_members_user_id", "team_members", ["user_id"])
    create_table(
        "user_tokens",
        sa.Column("token_hash", _ascii(64), nullable=False),
        sa.Column("user_id", _big_id(), nullable=False),
        sa.Column("purpose", _ascii(16), nullable=False),
        sa.Column("created_at", _moment(), nullable=False),
        sa.Column("expires_at", _moment(), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_user_tokens_user_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("token_hash", name="pk_user_tokens"),
    )
    create_index("ix_user_tokens_expires_at", "user_tokens", ["expires_at"])
    create_index("ix_user_tokens_user_id", "user_tokens", ["user_id"])
    create_table(
        "webhooks",
        sa.Column("id", _big_id(), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("events", sa.Text(), nullable=False),
        sa.Column("secret", _ascii(64), nullable=False),
        sa.Column("inbox_id", _big_id(), nullable=True),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("created_at", _moment(), nullable=False),
        sa.ForeignKeyConstraint(
            ["inbox_id"], ["inboxes.id"], name="fk_webhooks_inbox_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_webhooks"),
    )
    create_table(
        "visitor_pages",
        sa.Column("id", _big_id(), nullable=False),
        sa.Column("visitor_id", _big_id(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("title", sa.String(length=300), nullable=True),
        sa.Column("seen_at", _moment(), nullable=False),
        sa.ForeignKeyConstraint(
            ["visitor_id"], ["visitors.id"], name="fk_visitor_pages_visitor_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_visitor_pages"),
    )
    create_index("ix_visitor_pages_visitor_id_id", "visitor_pages", ["visitor_id", "id"])
    create_table(
        "webhook_deliveries",
        sa.Column("id", _big_id(), nullable=False),
        sa.Column("webhook_id", _big_id(), nullable=False),
        sa.Column("event_id", _ascii(36), nullable=False),
        sa.Column("event", _ascii(64), nullable=False),
        sa.Column("payload", _long_text(), nullable=False),
        sa.Column("status", _ascii(16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", _moment(), nullable=True),
        sa.Column("response_status", sa.Integer(), nullable=True),
        sa.Column("error", sa.String(length=300), nullable=True),
        sa.Column("duration_ms", sa.Integer(), nullable=True),
        sa.Column("created_at", _moment(), nullable=False),
        sa.Column("delivered_at", _moment(), nullable=True),
        sa.ForeignKeyConstraint(
            ["webhook_id"],
            ["webhooks.id"],
            name="fk_webhook_deliveries_webhook_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_deliveries"),
        sa.UniqueConstraint(
            "webhook_id", "event_id", name="uq_webhook_deliveries_webhook_id_event_id"
        ),
    )
    create_index("ix_webhook_deliveries_created_at", "webhook_deliveries", ["created_at"])
    create_index(
        "ix_webhook_deliveries_status_next_attempt_at",
        "webhook_deliveries",
        ["status", "next_attempt_at"],
    )
    create_table(
        "conversation_labels",
        sa.Column("conversation_id", _big_id(), nullable=False),
        sa.Column("label_id", _big_id(), nullable=False),
        sa.ForeignKeyConstraint(
            ["conversation_id"],
            ["conversations.id"],
            name="fk_conversation_labels_conversation_id",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["label_id"], ["labels.id"], name="fk_conversation_labels_label_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("conversation_id", "label_id", name="pk_conversation_labels"),
    )
    create_index("ix_conversation_labels_label_id", "conversation_labels", ["label_id"])
    create_table(
        "participants",
        sa.Column("conversation_id", _big_id(), nullable=False),
        sa.Column("user_id", _big_id(), nullable=False),
        sa.Column("since", _moment(), nullable=False),
        sa.ForeignKeyConstraint(
            ["conversation_id"],
            ["conversations.id"],
            name="fk_participants_conversation_id",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_participants_user_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("conversation_id", "user_id", name="pk_participants"),
    )
    create_index("ix_participants_user_id", "participants", ["user_id"])
    create_table(
        "search_marks",
        sa.Column("conversation_id", _big_id(), autoincrement=False, nullable=False),
        sa.Column("public_seq", sa.Integer(), nullable=False),
        sa.Column("staff_seq", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["conversation_id"],
            ["conversations.id"],
            name="fk_search_marks_conversation_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("conversation_id", name="pk_search_marks"),
    )
    add_column("conversations", sa.Column("team_id", _big_id(), nullable=True))
    add_column(
        "conversations",
        sa.Column("priority", sa.SmallInteger(), server_default="1", nullable=False),
    )
    add_column("conversations", sa.Column("snoozed_until", _moment(), nullable=True))
    add_column("conversations", sa.Column("waiting_since", _moment(), nullable=True))
    add_column("conversations", sa.Column("first_response_at", _moment(), nullable=True))
    add_column("conversations", sa.Column("resolved_at", _moment(), nullable=True))
    add_column("conversations", sa.Column("csat_score", sa.SmallInteger(), nullable=True))
    add_column("conversations", sa.Column("csat_comment", sa.String(length=2000), nullable=True))
    add_column("conversations", sa.Column("csat_at", _moment(), nullable=True))
    add_column("conversations", sa.Column("form", sa.Text(), nullable=True))
    create_index("ix_conversations_created_at", "conversations", ["created_at"])
    create_index("ix_conversations_snoozed_until", "conversations", ["snoozed_until"])
    create_index(
        "ix_conversations_status_waiting_since", "conversations", ["status", "waiting_since"]
    )
    add_column("inboxes", sa.Column("settings", _long_text(), nullable=True))
    add_column("inboxes", sa.Column("business_hours_id", _big_id(), nullable=True))
    add_column("inboxes", sa.Column("identity_secret", _ascii(64), nullable=True))
    add_column("inboxes", sa.Column("retention_days", sa.Integer(), nullable=True))
    add_column(
        "inboxes",
        sa.Column("auto_assign", sa.Boolean(), server_default=sa.text("0"), nullable=False),
    )
    add_column("inboxes", sa.Column("archived_at", _moment(), nullable=True))
    add_column("messages", sa.Column("attachments", sa.Text(), nullable=True))
    add_column("messages", sa.Column("event", sa.Text(), nullable=True))
    add_column(
        "read_marks", sa.Column("delivered_seq", sa.Integer(), server_default="0", nullable=False)
    )
    add_column("sessions", sa.Column("last_seen_at", _moment(), nullable=True))
    add_column("sessions", sa.Column("address", _ascii(45), nullable=True))
    add_column("sessions", sa.Column("user_agent", sa.String(length=300), nullable=True))
    add_column(
        "users", sa.Column("all_inboxes", sa.Boolean(), server_default=sa.text("1"), nullable=False)
    )
    add_column(
        "users", sa.Column("availability", _ascii(8), server_default="online", nullable=False)
    )
    add_column("users", sa.Column("capacity", sa.Integer(), server_default="10", nullable=False))
    add_column("users", sa.Column("last_assigned_at", _moment(), nullable=True))
    add_column("users", sa.Column("totp_secret", _ascii(255), nullable=True))
    add_column("users", sa.Column("totp_enabled_at", _moment(), nullable=True))
    add_column("users", sa.Column("totp_last_step", sa.BigInteger(), nullable=True))
    add_column("users", sa.Column("recovery_codes", sa.Text(), nullable=True))
    add_column(
        "visitors",
        sa.Column(
            "identifier",
            sa.String(length=200).with_variant(
                mysql.VARCHAR(charset="utf8mb4", collation="utf8mb4_bin", length=200), "mysql"
            ),
            nullable=True,
        ),
    )
    add_column("visitors", sa.Column("phone", sa.String(length=40), nullable=True))
    add_column("visitors", sa.Column("attributes", sa.Text(), nullable=True))
    add_column("visitors", sa.Column("address", _ascii(45), nullable=True))
    add_column("visitors", sa.Column("blocked_at", _moment(), nullable=True))
    add_column("visitors", sa.Column("merged_into_id", _big_id(), nullable=True))
    create_index("ix_visitors_last_seen_at", "visitors", ["last_seen_at"])
    create_index(
        "uq_visitors_inbox_id_identifier", "visitors", ["inbox_id", "identifier"], unique=True
    )


def downgrade() -> None:
    """Drop what upgrade made."""
    for index, table in (
        ("ix_conversations_created_at", "conversations"),
        ("ix_conversations_snoozed_until", "conversations"),
        ("ix_conversations_status_waiting_since", "conversations"),
        ("ix_visitors_last_seen_at", "visitors"),
        ("uq_visitors_inbox_id_identifier", "visitors"),
    ):
        op.drop_index(index, table)
    for table, column in (
        ("conversations", "team_id"),
        ("conversations", "priority"),
        ("conversations", "snoozed_until"),
        ("conversations", "waiting_since"),
        ("conversations", "first_response_at"),
        ("conversations", "resolved_at"),
        ("conversations", "csat_score"),
        ("conversations", "csat_comment"),
        ("conversations", "csat_at"),
        ("conversations", "form"),
        ("inboxes", "settings"),
        ("inboxes", "business_hours_id"),
        ("inboxes", "identity_secret"),
        ("inboxes", "retention_days"),
        ("inboxes", "auto_assign"),
        ("inboxes", "archived_at"),
        ("messages", "attachments"),
        ("messages", "event"),
        ("read_marks", "delivered_seq"),
        ("sessions", "last_seen_at"),
        ("sessions", "address"),
        ("sessions", "user_agent"),
        ("users", "all_inboxes"),
        ("users", "availability"),
        ("users", "capacity"),
        ("users", "last_assigned_at"),
        ("users", "totp_secret"),
        ("users", "totp_enabled_at"),
        ("users", "totp_last_step"),
        ("users", "recovery_codes"),
        ("visitors", "identifier"),
        ("visitors", "phone"),
        ("visitors", "attributes"),
        ("visitors", "address"),
        ("visitors", "blocked_at"),
        ("visitors", "merged_into_id"),
    ):
        op.drop_column(table, column)
    for table in (
        "search_marks",
        "participants",
        "conversation_labels",
        "webhook_deliveries",
        "visitor_pages",
        "webhooks",
        "user_tokens",
        "team_members",
        "inbox_members",
        "canned_responses",
        "attachment_bytes",
        "api_keys",
        "webhook_events",
        "teams",
        "mails",
        "labels",
        "business_hours",
        "blocked_networks",
        "audit_log",
        "attachments",
        "app_settings",
    ):
        op.drop_table(table)
