"""Mail that the worker sends: queued in the transaction of what it tells."""

from __future__ import annotations

from sqlalchemy import Connection, insert

from app import clock
from app.chat.errors import Refused
from app.db import schema


def require(sender: str) -> None:
    """Raise :class:`Refused` unless the installation has a sender of mail."""
    if not sender:
        raise Refused(
            "mail_not_configured",
            "An operator sets DESKLINE_MAIL_FROM on the web nodes, and with it DESKLINE_SMTP_URL "
            "on the workers.",
        )


def queue(
    connection: Connection,
    kind: str,
    *,
    to: str,
    subject: str,
    text: str,
    html: str | None = None,
    conversation_id: int | None = None,
) -> int:
    """Queue one mail; gives its id. ``kind`` says what it is for, as ``invitation``.

    A mail that holds something of a conversation names it: it goes when the person is erased.
    """
    now = clock.now()
    result = connection.execute(
        insert(schema.mails).values(
            kind=kind,
            to_address=to,
            subject=subject,
            body_text=text,
            body_html=html,
            status="pending",
            attempts=0,
            next_attempt_at=now,
            created_at=now,
            conversation_id=conversation_id,
        )
    )
    key = result.inserted_primary_key
    assert key is not None  # noqa: S101  every dialect used here gives the new id
    return int(key[0])
