"""Channels: their names, and who may listen to which."""

from __future__ import annotations

import hmac
import re
from typing import Any, Final

import orjson
from sqlalchemy import Connection, select

from app import clock
from app.chat import access, conversations, permissions
from app.chat.errors import NotFound
from app.chat.permissions import Agent, VisitorIdentity
from app.db import schema
from app.db.engines import Database

_NAME: Final = re.compile(r"private-(conversation|staff|inbox|user|visitor)\.([1-9][0-9]{0,17})")
# Who of the staff is connected; its members are told of each other.
STAFF_CHANNEL: Final = "presence-staff"
# What the gateway takes of a member's user_info.
MAX_USER_INFO_BYTES: Final = 1024
# A client subscribes within moments; the clocks of two machines may differ.
SIGNATURE_SECONDS: Final = 600
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


def may_join(database: Database, caller: Agent | VisitorIdentity, channel: str) -> bool:
    """Whether the caller may listen to the channel. Blocking."""
    match = _NAME.fullmatch(channel)
    if match is None:
        return channel == STAFF_CHANNEL and isinstance(caller, Agent)
    kind, number = match[1], int(match[2])
    is_visitor = isinstance(caller, VisitorIdentity)
    with database.view() as connection:
        if is_visitor and (
            kind in ("staff", "inbox", "user") or _is_blocked(connection, caller.id)
        ):
            return False
        if kind in ("user", "visitor"):
            return number == caller.id and is_visitor == (kind == "visitor")
        if kind == "inbox":
            return conversations.inbox_exists(connection, number) and permissions.may_reach(
                caller, inbox_id=number
            )
        try:
            place = conversations.whereabouts(connection, number)
        except NotFound:
            return False
    return permissions.may_reach(caller, inbox_id=place.inbox_id, visitor_id=place.visitor_id)


def _is_blocked(connection: Connection, visitor_id: int) -> bool:
    query = select(schema.visitors.c.blocked_at).where(schema.visitors.c.id == visitor_id)
    return connection.execute(query).scalar() is not None


def sign(
    key: str, secret: str, socket_id: str, channel: str, caller: Agent | VisitorIdentity
) -> dict[str, str]:
    """The ``auth`` and ``channel_data`` of a subscription.

    ``key:hex(HMAC-SHA256(secret, "socket_id:channel:channel_data"))``, as described in the public
    Pusher documentation, "Generating the authentication string". The channel data tells the
    gateway whose subscription it is and until when it may be made (Unix time), and on a presence
    channel who the member is.
    """
    owner = access.visitor_owner if isinstance(caller, VisitorIdentity) else access.user_owner
    until = int(clock.now_source().timestamp()) + SIGNATURE_SECONDS
    fields = {"owner": owner(caller.id), "until": until}
    if isinstance(caller, Agent) and channel == STAFF_CHANNEL:
        fields |= _member(caller)
    data = orjson.dumps(fields).decode()
    text = f"{socket_id}:{channel}:{data}".encode()
    digest = hmac.new(secret.encode(), text, "sha256").hexdigest()
    return {"auth": f"{key}:{digest}", "channel_data": data}


def _member(agent: Agent) -> dict[str, Any]:
    """``user_id`` and ``user_info`` of an agent. The availability is not in it: it may change, and
    what the members of a channel know of each other does not."""
    info = {"name": agent.name, "avatar_url": agent.avatar_url}
    if len(orjson.dumps(info)) > MAX_USER_INFO_BYTES:
        info["avatar_url"] = None
    return {"user_id": str(agent.id), "user_info": info}
