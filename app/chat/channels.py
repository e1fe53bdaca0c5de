"""Channels: their names, and who may listen to which."""

from __future__ import annotations

import hmac
import re
from typing import Final

from app.chat import conversations
from app.chat.accounts import Agent
from app.chat.visitors import VisitorIdentity
from app.db.engines import Database

_NAME: Final = re.compile(r"private-(conversation|staff|inbox|user|visitor)\.([1-9][0-9]{0,17})")
SOCKET_ID: Final = re.compile(r"[0-9]{1,20}\.[0-9]{1,20}")


def conversation_channel(conversation_id: int) -> str:
    """What visitor and staff both see of a conversation."""
    return f"private-conversation.{conversation_id}"


def staff_channel(conversation_id: int) -> str:
    """The notes of a conversation."""
    return f"private-staff.{conversation_id}"


def inbox_channel(inbox_id: int) -> str:
    """The staff's lists."""
    return f"private-inbox.{inbox_id}"


def visitor_channel(visitor_id: int) -> str:
    """What concerns one visitor."""
    return f"private-visitor.{visitor_id}"


def agent_may_join(database: Database, agent: Agent, channel: str) -> bool:
    """Whether a member of the staff may listen to the channel. Blocking."""
    match = _NAME.fullmatch(channel)
    if match is None:
        return False
    kind, number = match[1], int(match[2])
    if kind == "user":
        return number == agent.id
    if kind == "visitor":
        return False
    with database.read() as connection:
        if kind == "inbox":
            return conversations.inbox_exists(connection, number)
        return conversations.owner(connection, number) is not None


def visitor_may_join(database: Database, visitor: VisitorIdentity, channel: str) -> bool:
    """Whether a visitor may listen to the channel. Blocking."""
    match = _NAME.fullmatch(channel)
    if match is None:
        return False
    kind, number = match[1], int(match[2])
    if kind == "visitor":
        return number == visitor.id
    if kind != "conversation":
        return False
    with database.read() as connection:
        return conversations.owner(connection, number) == visitor.id


def sign(key: str, secret: str, socket_id: str, channel: str) -> str:
    """The ``auth`` of a subscription: ``key:hex(HMAC-SHA256(secret, "socket_id:channel"))``.

    As described in the public Pusher documentation, "Generating the authentication string".
    """
    text = f"{socket_id}:{channel}".encode()
    return f"{key}:{hmac.new(secret.encode(), text, 'sha256').hexdigest()}"
