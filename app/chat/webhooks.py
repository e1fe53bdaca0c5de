"""Outgoing webhooks: who is told of what, the log of deliveries, and what a delivery says.

What happened is noted in ``webhook_events`` (:mod:`app.chat.webhook_events`); :func:`expand` makes
one delivery for each webhook that asked for it, and the worker sends these
(:mod:`app.worker.webhooks`).
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

import orjson
from sqlalchemy import Connection, delete, func, insert, select, update

from app import clock
from app.chat import audit, conversations, messages, pages
from app.chat.errors import NotFound, Refused
from app.chat.permissions import Actor
from app.db import schema
from app.db.engines import Database

WEBHOOKS_MAX: Final = 50
URL_MAX_CHARACTERS: Final = 2000
TEST_EVENT: Final = "webhook.test"
SECRET_PREFIX: Final = "whs_"  # noqa: S105  no secret

# the first retry waits half a minute, each further one twice as long, at most six hours; what was
# not taken within a day has failed
FIRST_RETRY: Final = timedelta(seconds=30)
LONGEST_RETRY: Final = timedelta(hours=6)
LIFETIME: Final = timedelta(hours=24)
ERROR_MAX_CHARACTERS: Final = 300
# how many deliveries of a deleted webhook go in one transaction; they hold what was sent
REMOVED_ROWS: Final = 1000

_w, _e, _d = schema.webhooks, schema.webhook_events, schema.webhook_deliveries
_i = schema.inboxes


# --- the webhooks -------------------------------------------------------------------------------


def wire(row: Any) -> dict[str, Any]:
    """The Webhook of the API; never with its secret."""
    inbox = None
    if row.inbox_id is not None:
        inbox = {"id": row.inbox_id, "name": row.inbox_name}
    return {
        "id": row.id,
        "name": row.name,
        "url": row.url,
        "events": orjson.loads(row.events),
        "inbox": inbox,
        "active": row.active,
        "created_at": clock.wire(row.created_at),
    }


def _rows() -> Any:
    return select(_w, _i.c.name.label("inbox_name")).outerjoin(_i, _i.c.id == _w.c.inbox_id)


def everything(connection: Connection) -> list[dict[str, Any]]:
    """Every webhook by name; at most :data:`WEBHOOKS_MAX`."""
    return [wire(row) for row in connection.execute(_rows().order_by(_w.c.name, _w.c.id))]


def one(connection: Connection, webhook_id: int) -> dict[str, Any]:
    """One webhook. Raises :class:`NotFound`."""
    row = connection.execute(_rows().where(_w.c.id == webhook_id)).one_or_none()
    if row is None:
        raise NotFound
    return wire(row)


def create(
    connection: Connection,
    actor: Actor,
    *,
    name: str,
    url: str,
    events: Sequence[str],
    inbox_id: int | None,
    active: bool,
) -> dict[str, Any]:
    """Make a webhook; gives it with its secret, which is shown this once. Raises Refused."""
    _check(connection, url, inbox_id)
    if (connection.execute(select(func.count()).select_from(_w)).scalar_one()) >= WEBHOOKS_MAX:
        raise Refused(
            "conflict", f"There are {WEBHOOKS_MAX} webhooks, no more are kept: delete one first."
        )
    secret = _new_secret()
    result = connection.execute(
        insert(_w).values(
            name=name,
            url=url,
            events=orjson.dumps(list(dict.fromkeys(events))).decode(),
            secret=secret,
            inbox_id=inbox_id,
            active=active,
            created_at=clock.now(),
        )
    )
    key = result.inserted_primary_key
    assert key is not None  # noqa: S101  every dialect used here gives the new id
    made = one(connection, int(key[0]))
    audit.record(
        connection,
        actor,
        "webhook.created",
        "webhook",
        object_id=made["id"],
        details={"name": name, "events": made["events"], "inbox_id": inbox_id},
    )
    return {**made, "secret": secret}


def change(
    connection: Connection, actor: Actor, webhook_id: int, values: Mapping[str, Any]
) -> dict[str, Any]:
    """Change ``name``, ``url``, ``events``, ``inbox_id`` or ``active``.

    Raises :class:`NotFound` or :class:`Refused`.
    """
    before = one(connection, webhook_id)
    _check(connection, values.get("url", before["url"]), values.get("inbox_id"))
    stored = dict(values)
    if "events" in values:
        stored["events"] = orjson.dumps(list(dict.fromkeys(values["events"]))).decode()
    if stored:
        connection.execute(update(_w).where(_w.c.id == webhook_id).values(**stored))
        audit.record(
            connection,
            actor,
            "webhook.updated",
            "webhook",
            object_id=webhook_id,
            details=audit.changes(values),
        )
    return one(connection, webhook_id)


def remove(database: Database, actor: Actor, webhook_id: int) -> None:
    """Delete a webhook; the log of its deliveries goes first, some per transaction.

    It is switched off before that. Broken off half way, it is still there and may be deleted
    again. Raises :class:`NotFound`. Blocking.
    """
    left = True
    while left:
        with database.write() as connection:
            left = _remove_some(connection, actor, webhook_id)


def _remove_some(connection: Connection, actor: Actor, webhook_id: int) -> bool:
    """Delete up to :data:`REMOVED_ROWS` deliveries, or the webhook; says whether it is left."""
    gone = one(connection, webhook_id)
    connection.execute(update(_w).where(_w.c.id == webhook_id).values(active=False))
    some = select(_d.c.id).where(_d.c.webhook_id == webhook_id).limit(REMOVED_ROWS)
    ids = connection.execute(some).scalars().all()
    if ids:
        connection.execute(delete(_d).where(_d.c.id.in_(ids)))
        return True
    connection.execute(delete(_w).where(_w.c.id == webhook_id))
    audit.record(
        connection,
        actor,
        "webhook.deleted",
        "webhook",
        object_id=webhook_id,
        details={"name": gone["name"]},
    )
    return False


def rotate_secret(connection: Connection, actor: Actor, webhook_id: int) -> dict[str, Any]:
    """Give the webhook a new secret, which signs from now on. Raises :class:`NotFound`."""
    webhook = one(connection, webhook_id)
    secret = _new_secret()
    connection.execute(update(_w).where(_w.c.id == webhook_id).values(secret=secret))
    audit.record(connection, actor, "webhook.secret_rotated", "webhook", object_id=webhook_id)
    return {**webhook, "secret": secret}


def _new_secret() -> str:
    return SECRET_PREFIX + clock.token(32)


def _check(connection: Connection, url: str, inbox_id: int | None) -> None:
    if (complaint := bad_url(url)) is not None:
        raise Refused("invalid_request", complaint, field="url")
    if inbox_id is not None and not conversations.inbox_exists(connection, inbox_id):
        raise Refused("invalid_request", "There is no such inbox.", field="inbox_id")


def bad_url(url: str) -> str | None:
    """What is wrong with the address of a webhook; None when nothing is."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "Give an address as https://example.com/hook."
    if parts.scheme not in ("http", "https") or not host or not url.isascii():
        return "Give an address as https://example.com/hook, in ASCII."
    if parts.username is not None or parts.password is not None:
        return "Leave the user and password out: deliveries are signed with the secret."
    if parts.fragment or any(character.isspace() for character in url):
        return "Leave out the part after # and blanks."
    return None


