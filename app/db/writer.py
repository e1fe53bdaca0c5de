"""The group-commit writer: many messages, one transaction, one commit.

Requests queue their message; one thread per web process takes what is queued (up to
:data:`BATCH_ROWS`), stores it in one transaction on the primary and answers all of them after the
commit (ARCHITECTURE §4). While one batch commits the next one gathers, so no timer is needed.

Seq numbers are given out under the lock of the conversation's row, and the rows are locked in the
order of their ids, so that two writers never wait for each other in a circle and the order of
commits is the order of seq. Retries are safe: (conversation_id, client_id) is looked up under the
same lock.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import orjson
from sqlalchemy import Connection, Engine, Update, bindparam, func, insert, select, tuple_, update
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from app import clock, log
from app.db import engines, schema
from app.db.engines import Unavailable
from app.db.upsert import add_participants, raise_read_mark

BATCH_ROWS: Final = 500
QUEUE_ROWS: Final = 5000
RETRY_SECONDS: Final = 1.5
RETRY_PAUSE_SECONDS: Final = 0.1
# how long senders wait while nothing is committed, before they are told to try again: all in all,
# with the time for a login, less than 2 seconds
STORE_SECONDS: Final = 1.8
# the same while the primary is known to be away
AWAY_SECONDS: Final = 0.8
_SWEEP_SECONDS: Final = 0.1


class Rejected(Exception):
    """A message that cannot be stored.

    ``reason`` is ``not_found`` (no such conversation, or it is somebody else's), ``blocked`` (the
    visitor may not write), ``client_id_taken`` (another sender used it here),
    ``attachment_not_found`` (not uploaded by this sender for this conversation, or sent already)
    or ``bad_row`` (the database refused it).
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class QueueFull(Exception):
    """The writer has too much to do; the same message may succeed a little later."""


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message to store.

    Either ``conversation_id`` is given, or ``visitor_id`` alone: then the message goes to the
    visitor's open conversation, which is made when there is none. With both, the conversation
    must belong to the visitor. ``stream`` is a number of :data:`app.db.schema.STREAMS`.
    ``inbox_ids`` are the inboxes in which the sender may write, None for every one.
    ``attachment_ids`` name uploads of the sender that no message carries yet.
    """

    client_id: str
    stream: int
    sender_type: str
    sender_id: int | None
    kind: str
    body: str
    conversation_id: int | None = None
    visitor_id: int | None = None
    # of an agent; a visitor's name is read together with the conversation
    sender_name: str = ""
    sender_avatar_url: str | None = None
    inbox_ids: frozenset[int] | None = None
    attachment_ids: tuple[int, ...] = ()
    # what the visitor filled into the pre-chat form, as JSON: kept when this opens a conversation
    form: str | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """A message as it stands in the database.

    ``created`` is false when it had been stored before; ``opened`` is true when this message made
    its conversation, ``reopened`` when it woke one that was snoozed or resolved. ``attachments``
    and ``event`` are JSON as it stands in the database.
    """

    conversation_id: int
    inbox_id: int
    visitor_id: int
    stream: int
    seq: int
    client_id: str
    sender_type: str
    sender_id: int | None
    sender_name: str
    sender_avatar_url: str | None
    kind: str
    body: str
    created_at: datetime
    created: bool
    opened: bool = False
    reopened: bool = False
    attachments: str | None = None
    event: str | None = None
    # of a message that was sent again after its sender changed it
    edited_at: datetime | None = None
    deleted_at: datetime | None = None


@dataclass(slots=True)
class Statistics:
    """What the writer did since it started; read by the metrics."""

    batches: int = 0
    rows: int = 0
    repeats: int = 0
    rejected: int = 0
    failed: int = 0
    retries: int = 0
    late: int = 0
    commit_seconds: float = 0.0


Outcome = Stored | Exception


@dataclass(slots=True, eq=False)
class _Waiting:
    message: NewMessage
    future: asyncio.Future[Stored]
    since: float  # of the loop's clock
    late: bool = False  # its sender was told to try again


@dataclass(slots=True)
class _Conversation:
    """A locked conversation while a batch is being stored."""

    id: int
    inbox_id: int
    visitor_id: int
    visitor_name: str
    status: str
    last_seq: list[int]
    added: list[int] = field(default_factory=lambda: [0, 0])
    # who wrote in the public stream: the visitor, or an agent; the last word decides who waits
    visitor_wrote: bool = False
    agent_wrote: bool = False
    last_word: str = ""


class Writer:
    """Stores messages in groups. Made, used and closed on one event loop.

    ``on_stored`` is called on the loop with the messages of a batch, new and repeated ones, in the
    order of their seq in a stream, before their senders are answered; it must neither block nor
    raise. With them come the timeline's events that they caused.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        on_stored: Callable[[list[Stored]], None] | None = None,
        primary_away: Callable[[], bool] = lambda: False,
        queue_rows: int = QUEUE_ROWS,
        batch_rows: int = BATCH_ROWS,
    ) -> None:
        self.statistics = Statistics()
        self._engine = engine
        self._on_stored = on_stored
        self._primary_away = primary_away
        self._queue_rows = queue_rows
        self._batch_rows = batch_rows
        self._queue: deque[_Waiting] = deque()
        # everything that was queued and may not be answered yet, in the order of its arrival
        self._unanswered: deque[_Waiting] = deque()
        self._sweeping = False
        self._committed_at = 0.0  # of the loop's clock
        self._wake = threading.Condition()
        self._closing = False
        self._loop = asyncio.get_running_loop()
        self._done = asyncio.Event()
        self._batch = _Batch(engine)
        self._thread = threading.Thread(target=self._work, name="writer", daemon=True)
        self._thread.start()

    @property
    def queued(self) -> int:
        """How many messages wait for their batch."""
        return len(self._queue)

    async def store(self, message: NewMessage) -> Stored:
        """Store one message; returns after the primary committed.

        Raises :class:`QueueFull`, :class:`Rejected` or :class:`app.db.engines.Unavailable`, the
        latter when nothing was committed for :data:`STORE_SECONDS`: the message may then be
        stored or not, and is sent again with the same ``client_id``. A caller that stops waiting
        does not undo the message.
        """
        future: asyncio.Future[Stored] = self._loop.create_future()
        waiting = _Waiting(message, future, self._loop.time())
        with self._wake:
            if self._closing or len(self._queue) >= self._queue_rows:
                raise QueueFull
            self._queue.append(waiting)
            self._wake.notify()
        self._unanswered.append(waiting)
        if not self._sweeping:
            self._sweeping = True
            self._loop.call_later(_SWEEP_SECONDS, self._sweep)
        return await future

    def _sweep(self) -> None:
        """Tell those who have waited too long; one timer for all is cheaper than one for each.

        Where commits go on, a long queue is only slow: it is bounded, and nobody is sent away.
        """
        patience = AWAY_SECONDS if self._primary_away() else STORE_SECONDS
        limit = self._loop.time() - patience
        while self._unanswered:
            first = self._unanswered[0]
            if not first.future.done():
                if max(first.since, self._committed_at) > limit:
                    break
                first.late = True
                self.statistics.late += 1
                first.future.set_exception(Unavailable("the primary has not committed in time"))
            self._unanswered.popleft()
        self._sweeping = bool(self._unanswered)
        if self._sweeping:
            self._loop.call_later(_SWEEP_SECONDS, self._sweep)

    async def close(self) -> None:
        """Refuse new messages, store those that wait, end the thread."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        await self._done.wait()
        await asyncio.to_thread(self._thread.join)

    # --- in the writer's thread --------------------------------------------------------------

    def _work(self) -> None:
        while batch := self._take():
            self._batch.events.clear()
            outcomes = self._store_surely(batch)
            events = tuple(self._batch.events)
            self._loop.call_soon_threadsafe(self._answer, batch, outcomes, events)
        self._batch.close()
        self._loop.call_soon_threadsafe(self._done.set)

    def _take(self) -> list[_Waiting]:
        """The next batch; empty at the end only."""
        batch: list[_Waiting] = []
        with self._wake:
            while not batch:
                while not self._queue and not self._closing:
                    self._wake.wait()
                if not self._queue:
                    break
                while self._queue and len(batch) < self._batch_rows:
                    waiting = self._queue.popleft()
                    if not waiting.late:
                        batch.append(waiting)
        return batch

    def _store_surely(self, batch: list[_Waiting]) -> list[Outcome]:
        try:
            return self._store([waiting.message for waiting in batch])
        except Exception as error:  # noqa: BLE001  the thread must survive, the senders be told
            log.get("writer").error("batch failed", rows=len(batch), exc_info=error)
            self.statistics.failed += len(batch)
            return [error] * len(batch)

    def _store(self, messages: Sequence[NewMessage]) -> list[Outcome]:
        """Store a batch; when a row is bad, halve the batch until that row stands alone."""
        try:
            outcomes = self._store_with_retries(messages)
        except Unavailable as error:
            self.statistics.failed += len(messages)
            return [error] * len(messages)
        except SQLAlchemyError as error:
            if len(messages) > 1:
                middle = len(messages) // 2
                return self._store(messages[:middle]) + self._store(messages[middle:])
            log.get("writer").warning(
                "row refused by the database",
                conversation_id=messages[0].conversation_id,
                reason=engines.reason(error),
            )
            self.statistics.rejected += 1
            return [Rejected("bad_row")]
        self.statistics.batches += 1
        for outcome in outcomes:
            if isinstance(outcome, Stored):
                self.statistics.rows += outcome.created
                self.statistics.repeats += not outcome.created
            else:
                self.statistics.rejected += 1
        return outcomes

    def _store_with_retries(self, messages: Sequence[NewMessage]) -> list[Outcome]:
        give_up_at = time.monotonic() + RETRY_SECONDS
        maybe_committed = False
        while True:
            started = time.monotonic()
            try:
                outcomes = self._batch.store(messages, resumed=maybe_committed)
            except (SQLAlchemyError, OSError) as error:
                unavailable = engines.is_unavailable(error)
                maybe_committed = maybe_committed or self._batch.committing
                self._batch.reset()
                if not unavailable and not (
                    isinstance(error, DBAPIError) and engines.is_retryable(error)
                ):
                    raise
                if time.monotonic() >= give_up_at or self._closing:
                    raise Unavailable(engines.reason(error)) from error
                self.statistics.retries += 1
                time.sleep(RETRY_PAUSE_SECONDS)
            else:
                self.statistics.commit_seconds += time.monotonic() - started
                return outcomes

    # --- on the event loop -------------------------------------------------------------------

    def _answer(
        self, batch: list[_Waiting], outcomes: list[Outcome], events: tuple[Stored, ...]
    ) -> None:
        if not all(isinstance(outcome, Unavailable) for outcome in outcomes):
            self._committed_at = self._loop.time()
        told = [*_each_once(outcomes), *events]
        if told and self._on_stored is not None:
            try:
                self._on_stored(told)
            except Exception as error:  # noqa: BLE001  the messages are durable: answer the senders
                log.get("writer").error("on_stored failed", exc_info=error)
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if waiting.future.done():
                continue
            if isinstance(outcome, Stored):
                waiting.future.set_result(outcome)
            else:
                waiting.future.set_exception(outcome)


def _each_once(outcomes: Sequence[Outcome]) -> list[Stored]:
    """The messages to announce, each once; a created one stands before its repeats.

    A repeat is announced too: its sender asks again because it heard nothing, and the process that
    stored the message may have died before it told anybody. Clients know a seq that they have.
    """
    known: set[tuple[int, str]] = set()
    told: list[Stored] = []
    for item in outcomes:
        if isinstance(item, Stored) and (item.conversation_id, item.client_id) not in known:
            known.add((item.conversation_id, item.client_id))
            told.append(item)
    return told


_c, _v, _m, _a = schema.conversations, schema.visitors, schema.messages, schema.attachments
_w = schema.webhooks

_LOCK_VISITORS = (
    select(_v.c.id, _v.c.inbox_id, _v.c.blocked_at)
    # one that was merged into another visitor is no more: its widget opens a new session
    .where(_v.c.id.in_(bindparam("ids", expanding=True)), _v.c.merged_into_id.is_(None))
    .order_by(_v.c.id)
    .with_for_update()
)
_OPEN_CONVERSATIONS = (
    select(_c.c.visitor_id, func.max(_c.c.id))
    .where(_c.c.visitor_id.in_(bindparam("visitor_ids", expanding=True)), _c.c.status != "resolved")
    .group_by(_c.c.visitor_id)
)
_REPEATED_FIRST_MESSAGES = (
    select(_c.c.visitor_id, _m.c.client_id, _c.c.id)
    .join(_m, _m.c.conversation_id == _c.c.id)
    .where(
        # the second condition says it all, the first one lets MySQL use the index
        _c.c.visitor_id.in_(bindparam("visitor_ids", expanding=True)),
        tuple_(_c.c.visitor_id, _m.c.client_id).in_(bindparam("pairs", expanding=True)),
    )
)
_WEBHOOK_LISTENS = select(_w.c.id).where(_w.c.active).limit(1)
_LOCK_CONVERSATIONS = (
    select(
        _c.c.id,
        _c.c.inbox_id,
        _c.c.visitor_id,
        _c.c.status,
        _c.c.last_seq_public,
        _c.c.last_seq_staff,
        _v.c.name,
        _v.c.blocked_at,
        _WEBHOOK_LISTENS.scalar_subquery().label("webhook"),
    )
    # first the conversations, in the order of their ids, whatever the optimizer thinks of it …
    .prefix_with("STRAIGHT_JOIN", dialect="mysql")
    .join(_v, _v.c.id == _c.c.visitor_id)
    .where(_c.c.id.in_(bindparam("ids", expanding=True)))
    .order_by(_c.c.id)
    # … and only they are locked: others lock the visitor first
    .with_for_update(of=_c)
)
_REPEATED = select(
    _m.c.conversation_id,
    _m.c.client_id,
    _m.c.stream,
    _m.c.seq,
    _m.c.sender_type,
    _m.c.sender_id,
    _m.c.kind,
    _m.c.body,
    _m.c.created_at,
    _m.c.edited_at,
    _m.c.deleted_at,
    _m.c.attachments,
    _m.c.event,
).where(tuple_(_m.c.conversation_id, _m.c.client_id).in_(bindparam("pairs", expanding=True)))
_ADVANCE = (
    update(_c)
    .where(_c.c.id.in_(bindparam("ids", expanding=True)))
    .values(
        last_seq_public=_c.c.last_seq_public + bindparam("public"),
        last_seq_staff=_c.c.last_seq_staff + bindparam("staff"),
        version=_c.c.version + 1,
        updated_at=bindparam("now"),
    )
)
_WAKE = {
    "status": "open",
    "snoozed_until": None,
    "resolved_at": None,
}
_LOCK_ATTACHMENTS = (
    select(_a).where(_a.c.id.in_(bindparam("ids", expanding=True))).order_by(_a.c.id)
).with_for_update()
_LINK_ATTACHMENT = (
    update(_a)
    .where(_a.c.id == bindparam("attachment"))
    .values(stream=bindparam("in_stream"), seq=bindparam("at_seq"))
)
_MESSAGE_COLUMNS: Final = (
    "conversation_id",
    "stream",
    "seq",
    "client_id",
    "sender_type",
    "sender_id",
    "kind",
    "body",
    "created_at",
    "attachments",
    "event",
)
_MARK_COLUMNS: Final = (
    "conversation_id",
    "stream",
    "reader_type",
    "reader_id",
    "seq",
    "delivered_seq",
    "updated_at",
)


class _Batch:
    """Stores one batch in one transaction on a connection that it keeps between batches."""

    def __init__(self, engine: Engine) -> None:
        self.committing = False
        # the timeline's events of what was committed since the writer last took them
        self.events: list[Stored] = []
        self._engine = engine
        self._connection: Connection | None = None
        self._insert_messages = ""
        self._raise_marks = ""
        self._add_participants = ""

    def close(self) -> None:
        """Give the connection back."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def reset(self) -> None:
        """Throw the connection away after an error, so that the next batch opens a new one."""
        if self._connection is not None:
            self._connection.invalidate()
            self._connection.close()
            self._connection = None

    def store(self, messages: Sequence[NewMessage], *, resumed: bool) -> list[Outcome]:
        """Store ``messages``; outcomes stand in the same order.

        ``resumed`` says that an earlier try may have been committed without our hearing of it: a
        repeat then counts as created, so that its event is published.
        """
        self.committing = False
        connection = self._open()
        with connection.begin():
            outcomes, events = self._store_in(connection, messages, resumed)
            self.committing = True
        self.committing = False
        self.events.extend(events)
        return outcomes

    def _open(self) -> Connection:
        if self._connection is None:
            self._connection = self._engine.connect().execution_options(sqlite_begin="IMMEDIATE")
            dialect = self._connection.dialect
            self._insert_messages = str(
                insert(_m).compile(dialect=dialect, column_keys=list(_MESSAGE_COLUMNS))
            )
            self._raise_marks = str(
                raise_read_mark(dialect).compile(dialect=dialect, column_keys=list(_MARK_COLUMNS))
            )
            self._add_participants = str(
                add_participants(dialect).compile(
                    dialect=dialect, column_keys=["conversation_id", "user_id", "since"]
                )
            )
        return self._connection

    def _store_in(
        self, connection: Connection, messages: Sequence[NewMessage], resumed: bool
    ) -> tuple[list[Outcome], list[Stored]]:
        now = clock.now()
        targets, opened, blocked = _find_conversations(connection, messages, now)
        conversations, webhook = _lock_conversations(connection, targets, blocked)
        outcomes: list[Outcome | None] = [None] * len(messages)
        wanted: list[tuple[int, NewMessage, _Conversation]] = []
        for index, (message, target) in enumerate(zip(messages, targets, strict=True)):
            conversation = conversations.get(target) if target is not None else None
            if message.visitor_id is not None and message.visitor_id in blocked:
                outcomes[index] = Rejected("blocked")
            elif conversation is None or not _may_write(message, conversation):
                outcomes[index] = Rejected("not_found")
            else:
                wanted.append((index, message, conversation))

        known = _find_repeats(connection, wanted, conversations, created=resumed)
        uploads = _lock_attachments(connection, [message for _, message, _ in wanted])
        rows: list[Stored] = []
        marks: dict[tuple[int, int, str, int], int] = {}
        for index, message, conversation in wanted:
            key = (conversation.id, message.client_id)
            earlier = known.get(key)
            if earlier is None:
                attachments = _take_attachments(message, conversation, uploads)
                if attachments is None:
                    outcomes[index] = Rejected("attachment_not_found")
                    continue
                stored = _append(
                    message, conversation, now, attachments, opened=conversation.id in opened
                )
                opened.discard(conversation.id)
                rows.append(stored)
                known[key] = _as_repeat(stored)
                for attachment_id in message.attachment_ids:
                    connection.execute(
                        _LINK_ATTACHMENT,
                        {
                            "attachment": attachment_id,
                            "in_stream": stored.stream,
                            "at_seq": stored.seq,
                        },
                    )
                if message.sender_id is not None:
                    reader = (conversation.id, message.stream, message.sender_type)
                    marks[(*reader, message.sender_id)] = stored.seq
                outcomes[index] = stored
            elif (earlier.sender_type, earlier.sender_id, earlier.stream) != (
                message.sender_type,
                message.sender_id,
                message.stream,
            ):
                outcomes[index] = Rejected("client_id_taken")
            else:
                outcomes[index] = earlier
        events = [
            _reopened(row, conversations[row.conversation_id]) for row in rows if row.reopened
        ]
        if rows:
            self._insert(connection, rows, events, marks, now, webhook=webhook)
            _advance(connection, conversations.values(), now)
        return [outcome for outcome in outcomes if outcome is not None], events

    def _insert(
        self,
        connection: Connection,
        rows: list[Stored],
        events: list[Stored],
        marks: dict[tuple[int, int, str, int], int],
        now: datetime,
        *,
        webhook: bool,
    ) -> None:
        # text is what both drivers take for a time without looking at it again
        moment = now.isoformat(" ", "microseconds")
        connection.exec_driver_sql(
            self._insert_messages,
            [
                (
                    row.conversation_id,
                    row.stream,
                    row.seq,
                    row.client_id,
                    row.sender_type,
                    row.sender_id,
                    row.kind,
                    row.body,
                    moment,
                    row.attachments,
                    row.event,
                )
                for row in (*rows, *events)
            ],
        )
        if marks:
            connection.exec_driver_sql(
                self._raise_marks,
                [(*key, marks[key], marks[key], moment) for key in sorted(marks)],
            )
        writers = sorted(
            {(row.conversation_id, row.sender_id) for row in rows if row.sender_type == "agent"}
        )
        if writers:
            connection.exec_driver_sql(
                self._add_participants, [(*writer, moment) for writer in writers]
            )
        if webhook:
            facts = [fact for row in rows for fact in _facts(row, now)]
            connection.execute(insert(schema.webhook_events), facts)


