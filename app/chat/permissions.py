"""Who may do what: the one place that decides it.

An agent's role gives permissions; its inboxes (all of them, or a list) say for which
conversations, visitors and reports they hold. A visitor reaches what is its own. What a caller may
not see does not exist for it: :class:`NotFound`, never a hint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from app.chat.errors import Forbidden, NotFound

Permission = Literal[
    "account",  # the own account: password, sessions, second factor, availability
    "directory",  # read colleagues, teams, labels, inboxes, canned responses
    "conversations",  # read, answer and change conversations; see their visitors
    "visitors.block",
    "messages.moderate",  # delete what somebody else wrote
    "inboxes.manage",  # with business hours
    "users.manage",
    "teams.manage",
    "labels.manage",
    "canned_responses.manage",
    "webhooks.manage",
    "api_keys.manage",
    "retention.manage",
    "visitors.export",
    "visitors.erase",
    "reports.read",
    "audit.read",
    "system.read",
]

_AGENT: Final[frozenset[Permission]] = frozenset(
    {"account", "directory", "conversations", "visitors.block"}
)
_ADMIN: Final[frozenset[Permission]] = _AGENT | {
    "messages.moderate",
    "inboxes.manage",
    "users.manage",
    "teams.manage",
    "labels.manage",
    "canned_responses.manage",
    "webhooks.manage",
    "api_keys.manage",
    "retention.manage",
    "visitors.export",
    "visitors.erase",
    "reports.read",
    "audit.read",
    "system.read",
}
OF_ROLE: Final[Mapping[str, frozenset[Permission]]] = {"agent": _AGENT, "admin": _ADMIN}


@dataclass(frozen=True, slots=True)
class Agent:
    """A member of the staff who is logged in, or the account that an API key acts as.

    ``inbox_ids`` are the inboxes that it sees; None stands for every inbox.
    """

    id: int
    name: str
    email: str
    role: str
    avatar_url: str | None
    inbox_ids: frozenset[int] | None = None

    def ref(self) -> dict[str, Any]:
        """The UserRef of the API."""
        return {"id": self.id, "name": self.name, "avatar_url": self.avatar_url}


@dataclass(frozen=True, slots=True)
class VisitorIdentity:
    """Who a visitor token speaks for."""

    id: int
    inbox_id: int


@dataclass(frozen=True, slots=True)
class Actor:
    """Who carries out an act, for the audit log and for events in the timeline.

    ``id`` is the account's for agent and api_key, the visitor's for visitor, None for system.
    """

    type: Literal["agent", "api_key", "visitor", "system"]
    id: int | None
    name: str
    address: str | None = None


SYSTEM: Final = Actor("system", None, "Deskline")


def allows(agent: Agent, permission: Permission) -> bool:
    """Whether the agent's role holds the permission."""
    return permission in OF_ROLE.get(agent.role, frozenset())


def require(agent: Agent, permission: Permission) -> None:
    """Raise :class:`Forbidden` unless the agent's role holds the permission."""
    if not allows(agent, permission):
        raise Forbidden


def sees_inbox(agent: Agent, inbox_id: int) -> bool:
    """Whether the agent may see what belongs to the inbox."""
    return agent.inbox_ids is None or inbox_id in agent.inbox_ids


def may_reach(
    caller: Agent | VisitorIdentity, *, inbox_id: int, visitor_id: int | None = None
) -> bool:
    """Whether the caller may reach an object of the inbox that belongs to ``visitor_id``.

    A conversation, its messages and attachments belong to their visitor; other things of an inbox
    to nobody (None), so that no visitor reaches them.
    """
    if isinstance(caller, VisitorIdentity):
        return visitor_id == caller.id and inbox_id == caller.inbox_id
    return sees_inbox(caller, inbox_id)


def reach(caller: Agent | VisitorIdentity, *, inbox_id: int, visitor_id: int | None = None) -> None:
    """Raise :class:`NotFound` unless the caller may reach the object; see :func:`may_reach`."""
    if not may_reach(caller, inbox_id=inbox_id, visitor_id=visitor_id):
        raise NotFound
