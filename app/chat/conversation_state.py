"""What staff and visitors do to a conversation, apart from writing in it.

Each act is one transaction on the primary: the row is changed under its lock, with the timeline's
event, what webhooks are told and the participants. The caller announces the :class:`Change` after
the commit. An act that finds its work done changes nothing, so that it may be repeated; ``version``
is the conversation's version that the caller saw: when another act came between, it is refused.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, and_, delete, exists, insert, not_, or_, select, update

from app import clock
from app.chat import conversations, inboxes, permissions, timeline, webhook_events
from app.chat.conversations import PARTICIPANTS_MAX, PRIORITIES, Priority
from app.chat.errors import AlreadyClaimed, NotFound, Refused
from app.chat.permissions import SYSTEM, Actor, Agent, VisitorIdentity
from app.db import schema
from app.db.engines import Database
from app.db.upsert import add_participants
from app.db.writer import Stored

SNOOZE_MAX: Final = timedelta(days=366)
RATING_CHANGEABLE: Final = timedelta(hours=24)

_c, _u, _t, _m = schema.conversations, schema.users, schema.teams, schema.messages
_im, _tm, _p = schema.inbox_members, schema.team_members, schema.participants
_l, _cl, _v = schema.labels, schema.conversation_labels, schema.visitors
_i = schema.inboxes


@dataclass(frozen=True, slots=True)
class Change:
    """What an act did: the conversation for its caller, and what is to be announced.

    ``told`` are the new entries of the staff stream; empty when nothing changed. ``public`` says
    that the visitor is told too.
    """

    conversation: dict[str, Any]
    told: tuple[Stored, ...] = ()
    public: bool = False


@dataclass(frozen=True, slots=True)
class Caller:
    """The agent who acts, and as whom the timeline names it."""

    agent: Agent
    actor: Actor


# --- who has it -----------------------------------------------------------------------------


def claim(
    database: Database, caller: Caller, conversation_id: int, *, version: int | None = None
) -> Change:
    """Give the conversation to the caller when nobody has it; the primary decides (P9).

    Raises :class:`AlreadyClaimed` with the holder, :class:`Refused` or :class:`NotFound`. Blocking.
    """
    agent = caller.agent
    with database.write() as connection:
        place = conversations.whereabouts(connection, conversation_id)
        permissions.reach(agent, inbox_id=place.inbox_id, visitor_id=place.visitor_id)
        free = update(_c).where(_c.c.id == conversation_id, _c.c.assignee_id.is_(None))
        if version is not None:
            free = free.where(_c.c.version == version)
        won = connection.execute(free.values(assignee_id=agent.id)).rowcount == 1
        if not won:
            row = _lock(connection, agent, conversation_id)
            if row.assignee_id == agent.id:
                return Change(conversations.staff_now(connection, agent, conversation_id))
            if row.assignee_id is not None:
                raise AlreadyClaimed(_holder(connection, row.assignee_id))
            raise _outdated(connection, row)
        _join(connection, conversation_id, agent.id)
        _record(connection, "conversation.assigned", place.inbox_id, conversation_id)
        text = f"{agent.name} took the conversation."
        event = timeline.append_event(
            connection, conversation_id, "claimed", caller.actor, text=text
        )
        return _changed(connection, caller, conversation_id, event, public=True)


def release(
    database: Database, caller: Caller, conversation_id: int, *, version: int | None = None
) -> Change:
    """Give the own conversation back to nobody.

    Raises :class:`AlreadyClaimed` when another agent has it. Blocking.
    """
    agent = caller.agent
    with database.write() as connection:
        row = _lock(connection, agent, conversation_id)
        if row.assignee_id is None:
            return Change(conversations.staff_now(connection, agent, row.id))
        if row.assignee_id != agent.id:
            raise AlreadyClaimed(_holder(connection, row.assignee_id))
        _expect(connection, row, version)
        _update(connection, row, assignee_id=None)
        _record(connection, "conversation.assigned", row.inbox_id, row.id)
        text = f"{agent.name} gave the conversation back."
        event = timeline.append_event(connection, row.id, "released", caller.actor, text=text)
        return _changed(connection, caller, row.id, event, public=True)


def orphans(database: Database, limit: int) -> list[int]:
    """Conversations that are not resolved and whose assignee cannot answer any more: the account
    is disabled or does not see the inbox. Blocking."""
    query = (
        select(_c.c.id)
        .join(_u, _u.c.id == _c.c.assignee_id)
        .where(_c.c.status.in_(("open", "snoozed")), not_(_can_take(_c.c.inbox_id)))
        .order_by(_c.c.id)
        .limit(limit)
    )
    with database.read() as connection:
        return list(connection.execute(query).scalars())


def set_free(connection: Connection, conversation_id: int) -> Stored | None:
    """Take an orphan (see :func:`orphans`) from its assignee; None when it is none any more."""
    row = connection.execute(
        select(_c.c.id, _c.c.inbox_id, _c.c.status, _c.c.assignee_id, _c.c.version)
        .where(_c.c.id == conversation_id)
        .with_for_update()
    ).one_or_none()
    if row is None or row.status == "resolved" or row.assignee_id is None:
        return None
    can_take = select(_u.c.id).where(_u.c.id == row.assignee_id, _can_take(row.inbox_id))
    if connection.execute(can_take).first() is not None:
        return None
    gone = _holder(connection, row.assignee_id)
    _update(connection, row, assignee_id=None)
    _record(connection, "conversation.assigned", row.inbox_id, row.id)
    return timeline.append_event(
        connection,
        row.id,
        "released",
        SYSTEM,
        text=f"{gone['name']} cannot answer here any more: the conversation is free.",
        data={"from": {"type": "agent", "id": gone["id"], "name": gone["name"]}},
    )


def assign(
    database: Database,
    caller: Caller,
    conversation_id: int,
    *,
    user_id: int,
    version: int | None = None,
) -> Change:
    """Give the conversation to an agent, whoever has it now.

    Raises :class:`Refused` unless ``user_id`` is an active agent who sees the inbox. Blocking.
    """
    with database.write() as connection:
        row = _lock(connection, caller.agent, conversation_id)
        if row.assignee_id == user_id:
            return Change(conversations.staff_now(connection, caller.agent, row.id))
        _expect(connection, row, version)
        event = _give(connection, caller, row, user_id, kind="assigned")
        return _changed(connection, caller, row.id, event, public=True)


def transfer(
    database: Database,
    caller: Caller,
    conversation_id: int,
    *,
    user_id: int | None,
    team_id: int | None,
    note: str | None,
    version: int | None = None,
) -> Change:
    """Pass the own conversation, or one that nobody has, on to an agent or to a team.

    A team's conversation has no assignee until a member takes it. ``note`` is kept as a note of
    the caller. Raises :class:`AlreadyClaimed` when another agent has it, :class:`Refused` unless
    exactly one of ``user_id`` and ``team_id`` is given and can take it. Blocking.
    """
    agent = caller.agent
    if (user_id is None) == (team_id is None):
        raise Refused("invalid_request", "Give user_id or team_id, and not both.", field="user_id")
    with database.write() as connection:
        row = _lock(connection, agent, conversation_id)
        there = (
            row.assignee_id == user_id
            if user_id is not None
            else row.assignee_id is None and row.team_id == team_id
        )
        if there:
            return Change(conversations.staff_now(connection, agent, row.id))
        if row.assignee_id not in (None, agent.id):
            raise AlreadyClaimed(_holder(connection, row.assignee_id))
        _expect(connection, row, version)
        if user_id is not None:
            event = _give(connection, caller, row, user_id, kind="transferred")
        else:
            assert team_id is not None  # noqa: S101  one of the two is given
            event = _pass_to_team(connection, caller, row, team_id)
        told = [event]
        if note is not None:
            told.append(timeline.append_note(connection, row.id, agent, note))
        now = conversations.staff_now(connection, agent, row.id)
        return Change(now, tuple(told), public=True)


def _give(connection: Connection, caller: Caller, row: Any, user_id: int, *, kind: str) -> Stored:
    taker = connection.execute(
        select(_u.c.id, _u.c.name).where(_u.c.id == user_id, _can_take(row.inbox_id))
    ).one_or_none()
    if taker is None:
        raise Refused(
            "invalid_request",
            "Choose an active agent who sees this conversation's inbox.",
            field="user_id",
        )
    values: dict[str, Any] = {"assignee_id": taker.id}
    if row.team_id is not None and not _is_member(connection, row.team_id, taker.id):
        values["team_id"] = None
    _update(connection, row, **values)
    _join(connection, row.id, taker.id)
    _record(connection, "conversation.assigned", row.inbox_id, row.id)
    return timeline.append_event(
        connection,
        row.id,
        kind,
        caller.actor,
        text=f"{caller.agent.name} gave the conversation to {taker.name}.",
        data={"to": {"type": "agent", "id": taker.id, "name": taker.name}},
    )


def _pass_to_team(connection: Connection, caller: Caller, row: Any, team_id: int) -> Stored:
    name = connection.execute(select(_t.c.name).where(_t.c.id == team_id)).scalar()
    if name is None:
        raise Refused("invalid_request", "Choose a team that exists.", field="team_id")
    member = (
        select(_u.c.id)
        .join(_tm, _tm.c.user_id == _u.c.id)
        .where(_tm.c.team_id == team_id, _can_take(row.inbox_id))
        .limit(1)
    )
    if connection.execute(member).first() is None:
        raise Refused(
            "invalid_request",
            "Choose a team with an active member who sees this conversation's inbox.",
            field="team_id",
        )
    _update(connection, row, assignee_id=None, team_id=team_id)
    _record(connection, "conversation.assigned", row.inbox_id, row.id)
    return timeline.append_event(
        connection,
        row.id,
        "transferred",
        caller.actor,
        text=f"{caller.agent.name} passed the conversation on to the team {name}.",
        data={"to": {"type": "team", "id": team_id, "name": name}},
    )


def _can_take(inbox_id: Any) -> Any:
    """The condition on ``users`` of an active account that sees the inbox (an id or a column)."""
    member = exists().where(_im.c.inbox_id == inbox_id, _im.c.user_id == _u.c.id)
    return and_(_u.c.active, or_(_u.c.all_inboxes, member))


def _is_member(connection: Connection, team_id: int, user_id: int) -> bool:
    query = select(_tm.c.user_id).where(_tm.c.team_id == team_id, _tm.c.user_id == user_id)
    return connection.execute(query).first() is not None


# --- open, snoozed, resolved ------------------------------------------------------------------


def snooze(
    database: Database,
    caller: Caller,
    conversation_id: int,
    *,
    until: datetime,
    version: int | None = None,
) -> Change:
    """Put the conversation aside until a naive UTC time; the visitor's next message wakes it too.

    Raises :class:`Refused` when it is resolved, or the time is past or too far. Blocking.
    """
    now = clock.now()
    if not now < until <= now + SNOOZE_MAX:
        raise Refused(
            "invalid_request",
            f"Choose a time within the next {SNOOZE_MAX.days} days.",
            field="until",
        )
    with database.write() as connection:
        row = _lock(connection, caller.agent, conversation_id)
        if row.status == "snoozed" and row.snoozed_until == until:
            return Change(conversations.staff_now(connection, caller.agent, row.id))
        _expect(connection, row, version)
        if row.status == "resolved":
            raise _conflict(connection, row, "It is resolved; reopen it first.")
        _update(connection, row, status="snoozed", snoozed_until=until)
        _record(connection, "conversation.snoozed", row.inbox_id, row.id)
        event = timeline.append_event(
            connection,
            row.id,
            "snoozed",
            caller.actor,
            text=f"{caller.agent.name} snoozed the conversation until {until:%Y-%m-%d %H:%M} UTC.",
            data={"until": clock.wire(until)},
        )
        return _changed(connection, caller, row.id, event, public=True)


def resolve(
    database: Database, caller: Caller, conversation_id: int, *, version: int | None = None
) -> Change:
    """Mark the conversation as done. Raises :class:`Refused` or :class:`NotFound`. Blocking."""
    with database.write() as connection:
        row = _lock(connection, caller.agent, conversation_id)
        if row.status == "resolved":
            return Change(conversations.staff_now(connection, caller.agent, row.id))
        _expect(connection, row, version)
        text = f"{caller.agent.name} resolved the conversation."
        event = _resolve(connection, row, "resolved", caller.actor, text)
        return _changed(connection, caller, row.id, event, public=True)


def reopen(
    database: Database, caller: Caller, conversation_id: int, *, version: int | None = None
) -> Change:
    """Open the conversation again. Raises :class:`Refused` or :class:`NotFound`. Blocking."""
    with database.write() as connection:
        row = _lock(connection, caller.agent, conversation_id)
        if row.status == "open":
            return Change(conversations.staff_now(connection, caller.agent, row.id))
        _expect(connection, row, version)
        values: dict[str, Any] = {"status": "open", "resolved_at": None, "snoozed_until": None}
        if row.status == "resolved":
            # whoever waited when it was resolved by mistake has waited on
            values["waiting_since"] = connection.execute(
                select(_m.c.created_at).where(
                    _m.c.conversation_id == row.id,
                    _m.c.stream == schema.PUBLIC,
                    _m.c.seq == row.last_seq_public,
                    _m.c.sender_type == "visitor",
                )
            ).scalar()
        _update(connection, row, **values)
        _record(connection, "conversation.reopened", row.inbox_id, row.id)
        text = f"{caller.agent.name} reopened the conversation."
        event = timeline.append_event(connection, row.id, "reopened", caller.actor, text=text)
        return _changed(connection, caller, row.id, event, public=True)


def due_to_wake(database: Database, limit: int) -> list[int]:
    """Snoozed conversations whose time has come, the longest due first. Blocking."""
    query = (
        select(_c.c.id)
        .where(_c.c.snoozed_until <= clock.now(), _c.c.status == "snoozed")
        .order_by(_c.c.snoozed_until)
        .limit(limit)
    )
    with database.read() as connection:
        return list(connection.execute(query).scalars())


def wake(connection: Connection, conversation_id: int) -> Stored | None:
    """Open a snoozed conversation whose time has come; None when somebody was faster."""
    woken = connection.execute(
        update(_c)
        .where(
            _c.c.id == conversation_id,
            _c.c.status == "snoozed",
            _c.c.snoozed_until <= clock.now(),
        )
        .values(status="open", snoozed_until=None)
    )
    if woken.rowcount == 0:
        return None
    event = timeline.append_event(
        connection, conversation_id, "woke", SYSTEM, text="The snoozed conversation is open again."
    )
    _record(connection, "conversation.reopened", event.inbox_id, conversation_id)
    return event


def _resolve(connection: Connection, row: Any, kind: str, actor: Actor, text: str) -> Stored:
    _update(
        connection,
        row,
        status="resolved",
        resolved_at=clock.now(),
        snoozed_until=None,
        waiting_since=None,
    )
    _record(connection, "conversation.resolved", row.inbox_id, row.id)
    return timeline.append_event(connection, row.id, kind, actor, text=text)


# --- what describes it ------------------------------------------------------------------------


def set_priority(
    database: Database,
    caller: Caller,
    conversation_id: int,
    *,
    priority: Priority,
    version: int | None = None,
) -> Change:
    """Set how urgent it is. Raises :class:`Refused` or :class:`NotFound`. Blocking."""
    with database.write() as connection:
        row = _lock(connection, caller.agent, conversation_id)
        before = PRIORITIES[row.priority]
        if before == priority:
            return Change(conversations.staff_now(connection, caller.agent, row.id))
        _expect(connection, row, version)
        _update(connection, row, priority=PRIORITIES.index(priority))
        event = timeline.append_event(
            connection,
            row.id,
            "priority_changed",
            caller.actor,
            text=f"{caller.agent.name} set the priority to {priority}.",
            data={"from": before, "to": priority},
        )
        return _changed(connection, caller, row.id, event)


def set_labels(
    database: Database,
    caller: Caller,
    conversation_id: int,
    *,
    label_ids: Collection[int],
    version: int | None = None,
) -> Change:
    """Give the conversation exactly these labels.

    Raises :class:`Refused` when one does not exist, or :class:`NotFound`. Blocking.
    """
    wanted = set(label_ids)
    with database.write() as connection:
        row = _lock(connection, caller.agent, conversation_id)
        present = {
            label["id"]: label["name"]
            for label in conversations.labels_of(connection, [row.id]).get(row.id, [])
        }
        new, gone = wanted - set(present), set(present) - wanted
        if not new and not gone:
            return Change(conversations.staff_now(connection, caller.agent, row.id))
        _expect(connection, row, version)
        exist = select(_l.c.id, _l.c.name).where(_l.c.id.in_(sorted(new)))
        # shared: nobody may delete a label between this look and the insert
        names: dict[int, str] = dict(connection.execute(exist.with_for_update(read=True)).all())
        if len(names) < len(new):
            raise Refused("invalid_request", "Choose labels that exist.", field="label_ids")
        of_this = _cl.c.conversation_id == row.id
        if gone:
            connection.execute(delete(_cl).where(of_this, _cl.c.label_id.in_(sorted(gone))))
        if new:
            connection.execute(
                insert(_cl),
                [{"conversation_id": row.id, "label_id": label_id} for label_id in sorted(new)],
            )
        added = sorted(names.values())
        removed = sorted(present[label_id] for label_id in gone)
        event = timeline.append_event(
            connection,
            row.id,
            "labels_changed",
            caller.actor,
            text=f"{caller.agent.name} changed the labels: {_differences(added, removed)}.",
            data={"added": added, "removed": removed},
        )
        return _changed(connection, caller, row.id, event)


def _differences(added: list[str], removed: list[str]) -> str:
    return ", ".join([f"+{name}" for name in added] + [f"-{name}" for name in removed])


def participants(database: Database, agent: Agent, conversation_id: int) -> list[dict[str, Any]]:
    """The agents who have a part in the conversation. Raises :class:`NotFound`. Blocking."""
    with database.read() as connection:
        place = conversations.whereabouts(connection, conversation_id)
        permissions.reach(agent, inbox_id=place.inbox_id, visitor_id=place.visitor_id)
        return conversations.participants_of(connection, conversation_id)


def add_participant(
    database: Database, caller: Caller, conversation_id: int, user_id: int
) -> Change:
    """Add an agent. Raises :class:`Refused` unless it is active and sees the inbox. Blocking."""
    with database.write() as connection:
        row = _lock(connection, caller.agent, conversation_id)
        present = connection.execute(
            select(_p.c.user_id).where(_p.c.conversation_id == row.id)
        ).scalars()
        ids = set(present)
        if user_id in ids:
            return Change(conversations.staff_now(connection, caller.agent, row.id))
        if len(ids) >= PARTICIPANTS_MAX:
            raise _conflict(connection, row, f"It has {PARTICIPANTS_MAX} participants already.")
        name = connection.execute(
            select(_u.c.name).where(_u.c.id == user_id, _can_take(row.inbox_id))
        ).scalar()
        if name is None:
            raise Refused(
                "invalid_request",
                "Choose an active agent who sees this conversation's inbox.",
                field="user_id",
            )
        _join(connection, row.id, user_id)
        event = timeline.append_event(
            connection,
            row.id,
            "participant_added",
            caller.actor,
            text=f"{caller.agent.name} added {name}.",
            data={"user": {"id": user_id, "name": name}},
        )
        return _changed(connection, caller, row.id, event)


def remove_participant(
    database: Database, caller: Caller, conversation_id: int, user_id: int
) -> Change:
    """Take an agent out of the participants.

    Raises :class:`Refused` for the one who has the conversation. Blocking.
    """
    with database.write() as connection:
        row = _lock(connection, caller.agent, conversation_id)
        mine = and_(_p.c.conversation_id == row.id, _p.c.user_id == user_id)
        if connection.execute(select(_p.c.user_id).where(mine)).first() is None:
            return Change(conversations.staff_now(connection, caller.agent, row.id))
        if row.assignee_id == user_id:
            raise _conflict(connection, row, "This agent has the conversation; transfer it first.")
        name = connection.execute(select(_u.c.name).where(_u.c.id == user_id)).scalar_one()
        connection.execute(delete(_p).where(mine))
        event = timeline.append_event(
            connection,
            row.id,
            "participant_removed",
            caller.actor,
            text=f"{caller.agent.name} removed {name}.",
            data={"user": {"id": user_id, "name": name}},
        )
        return _changed(connection, caller, row.id, event)


# --- by the visitor ---------------------------------------------------------------------------


def end(database: Database, who: VisitorIdentity, conversation_id: int) -> Change:
    """Resolve the own conversation, as its visitor. Raises :class:`NotFound`. Blocking."""
    with database.write() as connection:
        row = _lock(connection, who, conversation_id)
        if row.status == "resolved":
            return Change(conversations.visitor_now(connection, row.id, who.id))
        actor = _visitor(connection, who)
        text = f"{actor.name} ended the conversation."
        event = _resolve(connection, row, "ended", actor, text)
        return Change(conversations.visitor_now(connection, row.id, who.id), (event,), public=True)


def rate(
    database: Database,
    who: VisitorIdentity,
    conversation_id: int,
    *,
    score: int,
    comment: str | None,
) -> Change:
    """Rate the help of the own, resolved conversation from 1 to 5.

    It may be changed for :data:`RATING_CHANGEABLE`, and given anew after another resolution.
    Raises :class:`Refused` or :class:`NotFound`. Blocking.
    """
    now = clock.now()
    with database.write() as connection:
        row = _lock(connection, who, conversation_id)
        actor = _visitor(connection, who)
        if row.status != "resolved":
            raise _conflict(connection, row, "It can be rated once it is resolved.")
        inbox = connection.execute(select(_i.c.settings).where(_i.c.id == row.inbox_id)).one()
        if not inboxes.settings_of(inbox).csat_enabled:
            raise _conflict(connection, row, "The support team does not ask for ratings here.")
        first = row.csat_at is None or (
            row.resolved_at is not None and row.csat_at < row.resolved_at
        )
        if not first and (row.csat_score, row.csat_comment) == (score, comment):
            return Change(conversations.visitor_now(connection, row.id, who.id))
        if not first and now - row.csat_at > RATING_CHANGEABLE:
            hours = int(RATING_CHANGEABLE.total_seconds() // 3600)
            raise _conflict(connection, row, f"A rating can be changed for {hours} hours only.")
        # the time stays that of the first word: a change does not prolong the time for changes
        rated_at = now if first else row.csat_at
        _update(connection, row, csat_score=score, csat_comment=comment, csat_at=rated_at)
        _record(connection, "conversation.rated", row.inbox_id, row.id)
        event = timeline.append_event(
            connection,
            row.id,
            "rated",
            actor,
            text=f"{actor.name} rated the conversation {score} of 5.",
            data={"score": score},
        )
        return Change(conversations.visitor_now(connection, row.id, who.id), (event,), public=True)


def _visitor(connection: Connection, who: VisitorIdentity) -> Actor:
    row = connection.execute(select(_v.c.name, _v.c.blocked_at).where(_v.c.id == who.id)).one()
    if row.blocked_at is not None:
        raise Refused(
            "visitor_blocked", "The support team does not take messages from this visitor."
        )
    return Actor("visitor", who.id, row.name)


# --- what all of them need --------------------------------------------------------------------


def _lock(connection: Connection, caller: Agent | VisitorIdentity, conversation_id: int) -> Any:
    """The row, locked until the end of the transaction. Raises :class:`NotFound`."""
    row = connection.execute(
        select(_c).where(_c.c.id == conversation_id).with_for_update()
    ).one_or_none()
    if row is None:
        raise NotFound
    permissions.reach(caller, inbox_id=row.inbox_id, visitor_id=row.visitor_id)
    return row


def _update(connection: Connection, row: Any, **values: Any) -> None:
    """Change the locked row; its version and time move with the event that follows."""
    connection.execute(
        update(_c).where(_c.c.id == row.id, _c.c.version == row.version).values(**values)
    )


def _join(connection: Connection, conversation_id: int, user_id: int) -> None:
    connection.execute(
        add_participants(connection.dialect),
        {"conversation_id": conversation_id, "user_id": user_id, "since": clock.now()},
    )


def _record(connection: Connection, event: str, inbox_id: int, conversation_id: int) -> None:
    webhook_events.record(connection, event, inbox_id=inbox_id, conversation_id=conversation_id)


def _changed(
    connection: Connection,
    caller: Caller,
    conversation_id: int,
    event: Stored,
    *,
    public: bool = False,
) -> Change:
    wire = conversations.staff_now(connection, caller.agent, conversation_id)
    return Change(wire, (event,), public)


def _holder(connection: Connection, user_id: int) -> dict[str, Any]:
    row = connection.execute(
        select(_u.c.id, _u.c.name, _u.c.avatar_url).where(_u.c.id == user_id)
    ).one()
    return {"id": row.id, "name": row.name, "avatar_url": row.avatar_url}


def _expect(connection: Connection, row: Any, version: int | None) -> None:
    if version is not None and row.version != version:
        raise _outdated(connection, row)


def _outdated(connection: Connection, row: Any) -> Refused:
    return _conflict(connection, row, "It was changed meanwhile; look at it, and decide again.")


def _conflict(connection: Connection, row: Any, detail: str) -> Refused:
    assignee = _holder(connection, row.assignee_id) if row.assignee_id is not None else None
    state = {
        "id": row.id,
        "status": row.status,
        "assignee": assignee,
        "version": row.version,
    }
    return Refused("conflict", detail, extra={"conversation": state})