def _facts(row: Stored, now: datetime) -> list[dict[str, Any]]:
    """What webhooks are told of a stored message."""
    common = {
        "inbox_id": row.inbox_id,
        "conversation_id": row.conversation_id,
        "stream": row.stream,
        "seq": row.seq,
        "created_at": now,
    }
    names = ["message.created"]
    if row.opened:
        names.insert(0, "conversation.created")
    elif row.reopened:
        names.insert(0, "conversation.reopened")
    return [{**common, "event_id": clock.uuid(), "event": name} for name in names]


def _may_write(message: NewMessage, conversation: _Conversation) -> bool:
    if message.visitor_id is not None and message.visitor_id != conversation.visitor_id:
        return False
    return message.inbox_ids is None or conversation.inbox_id in message.inbox_ids


def _lock_attachments(connection: Connection, messages: Sequence[NewMessage]) -> dict[int, Any]:
    ids = sorted({item for message in messages for item in message.attachment_ids})
    if not ids:
        return {}
    return {row.id: row for row in connection.execute(_LOCK_ATTACHMENTS, {"ids": ids})}


def _take_attachments(
    message: NewMessage, conversation: _Conversation, uploads: dict[int, Any]
) -> list[dict[str, Any]] | None:
    """The attachments of a message in the form of the wire; None when it may not have one."""
    rows = [uploads.get(item) for item in message.attachment_ids]
    for row in rows:
        if (
            row is None
            or row.seq is not None
            or row.conversation_id != conversation.id
            or (row.uploader_type, row.uploader_id) != (message.sender_type, message.sender_id)
        ):
            return None
    for item in message.attachment_ids:
        uploads.pop(item, None)
    return [attachment_wire(row) for row in rows]