# --- deliveries ---------------------------------------------------------------------------------


def delivery_wire(row: Any, *, with_payload: bool = False) -> dict[str, Any]:
    """The WebhookDelivery of the API."""
    payload = {"payload": orjson.loads(row.payload)} if with_payload else {}
    return {
        "id": row.id,
        "webhook_id": row.webhook_id,
        "event_id": row.event_id,
        "event": row.event,
        "status": row.status,
        "attempts": row.attempts,
        "next_attempt_at": clock.wire(row.next_attempt_at) if row.next_attempt_at else None,
        "response_status": row.response_status,
        "error": row.error,
        "duration_ms": row.duration_ms,
        "created_at": clock.wire(row.created_at),
        "delivered_at": clock.wire(row.delivered_at) if row.delivered_at else None,
        **payload,
    }


def deliveries(
    connection: Connection,
    webhook_id: int,
    *,
    status: str | None,
    cursor: str | None,
    limit: int,
) -> tuple[list[dict[str, Any]], str | None]:
    """The log of a webhook, newest first. Raises :class:`NotFound` or BadCursor."""
    one(connection, webhook_id)
    query = select(_d).where(_d.c.webhook_id == webhook_id).order_by(_d.c.id.desc())
    if status is not None:
        query = query.where(_d.c.status == status)
    if cursor is not None:
        query = query.where(_d.c.id < pages.read_cursor(cursor, int)[0])
    rows = connection.execute(query.limit(limit + 1)).all()
    page = rows[:limit]
    more = len(rows) > limit
    return [delivery_wire(row) for row in page], pages.make_cursor(page[-1].id) if more else None


