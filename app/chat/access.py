"""What happens when somebody may no longer hear everything: the open WebSockets come back.

A subscription is checked when it is signed, not with every event. So the change of access itself
tells the gateways, by way of the outbox and in its own transaction: it cannot be forgotten. They
close the owner's sockets, whose clients reconnect at once and have every subscription signed anew.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection

from app.bus import events
from app.db import outbox


def user_owner(user_id: int) -> str:
    """Whom the subscriptions of a member of the staff are signed for."""
    return f"user.{user_id}"


def visitor_owner(visitor_id: int) -> str:
    """Whom the subscriptions of a visitor are signed for."""
    return f"visitor.{visitor_id}"


def changed(connection: Connection, owners: Iterable[str]) -> None:
    """Let the sockets of ``owners`` be closed once this transaction is committed."""
    told = [events.access_changed(owner) for owner in owners]
    if told:
        outbox.add(connection, [(event.channel, event.message) for event in told])