def attachment_wire(row: Any) -> dict[str, Any]:
    """The Attachment of the API of a row of ``attachments``."""
    return {
        "id": row.id,
        "name": row.name,
        "content_type": row.content_type,
        "size_bytes": row.size_bytes,
        "width_px": row.width_px,
        "height_px": row.height_px,
        "url": f"/api/v1/attachments/{row.token}",
    }


def _find_conversations(
    connection: Connection, messages: Sequence[NewMessage], now: datetime
) -> tuple[list[int | None], set[int], set[int]]:
    """The conversation of each message, those that were made for it, and the blocked visitors.

    Messages without a conversation are serialized by the lock of their visitor's row, so that two
    tabs that write their first message at once open one conversation.
    """
    homeless = {m.visitor_id for m in messages if m.conversation_id is None and m.visitor_id}
    if not homeless:
        return [m.conversation_id for m in messages], set(), set()
    locked = connection.execute(_LOCK_VISITORS, {"ids": sorted(homeless)}).all()
    blocked = {row.id for row in locked if row.blocked_at is not None}
    inbox_of: dict[int, int] = {row.id: row.inbox_id for row in locked if row.id not in blocked}
    ids = list(inbox_of)
    current: dict[int, int] = dict(
        connection.execute(_OPEN_CONVERSATIONS, {"visitor_ids": ids}).all()
    )
    pairs = [
        (m.visitor_id, m.client_id)
        for m in messages
        if m.conversation_id is None and m.visitor_id in inbox_of
    ]
    repeated = {
        (visitor_id, client_id): conversation_id
        for visitor_id, client_id, conversation_id in connection.execute(
            _REPEATED_FIRST_MESSAGES, {"visitor_ids": ids, "pairs": pairs}
        )
    }
    targets: list[int | None] = []
    opened: set[int] = set()
    for message in messages:
        visitor_id = message.visitor_id
        if message.conversation_id is not None:
            targets.append(message.conversation_id)
        elif visitor_id is None or visitor_id not in inbox_of:
            targets.append(None)
        elif (visitor_id, message.client_id) in repeated:
            targets.append(repeated[visitor_id, message.client_id])
        else:
            if visitor_id not in current:
                current[visitor_id] = _open_conversation(
                    connection, inbox_of[visitor_id], visitor_id, message.form, now
                )
                opened.add(current[visitor_id])
            targets.append(current[visitor_id])
    return targets, opened, blocked


