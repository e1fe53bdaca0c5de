"""The tables, once for MySQL and SQLite.

Times are naive datetimes in UTC with microseconds. Ids, tokens and other machine-made text are
compared byte by byte (``ascii_bin`` on MySQL; SQLite does so by itself).
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

PUBLIC: Final = 0
STAFF: Final = 1
STREAMS: Final = {"public": PUBLIC, "staff": STAFF}
STREAM_NAMES: Final = {number: name for name, number in STREAMS.items()}

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_MYSQL: Final[dict[str, Any]] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_0900_ai_ci",
}


def big_id() -> TypeEngine[int]:
    """BIGINT, and INTEGER on SQLite, where only that makes a self-counting primary key."""
    return BigInteger().with_variant(Integer(), "sqlite")


def ascii_text(length: int) -> TypeEngine[str]:
    """Machine-made ASCII text that is compared byte by byte."""
    return String(length).with_variant(
        mysql.VARCHAR(length, charset="ascii", collation="ascii_bin"), "mysql"
    )


def long_text() -> TypeEngine[str]:
    """Text that may pass MySQL's 64 KiB of TEXT."""
    return Text().with_variant(mysql.MEDIUMTEXT(), "mysql")


def yes() -> Any:
    """The server's default of a Boolean column that is true unless somebody says otherwise."""
    return text("1")


def no() -> Any:
    """The server's default of a Boolean column that is false unless somebody says otherwise."""
    return text("0")


def moment() -> TypeEngine[Any]:
    """A UTC time with microseconds; MySQL's plain DATETIME would round to seconds."""
    return DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql")


inboxes = Table(
    "inboxes",
    metadata,
    Column("id", big_id(), primary_key=True),
    Column("key", ascii_text(64), nullable=False, unique=True),
    Column("name", String(100), nullable=False),
    Column("greeting", String(500), nullable=False),
    Column("color", ascii_text(7), nullable=False),
    Column("languages", ascii_text(200), nullable=False),
    Column("created_at", moment(), nullable=False),
    # everything that is only shown or checked, never searched: see app.chat.inboxes.InboxSettings
    Column("settings", long_text()),
    # no foreign keys on columns that came later: SQLite could add them only by copying the table
    Column("business_hours_id", big_id()),
    Column("identity_secret", ascii_text(64)),
    Column("retention_days", Integer),
    Column("auto_assign", Boolean, nullable=False, server_default=no()),
    Column("archived_at", moment()),
    **_MYSQL,
)

business_hours = Table(
    "business_hours",
    metadata,
    Column("id", big_id(), primary_key=True),
    Column("name", String(100), nullable=False),
    Column("time_zone", ascii_text(64), nullable=False),
    # JSON: {"mon": [["09:00", "17:30"]], …}
    Column("weekly", Text, nullable=False),
    # JSON: [{"date": "2026-12-25", "name": "Christmas", "hours": []}]
    Column("holidays", long_text(), nullable=False),
    Column("created_at", moment(), nullable=False),
    **_MYSQL,
)

users = Table(
    "users",
    metadata,
    Column("id", big_id(), primary_key=True),
    # stored in lower case and compared exactly: two mailboxes that differ only by an accent are
    # two people, which MySQL's default collation would not see
    Column(
        "email",
        String(254).with_variant(
            mysql.VARCHAR(254, charset="utf8mb4", collation="utf8mb4_bin"), "mysql"
        ),
        nullable=False,
        unique=True,
    ),
    Column("name", String(100), nullable=False),
    Column("role", ascii_text(16), nullable=False),
    Column("password_hash", ascii_text(255), nullable=False),
    Column("avatar_url", String(500)),
    Column("active", Boolean, nullable=False),
    Column("created_at", moment(), nullable=False),
    # whether the account sees every inbox, or those of inbox_members
    Column("all_inboxes", Boolean, nullable=False, server_default=yes()),
    Column("availability", ascii_text(8), nullable=False, server_default="online"),
    # how many open conversations automatic assignment may give; its round robin goes by last_…
    Column("capacity", Integer, nullable=False, server_default="10"),
    Column("last_assigned_at", moment()),
    # encrypted with a key made of the secret key
    Column("totp_secret", ascii_text(255)),
    Column("totp_enabled_at", moment()),
    # the newest time step whose code was used: a code works once (RFC 6238 §5.2)
    Column("totp_last_step", BigInteger),
    # JSON: SHA-256 of each recovery code that was not used
    Column("recovery_codes", Text),
    **_MYSQL,
)

