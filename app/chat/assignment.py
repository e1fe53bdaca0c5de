"""Automatic assignment: who gets the conversations that nobody has.

Round robin among the agents who are present, online, see the inbox and have room: whose last turn
is the longest ago is next. The visitor who has waited longest is served first. Only inboxes with
``auto_assign`` take part.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, func, or_, select, update

from app import clock
from app.chat import timeline, webhook_events
from app.chat.permissions import SYSTEM
from app.db import schema
from app.db.engines import Database
from app.db.upsert import add_participants
from app.db.writer import Stored

CONVERSATIONS_PER_PLAN: Final = 500
_NEVER: Final = datetime.min

_c, _i, _u = schema.conversations, schema.inboxes, schema.users
_im, _tm, _t = schema.inbox_members, schema.team_members, schema.teams


@dataclass(slots=True)
class Candidate:
    """An agent who may be given conversations; ``inbox_ids`` is None for every inbox."""

    id: int
    name: str
    room: int
    last_assigned_at: datetime
    inbox_ids: frozenset[int] | None
    team_ids: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Waiting:
    """A conversation that nobody has.

    ``team_id`` is the team it was passed on to; ``team_exists`` says whether that restricts it to
    the members, for a team may have been deleted since.
    """

    id: int
    inbox_id: int
    team_id: int | None = None
    team_exists: bool = False


@dataclass(frozen=True, slots=True)
class Turn:
    """One decision: who is to get which conversation."""

    conversation_id: int
    user_id: int
    user_name: str
    team_id: int | None


def share_out(waiting: Sequence[Waiting], candidates: Sequence[Candidate]) -> list[Turn]:
    """Who gets what; ``waiting`` is served in its order. Writes nothing."""
    room = {one.id: one.room for one in candidates}
    # nobody in it has had a turn in this plan; then by the order of the turns given here
    order = sorted(candidates, key=lambda one: (one.last_assigned_at, one.id))
    turns: list[Turn] = []
    for conversation in waiting:
        taker = next(
            (one for one in order if room[one.id] > 0 and _may_have(one, conversation)), None
        )
        if taker is None:
            continue
        room[taker.id] -= 1
        order.remove(taker)
        order.append(taker)
        turns.append(Turn(conversation.id, taker.id, taker.name, conversation.team_id))
    return turns


def _may_have(one: Candidate, conversation: Waiting) -> bool:
    if one.inbox_ids is not None and conversation.inbox_id not in one.inbox_ids:
        return False
    return not conversation.team_exists or conversation.team_id in one.team_ids


def present_agents(database: Database, present: Collection[int]) -> list[dict[str, Any]]:
    """Of the ids that are present the active agents, with their availability, by name. Blocking."""
    if not present:
        return []
    with database.view() as connection:
        rows = connection.execute(
            select(_u.c.id, _u.c.name, _u.c.avatar_url, _u.c.availability)
            .where(_u.c.id.in_(sorted(present)), _u.c.active)
            .order_by(_u.c.name, _u.c.id)
        ).all()
    return [
        {
            "user": {"id": row.id, "name": row.name, "avatar_url": row.avatar_url},
            "availability": row.availability,
        }
        for row in rows
    ]


def plan(database: Database, present: Collection[int]) -> list[Turn]:
    """The turns that are due, given the ids of the agents who are present. Blocking."""
    if not present:
        return []
    with database.read() as connection:
        candidates = _candidates(connection, present)
        if not candidates:
            return []
        waiting = _waiting(connection, candidates)
    return share_out(waiting, candidates)


def _candidates(connection: Connection, present: Collection[int]) -> list[Candidate]:
    rows = connection.execute(
        select(_u.c.id, _u.c.name, _u.c.capacity, _u.c.last_assigned_at, _u.c.all_inboxes).where(
            _u.c.id.in_(sorted(present)), _u.c.active, _u.c.availability == "online"
        )
    ).all()
    ids = [row.id for row in rows]
    held: dict[int, int] = dict(
        connection.execute(
            select(_c.c.assignee_id, func.count())
            .where(_c.c.assignee_id.in_(ids), _c.c.status == "open")
            .group_by(_c.c.assignee_id)
        ).all()
    )
    inboxes: dict[int, set[int]] = {}
    for user_id, inbox_id in connection.execute(
        select(_im.c.user_id, _im.c.inbox_id).where(_im.c.user_id.in_(ids))
    ):
        inboxes.setdefault(user_id, set()).add(inbox_id)
    teams: dict[int, set[int]] = {}
    for user_id, team_id in connection.execute(
        select(_tm.c.user_id, _tm.c.team_id).where(_tm.c.user_id.in_(ids))
    ):
        teams.setdefault(user_id, set()).add(team_id)
    return [
        Candidate(
            row.id,
            row.name,
            row.capacity - held.get(row.id, 0),
            row.last_assigned_at or _NEVER,
            None if row.all_inboxes else frozenset(inboxes.get(row.id, ())),
            frozenset(teams.get(row.id, ())),
        )
        for row in rows
        if row.capacity > held.get(row.id, 0)
    ]


def _waiting(connection: Connection, candidates: Sequence[Candidate]) -> list[Waiting]:
    """What somebody here may have, the longest waiting first.

    What nobody here may have is left out by the query, so that it does not fill the plan.
    """
    query = (
        select(_c.c.id, _c.c.inbox_id, _c.c.team_id, _t.c.id.label("team"))
        .join(_i, _i.c.id == _c.c.inbox_id)
        .outerjoin(_t, _t.c.id == _c.c.team_id)
        .where(
            _c.c.status == "open",
            _c.c.assignee_id.is_(None),
            _c.c.waiting_since.is_not(None),
            _i.c.auto_assign,
            _i.c.archived_at.is_(None),
        )
        .order_by(_c.c.waiting_since, _c.c.id)
        .limit(CONVERSATIONS_PER_PLAN)
    )
    if all(one.inbox_ids is not None for one in candidates):
        seen = sorted({inbox for one in candidates for inbox in one.inbox_ids or ()})
        query = query.where(_c.c.inbox_id.in_(seen))
    teams = sorted({team for one in candidates for team in one.team_ids})
    # a team that was deleted restricts nobody
    query = query.where(or_(_t.c.id.is_(None), _t.c.id.in_(teams)))
    return [
        Waiting(row.id, row.inbox_id, row.team_id, row.team is not None)
        for row in connection.execute(query)
    ]


def take_turn(database: Database, turn: Turn, fence: Callable[[Connection], None]) -> Stored | None:
    """Carry out a decision, unless things have changed; gives the event to announce.

    ``fence`` is called first in the transaction and raises when another worker has taken over.
    None when somebody claimed, closed or passed on the conversation meanwhile, or the agent went
    away. Blocking.
    """
    try:
        with database.write() as connection:
            fence(connection)
            return _assign(connection, turn)
    except _TooLate:
        return None


class _TooLate(Exception):
    """Things have changed since the decision; the transaction is rolled back."""


def _assign(connection: Connection, turn: Turn) -> Stored:
    now = clock.now()
    won = connection.execute(
        update(_c)
        .where(
            _c.c.id == turn.conversation_id,
            _c.c.assignee_id.is_(None),
            _c.c.status == "open",
            _c.c.waiting_since.is_not(None),
            _c.c.team_id.is_(None) if turn.team_id is None else _c.c.team_id == turn.team_id,
        )
        .values(assignee_id=turn.user_id)
    )
    if won.rowcount == 0:
        raise _TooLate
    # after the conversation, as everywhere: two transactions never wait in a circle
    there = connection.execute(
        update(_u)
        .where(_u.c.id == turn.user_id, _u.c.active, _u.c.availability == "online")
        .values(last_assigned_at=now)
    )
    if there.rowcount == 0:
        raise _TooLate
    connection.execute(
        add_participants(connection.dialect),
        {"conversation_id": turn.conversation_id, "user_id": turn.user_id, "since": now},
    )
    event = timeline.append_event(
        connection,
        turn.conversation_id,
        "assigned",
        SYSTEM,
        text=f"{turn.user_name} was given the conversation.",
        data={"to": {"type": "agent", "id": turn.user_id, "name": turn.user_name}},
    )
    webhook_events.record(
        connection,
        "conversation.assigned",
        inbox_id=event.inbox_id,
        conversation_id=turn.conversation_id,
    )
    return event