def _open_conversation(
    connection: Connection, inbox_id: int, visitor_id: int, form: str | None, now: datetime
) -> int:
    result = connection.execute(
        insert(_c).values(
            inbox_id=inbox_id,
            visitor_id=visitor_id,
            status="open",
            assignee_id=None,
            last_seq_public=0,
            last_seq_staff=0,
            version=0,
            created_at=now,
            updated_at=now,
            form=form,
        )
    )
    key = result.inserted_primary_key
    assert key is not None  # noqa: S101  every dialect used here gives the new id
    return int(key[0])


def _lock_conversations(
    connection: Connection, targets: Sequence[int | None], blocked: set[int]
) -> tuple[dict[int, _Conversation], bool]:
    """Lock the rows in the order of their ids; says also whether a webhook listens.

    Adds to ``blocked`` the visitors that are.
    """
    ids = sorted({target for target in targets if target is not None})
    rows = connection.execute(_LOCK_CONVERSATIONS, {"ids": ids}).all()
    blocked.update(row.visitor_id for row in rows if row.blocked_at is not None)
    conversations = {
        row.id: _Conversation(
            row.id,
            row.inbox_id,
            row.visitor_id,
            row.name,
            row.status,
            [row.last_seq_public, row.last_seq_staff],
        )
        for row in rows
    }
    return conversations, any(row.webhook is not None for row in rows)


