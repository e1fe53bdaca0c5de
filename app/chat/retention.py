"""How long things are kept, and removing what is older.

Resolved conversations go with everything that hangs on them, a number of days after they were
resolved: the inbox's own number, or that of the installation; none: they are kept. Visitors go
when nothing of theirs is left and they were not seen for as long, or for the number of days of
visitors without conversations. The log of webhook deliveries
and the audit log have numbers of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, func, or_, select, tuple_

from app import clock
from app.chat import audit, installation
from app.chat.permissions import Actor
from app.chat.privacy import ERASED_NAME
from app.chat.visitors import RESUME_SECONDS
from app.db import schema

SETTING: Final = "retention"
DAYS_MAX: Final = 3650
AUDIT_DAYS_MIN: Final = 30
DELIVERY_DAYS_MAX: Final = 365
# their bytes go with them, some megabytes each
FILES_AT_ONCE: Final = 20
_LONG_AGO: Final = datetime(1970, 1, 1)

_i, _c, _v, _a = schema.inboxes, schema.conversations, schema.visitors, schema.attachments
_d, _log = schema.webhook_deliveries, schema.audit_log
# children before what they point to
_OF_A_CONVERSATION: Final = [
    table for table in reversed(schema.metadata.sorted_tables) if "conversation_id" in table.c
]


@dataclass(frozen=True, slots=True)
class Rules:
    """Numbers of days of the whole installation; None: kept for ever."""

    default_days: int | None = None
    webhook_delivery_days: int = 30
    audit_days: int | None = None
    # of visitors without a conversation; by default until their token opens no session any more
    idle_visitor_days: int | None = RESUME_SECONDS // (24 * 3600)


@dataclass(frozen=True, slots=True)
class Kept:
    """An inbox, and how many days its resolved conversations and its visitors without
    conversations are kept; None: for ever."""

    id: int
    name: str
    own_days: int | None
    days: int | None
    visitor_days: int | None


def rules(connection: Connection) -> Rules:
    """The numbers that are in force."""
    return Rules(**(installation.read(connection, SETTING) or {}))


def inboxes(connection: Connection, in_force: Rules) -> list[Kept]:
    """What is kept of each inbox, by name; archived ones are among them."""
    rows = connection.execute(
        select(_i.c.id, _i.c.name, _i.c.retention_days).order_by(_i.c.name, _i.c.id)
    )
    found = []
    for row in rows:
        days = row.retention_days if row.retention_days is not None else in_force.default_days
        # a conversation's number counts for its visitor too: whichever is over first
        visitor_days = min(
            (each for each in (days, in_force.idle_visitor_days) if each is not None), default=None
        )
        found.append(Kept(row.id, row.name, row.retention_days, days, visitor_days))
    return found


def wire(in_force: Rules, kept: Sequence[Kept]) -> dict[str, Any]:
    """The Retention of the API."""
    return {
        **asdict(in_force),
        "inboxes": [
            {
                "inbox": {"id": one.id, "name": one.name},
                "own_days": one.own_days,
                "days": one.days,
            }
            for one in kept
        ],
    }


def change(connection: Connection, actor: Actor, values: Mapping[str, Any]) -> Rules:
    """Set the numbers of the installation; those that are left out stay."""
    before = rules(connection)
    after = Rules(**{**asdict(before), **values})
    if after != before:
        installation.store(connection, SETTING, asdict(after))
        audit.record(
            connection,
            actor,
            "retention.updated",
            "retention",
            object_id=None,
            details=audit.changes(values),
        )
    return after


# --- what would go ------------------------------------------------------------------------------


def preview(connection: Connection, proposed: Rules) -> dict[str, Any]:
    """How much would go now, per inbox and altogether, if ``proposed`` were in force."""
    now = clock.now()
    items = []
    for one in inboxes(connection, proposed):
        counts = {"conversations": 0, "messages": 0, "attachments": 0, "visitors": 0}
        if one.visitor_days is not None:
            # without a number of days no conversation is old
            before = now - timedelta(days=one.days) if one.days is not None else _LONG_AGO
            counts = _count(connection, one.id, before, now - timedelta(days=one.visitor_days))
        items.append({"inbox": {"id": one.id, "name": one.name}, "days": one.days, **counts})
    deliveries = now - timedelta(days=proposed.webhook_delivery_days)
    entries = 0
    if proposed.audit_days is not None:
        entries = _number(connection, _log, _log.c.at < now - timedelta(days=proposed.audit_days))
    return {
        "items": items,
        "webhook_deliveries": _number(connection, _d, _d.c.created_at < deliveries),
        "audit_entries": entries,
    }


def _number(connection: Connection, table: Any, condition: ColumnElement[bool]) -> int:
    query = select(func.count()).select_from(table).where(condition)
    return int(connection.execute(query).scalar_one())


def _count(
    connection: Connection, inbox_id: int, before: datetime, visitors_before: datetime
) -> dict[str, int]:
    going = and_(_c.c.inbox_id == inbox_id, _c.c.status == "resolved", _c.c.resolved_at < before)
    conversations, messages = connection.execute(
        select(
            func.count(),
            func.coalesce(func.sum(_c.c.last_seq_public + _c.c.last_seq_staff), 0),
        ).where(going)
    ).one()
    files = connection.execute(
        select(func.count()).select_from(_a).join(_c, _c.c.id == _a.c.conversation_id).where(going)
    ).scalar_one()
    # a visitor goes once its last conversation went
    staying = exists().where(_c.c.visitor_id == _v.c.id, ~going)
    visitors = connection.execute(
        select(func.count())
        .select_from(_v)
        .where(
            _v.c.inbox_id == inbox_id, _v.c.last_seen_at < visitors_before, _unblocked(), ~staying
        )
    ).scalar_one()
    return {
        "conversations": int(conversations),
        "messages": int(messages),
        "attachments": int(files),
        "visitors": int(visitors),
    }


def _unblocked() -> ColumnElement[bool]:
    # who is blocked stays blocked; the nameless visitors of erased people are, too
    return or_(_v.c.blocked_at.is_(None), _v.c.name == ERASED_NAME)


# --- removing -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Old:
    """A row in a walk from the oldest, by its moment and its id."""

    at: datetime = _LONG_AGO
    id: int = 0


def old_conversations(
    connection: Connection, kept: Sequence[Kept], after: Old, limit: int
) -> tuple[list[Old], Old | None]:
    """Of the next ``limit`` resolved ones those to remove, and how far this looked.

    One walk over the index of all inboxes, so that what is kept is looked at once a run.
    """
    now = clock.now()
    before = {one.id: now - timedelta(days=one.days) for one in kept if one.days is not None}
    if not before:
        return [], None
    rows = connection.execute(
        select(_c.c.id, _c.c.inbox_id, _c.c.resolved_at)
        .where(
            _c.c.status == "resolved",
            _c.c.resolved_at >= after.at,
            _c.c.resolved_at < max(before.values()),
            or_(_c.c.resolved_at > after.at, _c.c.id > after.id),
        )
        .order_by(_c.c.resolved_at, _c.c.id)
        .limit(limit)
    ).all()
    going = [
        Old(row.resolved_at, row.id)
        for row in rows
        if row.inbox_id in before and row.resolved_at < before[row.inbox_id]
    ]
    return going, Old(rows[-1].resolved_at, rows[-1].id) if rows else None


def remove_conversation(connection: Connection, old: Old, limit: int) -> tuple[Counter[str], bool]:
    """Remove up to ``limit`` rows of a conversation, itself at the end; none when it was reopened
    since it was found, even if it is resolved again.

    Gives what went, by table, and whether some is left for another transaction.
    """
    removed: Counter[str] = Counter()
    # the writer takes the same lock: nothing is added or reopened meanwhile
    conversation_id = old.id
    now = connection.execute(
        select(_c.c.status, _c.c.resolved_at).where(_c.c.id == conversation_id).with_for_update()
    ).one_or_none()
    if now is None or (now.status, now.resolved_at) != ("resolved", old.at):
        return removed, False
    left = limit
    # from the first table each time, for a job may have added rows since the last transaction
    for table in _OF_A_CONVERSATION:
        part = min(left, FILES_AT_ONCE) if table is _a else left
        columns = list(table.primary_key.columns)
        keys = connection.execute(
            select(*columns).where(table.c.conversation_id == conversation_id).limit(part)
        ).all()
        if keys:
            these = tuple_(*columns).in_([tuple(key) for key in keys])
            removed[table.name] = connection.execute(delete(table).where(these)).rowcount
            left -= len(keys)
        if len(keys) == part:
            return removed, True
    gone = connection.execute(delete(_c).where(_c.c.id == conversation_id))
    removed["conversations"] = gone.rowcount
    return removed, False


def remove_visitors(
    connection: Connection, kept: Sequence[Kept], after: Old, limit: int
) -> tuple[int, Old | None]:
    """Remove those of the next ``limit`` visitors that nothing is left of; gives how many went,
    and how far this looked."""
    now = clock.now()
    before = {
        one.id: now - timedelta(days=one.visitor_days)
        for one in kept
        if one.visitor_days is not None
    }
    if not before:
        return 0, None
    conditions = [
        _v.c.last_seen_at >= after.at,
        _v.c.last_seen_at < max(before.values()),
        or_(_v.c.last_seen_at > after.at, _v.c.id > after.id),
    ]
    if connection.dialect.name == "sqlite":
        # SQLite would give the highest id to the next visitor, and old tokens would speak for it
        conditions.append(_v.c.id < select(func.max(_v.c.id)).scalar_subquery())
    rows = connection.execute(
        select(_v.c.id, _v.c.inbox_id, _v.c.last_seen_at)
        .where(*conditions)
        .order_by(_v.c.last_seen_at, _v.c.id)
        .limit(limit)
    ).all()
    if not rows:
        return 0, None
    end = Old(rows[-1].last_seen_at, rows[-1].id)
    old = [
        row.id for row in rows if row.inbox_id in before and row.last_seen_at < before[row.inbox_id]
    ]
    # locked, so that no conversation begins between looking and removing; the writer takes the
    # same lock before it opens one
    going = (
        connection.execute(
            select(_v.c.id)
            .where(
                _v.c.id.in_(sorted(old)),
                _v.c.merged_into_id.is_(None),
                _unblocked(),
                ~exists().where(_c.c.visitor_id == _v.c.id),
            )
            .order_by(_v.c.id)
            .with_for_update(of=_v)
        )
        .scalars()
        .all()
        if old
        else []
    )
    if not going:
        return 0, end
    # again, under the lock
    held = set(
        connection.execute(select(_c.c.visitor_id).where(_c.c.visitor_id.in_(going))).scalars()
    )
    ids = [visitor_id for visitor_id in going if visitor_id not in held]
    merged = connection.execute(select(_v.c.id).where(_v.c.merged_into_id.in_(ids))).scalars().all()
    pages = schema.visitor_pages
    connection.execute(delete(pages).where(pages.c.visitor_id.in_([*ids, *merged])))
    return connection.execute(delete(_v).where(_v.c.id.in_([*ids, *merged]))).rowcount, end


def remove_logs(connection: Connection, in_force: Rules, limit: int) -> Counter[str]:
    """Remove up to ``limit`` old rows of each log; gives what went, by table."""
    now = clock.now()
    removed: Counter[str] = Counter()
    wanted: list[tuple[Any, Any, datetime]] = [
        (_d, _d.c.created_at, now - timedelta(days=in_force.webhook_delivery_days))
    ]
    if in_force.audit_days is not None:
        wanted.append((_log, _log.c.at, now - timedelta(days=in_force.audit_days)))
    for table, moment, before in wanted:
        ids = (
            connection.execute(
                select(table.c.id).where(moment < before).order_by(moment).limit(limit)
            )
            .scalars()
            .all()
        )
        if ids:
            gone = connection.execute(delete(table).where(table.c.id.in_(ids)))
            removed[table.name] = gone.rowcount
    return removed
