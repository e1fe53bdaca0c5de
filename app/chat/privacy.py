"""What is stored about a person: given out as a whole, or erased.

A person is a visitor and those anonymous visitors that turned out to be this one. To it belong its
conversations with everything in them, answers and notes included: they tell of the person as well.

Erasing leaves the frame of each conversation (when it was, who answered, how it was rated) for the
reports and so that seq has no holes; the frame belongs to a nameless visitor from then on. The
person's own rows go, and with them its tokens speak for nobody. See docs/adr/0010.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import orjson
from sqlalchemy import Connection, case, delete, func, insert, or_, select, update

from app import clock
from app.chat import access, audit, messages, permissions, search
from app.chat.accounts import normalized_email
from app.chat.channels import (
    conversation_channel,
    inbox_channel,
    staff_channel,
    visitor_channel,
)
from app.chat.errors import NotFound, Refused
from app.chat.permissions import Actor, Agent
from app.db import schema
from app.db.engines import Database

ERASED_NAME: Final = "Erased visitor"
PAGE_ROWS: Final = 500
# of an erased conversation: further ones learn it from the numbers of edits
ANNOUNCED_MESSAGES: Final = 100
# jobs that copy what people wrote: while their fence is held, none of them is between reading and
# writing
_COPYING_JOBS: Final = ("search-index", "webhook-events")

_v, _c, _m, _a = schema.visitors, schema.conversations, schema.messages, schema.attachments
_pages, _bytes, _i, _u = (
    schema.visitor_pages,
    schema.attachment_bytes,
    schema.inboxes,
    schema.users,
)


@dataclass(frozen=True, slots=True)
class Person:
    """A visitor and the ids of those that were merged into it."""

    id: int
    inbox_id: int
    name: str
    email: str | None
    ids: tuple[int, ...]


def person(connection: Connection, agent: Agent, visitor_id: int, *, lock: bool = False) -> Person:
    """The person that a visitor is or turned out to be. Raises :class:`NotFound`."""
    row = _visitor(connection, visitor_id)
    if row.merged_into_id is not None:
        row = _visitor(connection, row.merged_into_id)
    permissions.reach(agent, inbox_id=row.inbox_id, visitor_id=row.id)
    query = (
        select(_v.c.id)
        .where(or_(_v.c.id == row.id, _v.c.merged_into_id == row.id))
        .where(_v.c.inbox_id == row.inbox_id)
        .order_by(_v.c.id)
    )
    if lock:
        query = query.with_for_update()
    ids = connection.execute(query).scalars().all()
    return Person(row.id, row.inbox_id, row.name, row.email, tuple(ids))


def _visitor(connection: Connection, visitor_id: int) -> Any:
    row = connection.execute(
        select(_v.c.id, _v.c.inbox_id, _v.c.name, _v.c.email, _v.c.merged_into_id).where(
            _v.c.id == visitor_id
        )
    ).one_or_none()
    if row is None:
        raise NotFound
    return row


def _conversation_ids(connection: Connection, whose: Person) -> list[int]:
    return list(
        connection.execute(
            select(_c.c.id).where(_c.c.visitor_id.in_(whose.ids)).order_by(_c.c.id)
        ).scalars()
    )


# --- export -------------------------------------------------------------------------------------


def begin_export(database: Database, agent: Agent, actor: Actor, visitor_id: int) -> Person:
    """Note in the audit log that the person's data are given out. Raises NotFound. Blocking."""
    with database.write() as connection:
        whose = person(connection, agent, visitor_id)
        audit.record(connection, actor, "visitor.exported", "visitor", object_id=whose.id)
    return whose