inbox_members = Table(
    "inbox_members",
    metadata,
    Column("inbox_id", big_id(), ForeignKey("inboxes.id", ondelete="CASCADE"), nullable=False),
    Column("user_id", big_id(), ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    PrimaryKeyConstraint("inbox_id", "user_id"),
    Index("ix_inbox_members_user_id", "user_id"),
    **_MYSQL,
)

teams = Table(
    "teams",
    metadata,
    Column("id", big_id(), primary_key=True),
    Column("name", String(100), nullable=False, unique=True),
    Column("created_at", moment(), nullable=False),
    **_MYSQL,
)

team_members = Table(
    "team_members",
    metadata,
    Column("team_id", big_id(), ForeignKey("teams.id", ondelete="CASCADE"), nullable=False),
    Column("user_id", big_id(), ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    PrimaryKeyConstraint("team_id", "user_id"),
    Index("ix_team_members_user_id", "user_id"),
    **_MYSQL,
)

user_tokens = Table(
    "user_tokens",
    metadata,
    # SHA-256 of what the mail holds, in hex; purpose is invite or reset
    Column("token_hash", ascii_text(64), primary_key=True),
    Column("user_id", big_id(), ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("purpose", ascii_text(16), nullable=False),
    Column("created_at", moment(), nullable=False),
    Column("expires_at", moment(), nullable=False, index=True),
    Index("ix_user_tokens_user_id", "user_id"),
    **_MYSQL,
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", big_id(), primary_key=True),
    # a key acts as this account, with its role and inboxes
    Column("user_id", big_id(), ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("name", String(100), nullable=False),
    # SHA-256 of the key, in hex; the first characters are kept for people to tell keys apart
    Column("key_hash", ascii_text(64), nullable=False, unique=True),
    Column("prefix", ascii_text(16), nullable=False),
    Column("created_at", moment(), nullable=False),
    Column("expires_at", moment()),
    Column("last_used_at", moment()),
    Column("revoked_at", moment()),
    Index("ix_api_keys_user_id", "user_id"),
    **_MYSQL,
)

sessions = Table(
    "sessions",
    metadata,
    # SHA-256 of the cookie's token, in hex: whoever reads the table cannot log in with it
    Column("token_hash", ascii_text(64), primary_key=True),
    Column("user_id", big_id(), ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("created_at", moment(), nullable=False),
    Column("expires_at", moment(), nullable=False, index=True),
    Column("last_seen_at", moment()),
    Column("address", ascii_text(45)),
    Column("user_agent", String(300)),
    Index("ix_sessions_user_id", "user_id"),
    **_MYSQL,
)

visitors = Table(
    "visitors",
    metadata,
    Column("id", big_id(), primary_key=True),
    Column("inbox_id", big_id(), ForeignKey("inboxes.id"), nullable=False),
    Column("name", String(100), nullable=False),
    Column("email", String(254)),
    Column("language", String(35)),
    Column("browser", String(100)),
    Column("page_url", Text),
    Column("page_title", String(300)),
    Column("referrer", Text),
    Column("first_seen_at", moment(), nullable=False),
    Column("last_seen_at", moment(), nullable=False),
    # who the site says it is (signed with the inbox's identity secret); NULL: anonymous
    Column(
        "identifier",
        String(200).with_variant(
            mysql.VARCHAR(200, charset="utf8mb4", collation="utf8mb4_bin"), "mysql"
        ),
    ),
    Column("phone", String(40)),
    # JSON: {name: text, number or boolean}
    Column("attributes", Text),
    Column("address", ascii_text(45)),
    Column("blocked_at", moment()),
    # set on an anonymous visitor that turned out to be another one: its token speaks for that one
    Column("merged_into_id", big_id()),
    Index("ix_visitors_inbox_id", "inbox_id"),
    Index("ix_visitors_last_seen_at", "last_seen_at"),
    Index("uq_visitors_inbox_id_identifier", "inbox_id", "identifier", unique=True),
    **_MYSQL,
)

visitor_pages = Table(
    "visitor_pages",
    metadata,
    Column("id", big_id(), primary_key=True),
    Column("visitor_id", big_id(), ForeignKey("visitors.id", ondelete="CASCADE"), nullable=False),
    Column("url", Text, nullable=False),
    Column("title", String(300)),
    Column("seen_at", moment(), nullable=False),
    Index("ix_visitor_pages_visitor_id_id", "visitor_id", "id"),
    **_MYSQL,
)

blocked_networks = Table(
    "blocked_networks",
    metadata,
    Column("id", big_id(), primary_key=True),
    Column("network", ascii_text(64), nullable=False, unique=True),
    Column("reason", String(300), nullable=False),
    Column("created_by", big_id()),
    Column("created_at", moment(), nullable=False),
    **_MYSQL,
)

conversations = Table(
    "conversations",
    metadata,
    Column("id", big_id(), primary_key=True),
    Column("inbox_id", big_id(), ForeignKey("inboxes.id"), nullable=False),
    Column("visitor_id", big_id(), ForeignKey("visitors.id"), nullable=False),
    Column("status", ascii_text(16), nullable=False),
    Column("assignee_id", big_id(), ForeignKey("users.id")),
    Column("last_seq_public", Integer, nullable=False),
    Column("last_seq_staff", Integer, nullable=False),
    Column("version", Integer, nullable=False),
    Column("created_at", moment(), nullable=False),
    # the newest activity; the staff list is ordered by it
    Column("updated_at", moment(), nullable=False),
    Column("team_id", big_id()),
    # 0 low, 1 normal, 2 high, 3 urgent
    Column("priority", SmallInteger, nullable=False, server_default="1"),
    Column("snoozed_until", moment()),
    # since when the visitor waits for an answer; NULL when the last word was the staff's
    Column("waiting_since", moment()),
    Column("first_response_at", moment()),
    Column("resolved_at", moment()),
    Column("csat_score", SmallInteger),
    Column("csat_comment", String(2000)),
    Column("csat_at", moment()),
    # JSON: what the visitor filled into the pre-chat form
    Column("form", Text),
    # the number of the last edit in each stream: see message_edits
    Column("last_edit_public", Integer, nullable=False, server_default="0"),
    Column("last_edit_staff", Integer, nullable=False, server_default="0"),
    Index("ix_conversations_status_waiting_since", "status", "waiting_since"),
    Index("ix_conversations_created_at", "created_at"),
    Index("ix_conversations_resolved_at", "resolved_at"),
    Index("ix_conversations_csat_at", "csat_at"),
    Index("ix_conversations_snoozed_until", "snoozed_until"),
    Index("ix_conversations_updated_at", "updated_at"),
    Index("ix_conversations_assignee_id_updated_at", "assignee_id", "updated_at"),
    Index("ix_conversations_inbox_id_updated_at", "inbox_id", "updated_at"),
    Index("ix_conversations_visitor_id", "visitor_id"),
    Index("ix_conversations_team_id_updated_at", "team_id", "updated_at"),
    # who waits in an inbox for somebody to take the conversation, in the order of their turn
    Index(
        "ix_conversations_inbox_id_status_assignee_id_waiting_since",
        "inbox_id",
        "status",
        "assignee_id",
        "waiting_since",
    ),
    **_MYSQL,
)

messages = Table(
    "messages",
    metadata,
    Column("conversation_id", big_id(), ForeignKey("conversations.id"), nullable=False),
    Column("stream", SmallInteger, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("client_id", ascii_text(36), nullable=False),
    Column("sender_type", ascii_text(8), nullable=False),
    Column("sender_id", big_id()),
    Column("kind", ascii_text(8), nullable=False),
    Column("body", Text, nullable=False),
    Column("created_at", moment(), nullable=False),
    Column("edited_at", moment()),
    Column("deleted_at", moment()),
    # JSON, ready for the wire: history stays one range scan
    Column("attachments", Text),
    # JSON: what happened, for kind `event`
    Column("event", Text),
    # history is one range scan of the clustered index
    PrimaryKeyConstraint("conversation_id", "stream", "seq"),
    UniqueConstraint("conversation_id", "client_id"),
    **_MYSQL,
)

message_edits = Table(
    "message_edits",
    metadata,
    # which message was edited or deleted, numbered per stream without holes like seq, so that a
    # client that was away asks for what it missed
    Column(
        "conversation_id",
        big_id(),
        ForeignKey("conversations.id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("stream", SmallInteger, nullable=False),
    Column("edit_seq", Integer, nullable=False),
    Column("seq", Integer, nullable=False),
    PrimaryKeyConstraint("conversation_id", "stream", "edit_seq"),
    **_MYSQL,
)

read_marks = Table(
    "read_marks",
    metadata,
    # no foreign key: checking it would lock the conversation after the mark, while the writer
    # locks the mark after the conversation, and the two would meet in a deadlock
    Column("conversation_id", big_id(), nullable=False),
    Column("stream", SmallInteger, nullable=False),
    Column("reader_type", ascii_text(8), nullable=False),
    Column("reader_id", big_id(), nullable=False),
    Column("seq", Integer, nullable=False),
    # what reached the reader's device; never below seq once it was raised with it
    Column("delivered_seq", Integer, nullable=False, server_default="0"),
    Column("updated_at", moment(), nullable=False),
    PrimaryKeyConstraint("conversation_id", "stream", "reader_type", "reader_id"),
    **_MYSQL,
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", big_id(), primary_key=True),
    Column("channel", ascii_text(200), nullable=False),
    # the ready-made Pusher message; a body of 10 000 characters passes 64 KiB when escaped twice
    Column("message", Text().with_variant(mysql.MEDIUMTEXT(), "mysql"), nullable=False),
    Column("created_at", moment(), nullable=False),
    **_MYSQL,
)

job_fences = Table(
    "job_fences",
    metadata,
    # the highest lock token that worked on a job: a worker that lost its lock without noticing
    # finds a higher token here and stops
    Column("job", ascii_text(64), primary_key=True),
    Column("token", BigInteger, nullable=False),
    **_MYSQL,
)

labels = Table(
    "labels",
    metadata,
    Column("id", big_id(), primary_key=True),
    Column("name", String(50), nullable=False, unique=True),
    Column("color", ascii_text(7), nullable=False),
    Column("created_at", moment(), nullable=False),
    **_MYSQL,
)

conversation_labels = Table(
    "conversation_labels",
    metadata,
    Column(
        "conversation_id",
        big_id(),
        ForeignKey("conversations.id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("label_id", big_id(), ForeignKey("labels.id", ondelete="CASCADE"), nullable=False),
    PrimaryKeyConstraint("conversation_id", "label_id"),
    Index("ix_conversation_labels_label_id", "label_id"),
    **_MYSQL,
)

participants = Table(
    "participants",
    metadata,
    # the agents who had a part in a conversation: held it, wrote in it, or were added
    Column(
        "conversation_id",
        big_id(),
        ForeignKey("conversations.id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("user_id", big_id(), ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    Column("since", moment(), nullable=False),
    PrimaryKeyConstraint("conversation_id", "user_id"),
    Index("ix_participants_user_id", "user_id"),
    **_MYSQL,
)

canned_responses = Table(
    "canned_responses",
    metadata,
    Column("id", big_id(), primary_key=True),
    Column("shortcut", String(50), nullable=False, unique=True),
    Column("title", String(100), nullable=False),
    Column("body", Text, nullable=False),
    # NULL: for every inbox
    Column("inbox_id", big_id(), ForeignKey("inboxes.id", ondelete="CASCADE")),
    Column("created_at", moment(), nullable=False),
    Column("updated_at", moment(), nullable=False),
    **_MYSQL,
)

attachments = Table(
    "attachments",
    metadata,
    Column("id", big_id(), primary_key=True),
    # the unguessable part of its address
    Column("token", ascii_text(43), nullable=False, unique=True),
    Column("conversation_id", big_id(), nullable=False),
    # NULL until a message carries it
    Column("stream", SmallInteger),
    Column("seq", Integer),
    Column("uploader_type", ascii_text(8), nullable=False),
    Column("uploader_id", big_id(), nullable=False),
    Column("name", String(255), nullable=False),
    Column("content_type", ascii_text(100), nullable=False),
    Column("size_bytes", Integer, nullable=False),
    Column("width_px", Integer),
    Column("height_px", Integer),
    Column("sha256", ascii_text(64), nullable=False),
    # none (no scanner is set up) or clean; what a scanner refuses is not stored
    Column("scan", ascii_text(8), nullable=False),
    Column("created_at", moment(), nullable=False),
    Index("ix_attachments_conversation_id_stream_seq", "conversation_id", "stream", "seq"),
    Index("ix_attachments_created_at", "created_at"),
    **_MYSQL,
)

attachment_bytes = Table(
    "attachment_bytes",
    metadata,
    Column(
        "attachment_id",
        big_id(),
        ForeignKey("attachments.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("content", LargeBinary().with_variant(mysql.LONGBLOB(), "mysql"), nullable=False),
    **_MYSQL,
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", big_id(), primary_key=True),
    Column("name", String(100), nullable=False),
    Column("url", Text, nullable=False),
    # JSON: the names of the events
    Column("events", Text, nullable=False),
    # signs the deliveries; needed in the clear, so it is as secret as the database
    Column("secret", ascii_text(64), nullable=False),
    # NULL: of every inbox
    Column("inbox_id", big_id(), ForeignKey("inboxes.id", ondelete="CASCADE")),
    Column("active", Boolean, nullable=False),
    Column("created_at", moment(), nullable=False),
    **_MYSQL,
)

webhook_events = Table(
    "webhook_events",
    metadata,
    # what happened, written in the transaction in which it happened, while any webhook listens;
    # the worker turns each row into deliveries and removes it
    Column("id", big_id(), primary_key=True),
    Column("event_id", ascii_text(36), nullable=False),
    Column("event", ascii_text(64), nullable=False),
    Column("inbox_id", big_id(), nullable=False),
    Column("conversation_id", big_id(), nullable=False),
    # of a message
    Column("stream", SmallInteger),
    Column("seq", Integer),
    Column("created_at", moment(), nullable=False),
    **_MYSQL,
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", big_id(), primary_key=True),
    Column("webhook_id", big_id(), ForeignKey("webhooks.id", ondelete="CASCADE"), nullable=False),
    Column("event_id", ascii_text(36), nullable=False),
    Column("event", ascii_text(64), nullable=False),
    Column("payload", long_text(), nullable=False),
    # pending, delivered or failed
    Column("status", ascii_text(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_attempt_at", moment()),
    Column("response_status", Integer),
    Column("error", String(300)),
    Column("duration_ms", Integer),
    Column("created_at", moment(), nullable=False),
    Column("delivered_at", moment()),
    # of which conversation it tells: an erasure removes what it says
    Column("conversation_id", big_id()),
    Index("ix_webhook_deliveries_conversation_id", "conversation_id"),
    UniqueConstraint("webhook_id", "event_id"),
    Index("ix_webhook_deliveries_status_next_attempt_at", "status", "next_attempt_at"),
    Index("ix_webhook_deliveries_created_at", "created_at"),
    Index("ix_webhook_deliveries_webhook_id_id", "webhook_id", "id"),
    Index(
        "ix_webhook_deliveries_webhook_id_status_next_attempt_at",
        "webhook_id",
        "status",
        "next_attempt_at",
    ),
    **_MYSQL,
)

mails = Table(
    "mails",
    metadata,
    # mail to be sent by the worker; the texts go once it was sent, they may hold a secret link
    Column("id", big_id(), primary_key=True),
    Column("kind", ascii_text(32), nullable=False),
    Column("to_address", String(254), nullable=False),
    Column("subject", String(300), nullable=False),
    Column("body_text", long_text(), nullable=False),
    Column("body_html", long_text()),
    # pending, sent or failed
    Column("status", ascii_text(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_attempt_at", moment()),
    Column("error", String(300)),
    Column("created_at", moment(), nullable=False),
    Column("sent_at", moment()),
    # of which conversation it tells, if of one
    Column("conversation_id", big_id()),
    Index("ix_mails_conversation_id", "conversation_id"),
    Index("ix_mails_to_address_created_at", "to_address", "created_at"),
    Index("ix_mails_status_next_attempt_at", "status", "next_attempt_at"),
    **_MYSQL,
)

audit_log = Table(
    "audit_log",
    metadata,
    Column("id", big_id(), primary_key=True),
    Column("at", moment(), nullable=False),
    # agent, api_key or system; the name is kept, for the account may be gone
    Column("actor_type", ascii_text(8), nullable=False),
    Column("actor_id", big_id()),
    Column("actor_name", String(100), nullable=False),
    Column("action", ascii_text(64), nullable=False),
    Column("object_type", ascii_text(32), nullable=False),
    Column("object_id", ascii_text(64)),
    Column("address", ascii_text(45)),
    # JSON: what was changed; never a secret
    Column("details", Text),
    Index("ix_audit_log_at", "at"),
    Index("ix_audit_log_actor_id_id", "actor_id", "id"),
    Index("ix_audit_log_object_type_object_id_id", "object_type", "object_id", "id"),
    **_MYSQL,
)

app_settings = Table(
    "app_settings",
    metadata,
    # what admins set for the whole installation; value is JSON
    Column("name", ascii_text(64), primary_key=True),
    Column("value", Text, nullable=False),
    Column("updated_at", moment(), nullable=False),
    **_MYSQL,
)

search_marks = Table(
    "search_marks",
    metadata,
    # up to which seq a conversation's messages stand in the search index
    Column(
        "conversation_id",
        big_id(),
        ForeignKey("conversations.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("public_seq", Integer, nullable=False),
    Column("staff_seq", Integer, nullable=False),
    **_MYSQL,
)

message_search = Table(
    "message_search",
    metadata,
    # a copy of what is searched, filled by the worker: a full-text index on `messages` itself
    # would slow every send. The index over body is made by the migration: InnoDB's with the ngram
    # parser, or an FTS5 table beside this one.
    Column("id", big_id(), primary_key=True),
    Column("conversation_id", big_id(), nullable=False),
    Column("stream", SmallInteger, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("inbox_id", big_id(), nullable=False),
    Column("created_at", moment(), nullable=False),
    Column("body", Text, nullable=False),
    UniqueConstraint("conversation_id", "stream", "seq"),
    # the pages of a search: newest first
    Index("ix_message_search_created_at_id", "created_at", "id"),
    **_MYSQL,
)
