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
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
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
    Index("ix_visitors_inbox_id", "inbox_id"),
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
    Index("ix_conversations_updated_at", "updated_at"),
    Index("ix_conversations_assignee_id_updated_at", "assignee_id", "updated_at"),
    Index("ix_conversations_inbox_id_updated_at", "inbox_id", "updated_at"),
    Index("ix_conversations_visitor_id", "visitor_id"),
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
    # history is one range scan of the clustered index
    PrimaryKeyConstraint("conversation_id", "stream", "seq"),
    UniqueConstraint("conversation_id", "client_id"),
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