class _Sink:
    """A file that cannot be rewound, for :class:`zipfile.ZipFile`: what was written is taken."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._position = 0

    def write(self, data: bytes) -> int:
        """Keep ``data`` until it is taken."""
        self._parts.append(bytes(data))
        self._position += len(data)
        return len(data)

    def tell(self) -> int:
        """How much was written so far."""
        return self._position

    def flush(self) -> None:
        """Nothing is held back."""

    def take(self) -> bytes:
        """What was written since the last call."""
        parts, self._parts = self._parts, []
        return b"".join(parts)


def export(database: Database, whose: Person) -> Iterator[bytes]:
    """A ZIP file with ``export.json`` and the person's files, piece by piece. Blocking.

    At no time more than a page of messages or one file is in memory.
    """
    sink = _Sink()
    # the sink writes and tells, which is all that a ZIP without seeking needs; the stubs ask more
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:  # type: ignore[call-overload]
        with archive.open(_entry("export.json"), "w") as document:
            for part in _document(database, whose):
                document.write(part)
                yield sink.take()
        for attachment in _attachments(database, whose):
            with archive.open(_entry(_file_name(attachment)), "w") as file:
                file.write(_content(database, attachment["id"]))
            yield sink.take()
    yield sink.take()


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, clock.now().timetuple()[:6])
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


def _file_name(attachment: Mapping[str, Any]) -> str:
    return f"attachments/{attachment['id']}-{attachment['name'].replace('/', '_')}"


def _document(database: Database, whose: Person) -> Iterator[bytes]:
    with database.read() as connection:
        head = {
            "exported_at": clock.wire(clock.now()),
            "inbox": connection.execute(
                select(_i.c.name).where(_i.c.id == whose.inbox_id)
            ).scalar(),
            "visitors": [
                {
                    **_plain(row, "attributes"),
                    "pages": [
                        _plain(page)
                        for page in connection.execute(
                            select(_pages.c.url, _pages.c.title, _pages.c.seen_at)
                            .where(_pages.c.visitor_id == row.id)
                            .order_by(_pages.c.id)
                        )
                    ],
                }
                for row in connection.execute(select(_v).where(_v.c.id.in_(whose.ids)))
            ],
        }
        ids = _conversation_ids(connection, whose)
    yield orjson.dumps(head)[:-1] + b',"conversations":['
    for number, conversation_id in enumerate(ids):
        with database.read() as connection:
            row = connection.execute(
                select(
                    _c.c.id,
                    _c.c.status,
                    _c.c.created_at,
                    _c.c.updated_at,
                    _c.c.first_response_at,
                    _c.c.resolved_at,
                    _c.c.csat_score,
                    _c.c.csat_comment,
                    _c.c.csat_at,
                    _c.c.form,
                    _u.c.name.label("assignee"),
                )
                .outerjoin(_u, _u.c.id == _c.c.assignee_id)
                .where(_c.c.id == conversation_id)
            ).one_or_none()
        if row is None:
            continue
        comma = b"," if number else b""
        yield comma + orjson.dumps(_plain(row, "form"))[:-1] + b',"messages":['
        for page_number, page in enumerate(_message_pages(database, conversation_id)):
            comma = b"," if page_number else b""
            yield comma + b",".join(orjson.dumps(message) for message in page)
        yield b"]}"
    yield b'],"attachments":['
    for number, attachment in enumerate(_attachments(database, whose)):
        comma = b"," if number else b""
        yield comma + orjson.dumps({**attachment, "file": _file_name(attachment)})
    yield b"]}"


def _plain(row: Any, *of_json: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in row._mapping.items():
        name = str(key)
        if isinstance(value, datetime):
            values[name] = clock.wire(value)
        elif name in of_json and value is not None:
            values[name] = orjson.loads(value)
        else:
            values[name] = value
    return values


def _message_pages(database: Database, conversation_id: int) -> Iterator[list[dict[str, Any]]]:
    for stream in (schema.PUBLIC, schema.STAFF):
        after = 0
        while True:
            with database.read() as connection:
                seqs = (
                    connection.execute(
                        select(_m.c.seq)
                        .where(
                            _m.c.conversation_id == conversation_id,
                            _m.c.stream == stream,
                            _m.c.seq > after,
                        )
                        .order_by(_m.c.seq)
                        .limit(PAGE_ROWS)
                    )
                    .scalars()
                    .all()
                )
                found = messages.these(connection, [(conversation_id, stream, seq) for seq in seqs])
            if not seqs:
                break
            after = seqs[-1]
            if found:
                yield [message for _, message in found]


def _attachments(database: Database, whose: Person) -> Iterator[dict[str, Any]]:
    after = 0
    while True:
        with database.read() as connection:
            rows = connection.execute(
                select(
                    _a.c.id,
                    _a.c.conversation_id,
                    _a.c.name,
                    _a.c.content_type,
                    _a.c.size_bytes,
                    _a.c.sha256,
                    _a.c.created_at,
                )
                .join(_c, _c.c.id == _a.c.conversation_id)
                .where(_c.c.visitor_id.in_(whose.ids), _a.c.id > after)
                .order_by(_a.c.id)
                .limit(PAGE_ROWS)
            ).all()
        yield from (_plain(row) for row in rows)
        if len(rows) < PAGE_ROWS:
            return
        after = rows[-1].id


def _content(database: Database, attachment_id: int) -> bytes:
    with database.read() as connection:
        content = connection.execute(
            select(_bytes.c.content).where(_bytes.c.attachment_id == attachment_id)
        ).scalar()
    return bytes(content or b"")


# --- erasure ------------------------------------------------------------------------------------


@dataclass(slots=True)
class Erased:
    """What was erased; ``messages`` are the newest of those, as they are now, to be announced."""

    conversation_ids: list[int] = field(default_factory=list)
    message_count: int = 0
    attachment_count: int = 0
    messages: list[dict[str, Any]] = field(default_factory=list)


def erase(
    database: Database, agent: Agent, actor: Actor, visitor_id: int, *, confirm: str
) -> Erased:
    """Erase a person. ``confirm`` is the visitor's id or name, typed by whoever asks for it.

    Works one conversation at a time; when it ends early, the person cannot write any more, and
    calling it again goes on. Raises :class:`NotFound` or :class:`Refused`. Blocking.
    """
    erased = Erased()
    with database.write() as connection:
        whose = person(connection, agent, visitor_id, lock=True)
        if confirm.strip() not in (str(visitor_id), whose.name):
            raise Refused(
                "invalid_request", "Type the visitor's id or name to confirm.", field="confirm"
            )
        connection.execute(
            update(_v)
            .where(_v.c.id.in_(whose.ids), _v.c.blocked_at.is_(None))
            .values(blocked_at=clock.now())
        )
        access.changed(connection, map(access.visitor_owner, whose.ids))
        nobody = _nameless(connection, whose)
    while True:
        with database.write() as connection:
            # the visitors first, as the writer does: nothing new begins while they are locked
            again = person(connection, agent, whose.id, lock=True)
            ids = _conversation_ids(connection, again)
            if not ids:
                _finish(connection, again, actor, nobody, erased)
                return erased
        for conversation_id in ids:
            with database.write() as connection:
                _erase_conversation(connection, again, conversation_id, nobody, erased)


def _nameless(connection: Connection, whose: Person) -> int:
    """A visitor of nobody, who gets what is left of the person's conversations."""
    seen = connection.execute(
        select(_v.c.first_seen_at, _v.c.last_seen_at).where(_v.c.id == whose.id)
    ).one()
    result = connection.execute(
        insert(_v).values(
            inbox_id=whose.inbox_id,
            name=ERASED_NAME,
            first_seen_at=seen.first_seen_at,
            last_seen_at=seen.last_seen_at,
            blocked_at=clock.now(),
        )
    )
    key = result.inserted_primary_key
    assert key is not None  # noqa: S101  every dialect used here gives the new id
    return int(key[0])