def _find_repeats(
    connection: Connection,
    wanted: Sequence[tuple[int, NewMessage, _Conversation]],
    conversations: dict[int, _Conversation],
    *,
    created: bool,
) -> dict[tuple[int, str], Stored]:
    pairs = [(conversation.id, message.client_id) for _, message, conversation in wanted]
    senders = {(conversation.id, m.client_id): m for _, m, conversation in wanted}
    repeats = {}
    for row in connection.execute(_REPEATED, {"pairs": pairs}):
        key = (row.conversation_id, row.client_id)
        conversation = conversations[row.conversation_id]
        fields: dict[str, Any] = dict(row._mapping)
        repeats[key] = Stored(
            **fields,
            **_sender(senders[key], conversation),
            inbox_id=conversation.inbox_id,
            visitor_id=conversation.visitor_id,
            created=created,
        )
    return repeats


def _sender(message: NewMessage, conversation: _Conversation) -> dict[str, Any]:
    if message.sender_type == "visitor":
        return {"sender_name": conversation.visitor_name, "sender_avatar_url": None}
    return {
        "sender_name": message.sender_name,
        "sender_avatar_url": message.sender_avatar_url,
    }


def _append(
    message: NewMessage,
    conversation: _Conversation,
    now: datetime,
    attachments: list[dict[str, Any]],
    *,
    opened: bool,
) -> Stored:
    """Give ``message`` the next seq of its stream."""
    stream = message.stream
    conversation.added[stream] += 1
    reopened = False
    if stream == schema.PUBLIC:
        conversation.last_word = message.sender_type
        if message.sender_type == "visitor":
            reopened = conversation.status != "open"
            conversation.visitor_wrote = True
            conversation.status = "open"
        elif message.sender_type == "agent":
            conversation.agent_wrote = True
    return Stored(
        conversation_id=conversation.id,
        inbox_id=conversation.inbox_id,
        visitor_id=conversation.visitor_id,
        stream=stream,
        seq=conversation.last_seq[stream] + conversation.added[stream],
        client_id=message.client_id,
        sender_type=message.sender_type,
        sender_id=message.sender_id,
        **_sender(message, conversation),
        kind=message.kind,
        body=message.body,
        created_at=now,
        created=True,
        opened=opened,
        reopened=reopened,
        attachments=orjson.dumps(attachments).decode() if attachments else None,
    )