def delivery(connection: Connection, webhook_id: int, delivery_id: int) -> dict[str, Any]:
    """One delivery with what it says. Raises :class:`NotFound`."""
    return delivery_wire(_delivery(connection, webhook_id, delivery_id), with_payload=True)


def _delivery(connection: Connection, webhook_id: int, delivery_id: int) -> Any:
    row = connection.execute(
        select(_d).where(_d.c.id == delivery_id, _d.c.webhook_id == webhook_id)
    ).one_or_none()
    if row is None:
        raise NotFound
    return row


def retry(
    connection: Connection, actor: Actor, webhook_id: int, delivery_id: int
) -> dict[str, Any]:
    """Send a delivery again, now, under the same ids. Raises :class:`NotFound` or Refused."""
    row = _delivery(connection, webhook_id, delivery_id)
    if not orjson.loads(row.payload):
        raise Refused("conflict", "What it said was erased; it cannot be sent again.")
    _must_be_active(one(connection, webhook_id))
    connection.execute(
        update(_d)
        .where(_d.c.id == delivery_id)
        .values(status="pending", next_attempt_at=clock.now(), delivered_at=None)
    )
    audit.record(
        connection,
        actor,
        "webhook.delivery_retried",
        "webhook",
        object_id=webhook_id,
        details={"delivery_id": delivery_id},
    )
    return delivery_wire(_delivery(connection, webhook_id, delivery_id), with_payload=True)


def send_test(connection: Connection, actor: Actor, webhook_id: int) -> dict[str, Any]:
    """Queue a delivery that tells of nothing. Raises :class:`NotFound` or :class:`Refused`."""
    _must_be_active(one(connection, webhook_id))
    now = clock.now()
    event_id = clock.uuid()
    payload = _payload(event_id, TEST_EVENT, now)
    result = connection.execute(
        insert(_d).values(**_new_delivery(webhook_id, event_id, TEST_EVENT, payload, now))
    )
    key = result.inserted_primary_key
    assert key is not None  # noqa: S101  every dialect used here gives the new id
    audit.record(connection, actor, "webhook.tested", "webhook", object_id=webhook_id)
    return delivery_wire(_delivery(connection, webhook_id, int(key[0])), with_payload=True)


def _must_be_active(webhook: Mapping[str, Any]) -> None:
    if not webhook["active"]:
        raise Refused("conflict", "The webhook is switched off: make it active first.")


def signature(secret: str, timestamp: int, body: bytes) -> str:
    """The value of ``X-Deskline-Signature``: ``t=TIMESTAMP,v1=HEX``.

    HEX is the HMAC-SHA256 (RFC 2104), with the webhook's secret as key, of the timestamp as decimal
    text, a full stop, and the body as it was sent. The timestamp is in Unix seconds; a receiver
    refuses one that is older than some minutes, so that nobody can replay what he recorded.
    """
    signed = f"{timestamp}.".encode() + body
    return f"t={timestamp},v1={hmac.new(secret.encode(), signed, 'sha256').hexdigest()}"


# --- what happened becomes deliveries -----------------------------------------------------------


def _payload(
    event_id: str,
    event: str,
    at: datetime,
    *,
    inbox: dict[str, Any] | None = None,
    conversation: dict[str, Any] | None = None,
    message: dict[str, Any] | None = None,
) -> str:
    return orjson.dumps(
        {
            "id": event_id,
            "event": event,
            "created_at": clock.wire(at),
            "inbox": inbox,
            "conversation": conversation,
            "message": message,
        }
    ).decode()


def _new_delivery(
    webhook_id: int, event_id: str, event: str, payload: str, now: datetime
) -> dict[str, Any]:
    return {
        "webhook_id": webhook_id,
        "event_id": event_id,
        "event": event,
        "payload": payload,
        "status": "pending",
        "attempts": 0,
        "next_attempt_at": now,
        "created_at": now,
    }