def _erase_conversation(
    connection: Connection, whose: Person, conversation_id: int, nobody: int, erased: Erased
) -> None:
    row = connection.execute(
        select(_c).where(_c.c.id == conversation_id).with_for_update()
    ).one_or_none()
    if row is None or row.visitor_id not in whose.ids:
        return
    _hold_copying_jobs(connection)
    now = clock.now()
    texts = _m.c.kind != "event"
    gone = connection.execute(
        update(_m)
        .where(_m.c.conversation_id == conversation_id, texts)
        .values(body="", attachments=None, deleted_at=func.coalesce(_m.c.deleted_at, now))
    ).rowcount
    # an event may tell a name or what was typed: its kind is left
    kinds = connection.execute(
        select(_m.c.stream, _m.c.seq, _m.c.event).where(
            _m.c.conversation_id == conversation_id, ~texts
        )
    ).all()
    for event in kinds:
        kind = str(orjson.loads(event.event).get("type", "")) if event.event else ""
        connection.execute(
            update(_m)
            .where(
                _m.c.conversation_id == conversation_id,
                _m.c.stream == event.stream,
                _m.c.seq == event.seq,
            )
            .values(body=kind, event=orjson.dumps({"type": kind}).decode())
        )
    connection.execute(
        update(_m)
        .where(_m.c.conversation_id == conversation_id, _m.c.sender_type == "visitor")
        .values(sender_id=nobody)
    )
    erased.attachment_count += remove_attachments(connection, conversation_id)
    search.forget(connection, conversation_id)
    forget_copies(connection, conversation_id)
    _forget_details(connection, "conversation", [conversation_id])
    _forget_outbox(connection, row)
    connection.execute(
        delete(schema.read_marks).where(
            schema.read_marks.c.conversation_id == conversation_id,
            schema.read_marks.c.reader_type == "visitor",
        )
    )
    edits = _number_edits(connection, row)
    connection.execute(
        update(_c)
        .where(_c.c.id == conversation_id)
        .values(
            visitor_id=nobody,
            form=None,
            csat_comment=None,
            status="resolved",
            resolved_at=func.coalesce(_c.c.resolved_at, now),
            snoozed_until=None,
            waiting_since=None,
            last_edit_public=edits[schema.PUBLIC],
            last_edit_staff=edits[schema.STAFF],
            version=_c.c.version + 1,
        )
    )
    newest = connection.execute(
        select(_m.c.stream, _m.c.seq)
        .where(_m.c.conversation_id == conversation_id)
        .order_by(_m.c.seq.desc())
        .limit(ANNOUNCED_MESSAGES)
    ).all()
    erased.conversation_ids.append(conversation_id)
    erased.message_count += gone
    erased.messages += [
        message
        for _, message in messages.these(
            connection, [(conversation_id, item.stream, item.seq) for item in newest]
        )
    ]