def _reopened(message: Stored, conversation: _Conversation) -> Stored:
    """The timeline's event of a visitor's message that woke its conversation; its next seq of the
    staff stream, where all events stand."""
    conversation.added[schema.STAFF] += 1
    by = {"id": message.sender_id, "name": message.sender_name, "type": "visitor"}
    return Stored(
        conversation_id=conversation.id,
        inbox_id=conversation.inbox_id,
        visitor_id=conversation.visitor_id,
        stream=schema.STAFF,
        seq=conversation.last_seq[schema.STAFF] + conversation.added[schema.STAFF],
        client_id=clock.uuid(),
        sender_type="system",
        sender_id=None,
        sender_name="",
        sender_avatar_url=None,
        kind="event",
        body=f"{message.sender_name} reopened the conversation.",
        created_at=message.created_at,
        created=True,
        event=orjson.dumps({"type": "reopened", "by": by}).decode(),
    )


def _as_repeat(stored: Stored) -> Stored:
    fields = {name: getattr(stored, name) for name in Stored.__slots__}
    return Stored(**{**fields, "created": False, "opened": False, "reopened": False})


def _advance(connection: Connection, conversations: Iterable[_Conversation], now: datetime) -> None:
    """Move the last seqs and what follows from who wrote; conversations that grew alike share
    one statement."""
    alike: dict[tuple[int, int, bool, bool, str], list[int]] = {}
    for one in conversations:
        public, staff = one.added
        if public or staff:
            key = (public, staff, one.visitor_wrote, one.agent_wrote, one.last_word)
            alike.setdefault(key, []).append(one.id)
    for (public, staff, visitor_wrote, agent_wrote, last_word), ids in alike.items():
        statement = _ADVANCE_AS[visitor_wrote, agent_wrote, last_word]
        connection.execute(statement, {"ids": ids, "public": public, "staff": staff, "now": now})


def _advance_as(visitor_wrote: bool, agent_wrote: bool, last_word: str) -> Update:
    values: dict[Any, Any] = {}
    if visitor_wrote:
        values |= _WAKE
    if agent_wrote:
        values["first_response_at"] = func.coalesce(_c.c.first_response_at, bindparam("now"))
    if last_word == "agent":
        values["waiting_since"] = None
    elif last_word == "visitor" and agent_wrote:
        values["waiting_since"] = bindparam("now")
    elif last_word == "visitor":
        values["waiting_since"] = func.coalesce(_c.c.waiting_since, bindparam("now"))
    return _ADVANCE.values(values) if values else _ADVANCE


_ADVANCE_AS: Final = {
    (visitor_wrote, agent_wrote, last_word): _advance_as(visitor_wrote, agent_wrote, last_word)
    for visitor_wrote in (False, True)
    for agent_wrote in (False, True)
    for last_word in ("", "visitor", "agent", "system")
}