def expand(connection: Connection, limit: int) -> int:
    """Turn up to ``limit`` facts into deliveries and remove them; gives how many facts.

    In one transaction, so that each fact becomes its deliveries exactly once, with the fact's
    ``event_id``.
    """
    facts = connection.execute(select(_e).order_by(_e.c.id).limit(limit)).all()
    if not facts:
        return 0
    hooks = connection.execute(select(_w).where(_w.c.active)).all()
    wanted = [
        (hook.id, fact)
        for fact in facts
        for hook in hooks
        if fact.event in orjson.loads(hook.events) and hook.inbox_id in (None, fact.inbox_id)
    ]
    told = conversations.for_events_in(connection, {fact.conversation_id for _, fact in wanted})
    forms = {row.id: form for form, row in told}
    carried = dict(
        messages.these(
            connection,
            {
                (fact.conversation_id, fact.stream, fact.seq)
                for _, fact in wanted
                if fact.event.startswith("message.") and fact.seq is not None
            },
        )
    )
    now = clock.now()
    rows = []
    for hook_id, fact in wanted:
        form = forms.get(fact.conversation_id)
        if form is None:  # it went meanwhile
            continue
        payload = _payload(
            fact.event_id,
            fact.event,
            fact.created_at,
            inbox=form["inbox"],
            conversation={name: form[name] for name in form if name != "last_message"},
            message=(
                carried.get((fact.conversation_id, fact.stream, fact.seq))
                if fact.event.startswith("message.")
                else None
            ),
        )
        made = _new_delivery(hook_id, fact.event_id, fact.event, payload, now)
        rows.append({**made, "conversation_id": fact.conversation_id})
    if rows:
        connection.execute(insert(_d), rows)
    connection.execute(delete(_e).where(_e.c.id.in_([fact.id for fact in facts])))
    return len(facts)


# --- sending ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Due:
    """A delivery that is to be sent now."""

    id: int
    webhook_id: int
    event_id: str
    event: str
    payload: str
    attempts: int
    created_at: datetime
    url: str
    secret: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """How one attempt ended; ``error`` is None when the receiver took it."""

    response_status: int | None
    error: str | None
    duration_ms: int


def due(
    connection: Connection, busy: Mapping[int, Collection[str]], *, per_webhook: int, limit: int
) -> list[Due]:
    """Deliveries to send now, at most ``limit``.

    ``busy`` holds for each webhook the event ids that are being sent: together with those each
    webhook gets at most ``per_webhook``, so that a slow one leaves room for the others.
    """
    now = clock.now()
    found: list[Due] = []
    for hook in connection.execute(select(_w).where(_w.c.active).order_by(_w.c.id)):
        sending = busy.get(hook.id, ())
        room = min(per_webhook - len(sending), limit - len(found))
        if room <= 0:
            continue
        rows = connection.execute(
            select(_d.c.id, _d.c.event_id, _d.c.event, _d.c.payload, _d.c.attempts, _d.c.created_at)
            .where(
                _d.c.webhook_id == hook.id,
                _d.c.status == "pending",
                _d.c.next_attempt_at <= now,
                *([_d.c.event_id.not_in(sorted(sending))] if sending else []),
            )
            .order_by(_d.c.next_attempt_at, _d.c.id)
            .limit(room)
        )
        found += [
            Due(
                row.id,
                hook.id,
                row.event_id,
                row.event,
                row.payload,
                row.attempts,
                row.created_at,
                hook.url,
                hook.secret,
            )
            for row in rows
        ]
    return found


def finish(connection: Connection, sent: Due, attempt: Attempt, jitter: float) -> None:
    """Note how an attempt ended. ``jitter``, near 1, spreads the retries of many deliveries."""
    now = clock.now()
    values: dict[str, Any] = {
        "attempts": _d.c.attempts + 1,
        "response_status": attempt.response_status,
        "error": attempt.error[:ERROR_MAX_CHARACTERS] if attempt.error else None,
        "duration_ms": attempt.duration_ms,
        "next_attempt_at": None,
    }
    if attempt.error is None:
        values |= {"status": "delivered", "delivered_at": now}
    else:
        wait = min(FIRST_RETRY * 2 ** min(sent.attempts, 20), LONGEST_RETRY) * jitter
        if now + wait > sent.created_at + LIFETIME:
            values["status"] = "failed"
        else:
            values["next_attempt_at"] = now + wait
    connection.execute(
        update(_d)
        .where(
            # not by the id: SQLite gives that of a deleted delivery to the next one
            _d.c.webhook_id == sent.webhook_id,
            _d.c.event_id == sent.event_id,
            _d.c.status == "pending",
        )
        .values(**values)
    )