def _number_edits(connection: Connection, row: Any) -> dict[int, int]:
    """Number the erasure of each message as an edit; gives the last number of each stream."""
    edits = {schema.PUBLIC: row.last_edit_public, schema.STAFF: row.last_edit_staff}
    for stream, before in list(edits.items()):
        seqs = (
            connection.execute(
                select(_m.c.seq)
                .where(_m.c.conversation_id == row.id, _m.c.stream == stream)
                .order_by(_m.c.seq)
            )
            .scalars()
            .all()
        )
        if seqs:
            connection.execute(
                insert(schema.message_edits),
                [
                    {"conversation_id": row.id, "stream": stream, "edit_seq": number, "seq": seq}
                    for number, seq in enumerate(seqs, before + 1)
                ],
            )
        edits[stream] = before + len(seqs)
    return edits


def _hold_copying_jobs(connection: Connection) -> None:
    """Wait for jobs that copy texts to end their transaction, and keep them from the next one."""
    fences = schema.job_fences
    connection.execute(
        select(fences.c.job)
        .where(fences.c.job.in_(_COPYING_JOBS))
        .order_by(fences.c.job)
        .with_for_update()
    ).all()


def remove_attachments(connection: Connection, conversation_id: int) -> int:
    """Delete the files of a conversation with their bytes; gives how many there were."""
    ids = select(_a.c.id).where(_a.c.conversation_id == conversation_id)
    connection.execute(delete(_bytes).where(_bytes.c.attachment_id.in_(ids)))
    return connection.execute(delete(_a).where(_a.c.conversation_id == conversation_id)).rowcount


def forget_copies(connection: Connection, conversation_id: int) -> None:
    """Remove what webhooks and mails were to tell of a conversation, or told."""
    deliveries, mails = schema.webhook_deliveries, schema.mails
    connection.execute(
        update(deliveries)
        .where(deliveries.c.conversation_id == conversation_id)
        .values(
            payload="{}",
            status=case((deliveries.c.status == "pending", "failed"), else_=deliveries.c.status),
            error=case(
                (deliveries.c.status == "pending", "what it said was erased"),
                else_=deliveries.c.error,
            ),
            next_attempt_at=None,
        )
    )
    connection.execute(delete(mails).where(mails.c.conversation_id == conversation_id))


def _forget_outbox(connection: Connection, row: Any) -> None:
    outbox = schema.outbox
    channels = [conversation_channel(row.id), staff_channel(row.id)]
    connection.execute(delete(outbox).where(outbox.c.channel.in_(channels)))
    # on an inbox's channel stand all conversations; clients that miss an event there read the list
    # anew, as they do after every interruption
    connection.execute(delete(outbox).where(outbox.c.channel == inbox_channel(row.inbox_id)))


def _forget_details(connection: Connection, object_type: str, ids: Sequence[int]) -> None:
    """Clear what the audit log tells of these objects; who did what to them stays."""
    log = schema.audit_log
    connection.execute(
        update(log)
        .where(log.c.object_type == object_type, log.c.object_id.in_([str(one) for one in ids]))
        .values(details=None)
    )


def _finish(
    connection: Connection, whose: Person, actor: Actor, nobody: int, erased: Erased
) -> None:
    mails, outbox = schema.mails, schema.outbox
    channels = [visitor_channel(one) for one in whose.ids]
    connection.execute(delete(outbox).where(outbox.c.channel.in_(channels)))
    if whose.email is not None:
        written = (whose.email, normalized_email(whose.email))
        connection.execute(delete(mails).where(mails.c.to_address.in_(written)))
    _forget_details(connection, "visitor", whose.ids)
    connection.execute(delete(_pages).where(_pages.c.visitor_id.in_(whose.ids)))
    # those that were merged first, then the one they turned out to be
    connection.execute(delete(_v).where(_v.c.id.in_(whose.ids)))
    if not erased.conversation_ids:
        connection.execute(delete(_v).where(_v.c.id == nobody))
    search.scrub(connection)
    audit.record(
        connection,
        actor,
        "visitor.erased",
        "visitor",
        object_id=whose.id,
        details={
            "conversations": len(erased.conversation_ids),
            "messages": erased.message_count,
            "attachments": erased.attachment_count,
        },
    )


Step = Callable[[], bytes | None]


def steps(pieces: Iterator[bytes]) -> Step:
    """``next`` of an iterator as a function for a thread; None at the end."""

    def step() -> bytes | None:
        return next(pieces, None)

    return step
