"""Transcripts: a conversation to keep, as HTML, text or JSON, and by mail.

They are made page by page, so that one of many thousand messages takes no more memory than one of
ten. What people wrote is shown, never obeyed: escaped, each in a box of its own direction of
writing, without control characters that would steer a terminal.
"""

# ruff: noqa: RUF001  the punctuation of Chinese

from __future__ import annotations

import heapq
import html
import re
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

import orjson
from sqlalchemy import ColumnElement, Connection, func, select

from app import clock
from app.chat import accounts, audit, mail, messages, permissions
from app.chat.errors import NotFound, Refused
from app.chat.permissions import Actor, Agent, VisitorIdentity
from app.db import schema
from app.db.engines import Database

Format = Literal["html", "text", "json"]
Language = Literal["en", "zh-Hant-TW"]

PAGE_MESSAGES: Final = 200
# a mail holds the newest part: mail servers refuse what is much larger
MAIL_MESSAGES: Final = 500
MAIL_CHARACTERS: Final = 500_000
MAILS_AN_HOUR: Final = 5
MAIL_KIND: Final = "transcript"

_c, _v, _i, _mails = schema.conversations, schema.visitors, schema.inboxes, schema.mails

_WORDS: Final[Mapping[Language, Mapping[str, str]]] = {
    "en": {
        "title": "Conversation {id} with {inbox}",
        "visitor": "Visitor",
        "started": "Started",
        "zone": "Times are those of {zone}.",
        "note": "note for the staff",
        "event": "event",
        "edited": "edited",
        "deleted": "This message was deleted.",
        "file": "File",
        "system": "System",
        "cut": "Earlier messages are left out here.",
        "subject": "Your conversation with {inbox}",
    },
    "zh-Hant-TW": {
        "title": "與 {inbox} 的對話（編號 {id}）",
        "visitor": "訪客",
        "started": "開始時間",
        "zone": "時間以 {zone} 時區表示。",
        "note": "內部備註",
        "event": "事件",
        "edited": "已編輯",
        "deleted": "此訊息已刪除。",
        "file": "檔案",
        "system": "系統",
        "cut": "較早的訊息未列於此。",
        "subject": "您與 {inbox} 的對話紀錄",
    },
}

_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:45rem;margin:2rem auto;padding:0 1rem;"
    "color:#1a1a1a;background:#fff}"
    "h1{font-size:1.3rem}"
    # marks that pile up above a letter stay within their message
    "article{border:1px solid #d9d9d9;border-radius:.5rem;padding:.5rem .8rem;margin:.6rem 0;"
    "overflow:hidden;contain:paint}"
    "article.agent{background:#f0f7f4}article.note{background:#fff8e1}"
    "article.event{border-style:dashed;color:#555}"
    "header{font-size:.85rem;color:#555}header bdi{font-weight:600;color:#1a1a1a}"
    "p.body{white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:isolate;margin:.3rem 0 0}"
    "ul{margin:.3rem 0 0;padding-left:1.2rem}li{overflow-wrap:anywhere}"
)

# what steers a terminal or a printer; line ends and tabs stay
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# what turns the direction of writing (Unicode, UAX #9): in plain text nothing ends its effect
_DIRECTIONS: Final = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_LINE_ENDS: Final = re.compile(r"\r\n?|\u2028|\u2029|\x85|\x0b|\x0c")


@dataclass(frozen=True, slots=True)
class Head:
    """What a transcript tells of its conversation; ``lasts`` are the seqs that it ends with."""

    conversation_id: int
    inbox_id: int
    inbox: str
    visitor_id: int
    visitor: str
    visitor_email: str | None
    visitor_blocked: bool
    status: str
    created_at: datetime
    lasts: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Form:
    """How a transcript is written; ``site`` is put before the addresses of files."""

    language: Language
    zone: ZoneInfo
    site: str

    def word(self, name: str, **values: Any) -> str:
        """A text in the reader's language."""
        return _WORDS[self.language][name].format_map(values)

    def time(self, moment: str | datetime) -> str:
        """A time of the wire or the database, in the reader's zone to the second."""
        if isinstance(moment, str):
            moment = datetime.fromisoformat(moment)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return moment.astimezone(self.zone).strftime("%Y-%m-%d %H:%M:%S")


def begin(
    database: Database,
    caller: Agent | VisitorIdentity,
    conversation_id: int,
    *,
    notes: bool,
) -> Head:
    """What the transcript is about. With ``notes`` it holds the staff's notes and events, which
    only staff may ask for. Raises :class:`NotFound`. Blocking."""
    with database.view() as connection:
        return _head(connection, caller, conversation_id, notes=notes)


def _head(
    connection: Connection,
    caller: Agent | VisitorIdentity,
    conversation_id: int,
    *,
    notes: bool,
) -> Head:
    row = connection.execute(
        select(
            _c,
            _i.c.name.label("inbox"),
            _v.c.name.label("visitor"),
            _v.c.email.label("visitor_email"),
            _v.c.blocked_at,
        )
        .join(_i, _i.c.id == _c.c.inbox_id)
        .join(_v, _v.c.id == _c.c.visitor_id)
        .where(_c.c.id == conversation_id)
    ).one_or_none()
    if row is None:
        raise NotFound
    permissions.reach(caller, inbox_id=row.inbox_id, visitor_id=row.visitor_id)
    lasts = {schema.PUBLIC: row.last_seq_public}
    if notes and isinstance(caller, Agent):
        lasts[schema.STAFF] = row.last_seq_staff
    return Head(
        conversation_id,
        row.inbox_id,
        row.inbox,
        row.visitor_id,
        row.visitor,
        row.visitor_email,
        row.blocked_at is not None,
        row.status,
        row.created_at,
        lasts,
    )


def pieces(database: Database, head: Head, form: Form, kind: Format) -> Iterator[bytes]:
    """The transcript in pieces, in the order of writing. Blocking at each."""
    items = _items(database, head, {})
    match kind:
        case "html":
            yield _html_head(head, form).encode()
            for item in items:
                yield _html(item, form).encode()
            yield b"</main></body></html>\n"
        case "text":
            yield _text_head(head, form).encode()
            for item in items:
                yield _text(item, form).encode()
        case "json":
            about = {
                "id": head.conversation_id,
                "inbox": {"id": head.inbox_id, "name": head.inbox},
                "visitor": {"id": head.visitor_id, "name": head.visitor},
                "status": head.status,
                "created_at": clock.wire(head.created_at),
            }
            yield b'{"conversation":' + orjson.dumps(about) + b',"messages":['
            for number, item in enumerate(items):
                yield (b"," if number else b"") + orjson.dumps(item)
            yield b"]}\n"


def _items(database: Database, head: Head, after: Mapping[int, int]) -> Iterator[dict[str, Any]]:
    """The messages of all streams after these seqs, merged by their time."""
    streams = [
        _stream(database, head.conversation_id, stream, after.get(stream, 0), last)
        for stream, last in head.lasts.items()
    ]
    return heapq.merge(*streams, key=lambda item: (item["created_at"], item["stream"], item["seq"]))


def _stream(
    database: Database, conversation_id: int, stream: int, after: int, last: int
) -> Iterator[dict[str, Any]]:
    while after < last:
        until = min(after + PAGE_MESSAGES, last)
        keys = [(conversation_id, stream, seq) for seq in range(after + 1, until + 1)]
        with database.view() as connection:
            found = messages.these(connection, keys)
        for _, message in found:
            yield message
        after = until


# --- one message ---------------------------------------------------------------------------------


def _who(item: Mapping[str, Any], form: Form) -> str:
    sender = item["sender"]
    return str(sender["name"] or "") if sender is not None else form.word("system")


def _remarks(item: Mapping[str, Any], form: Form) -> list[str]:
    found = [form.word(item["kind"])] if item["kind"] in ("note", "event") else []
    return [*found, form.word("edited")] if item["edited_at"] else found


def _html_head(head: Head, form: Form) -> str:
    title = html.escape(form.word("title", id=head.conversation_id, inbox=_clean(head.inbox)))
    zone = html.escape(form.word("zone", zone=form.zone.key))
    return (
        f'<!doctype html><html lang="{form.language}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{_STYLE}</style></head><body><main>"
        f"<h1><bdi>{title}</bdi></h1><p>{form.word('visitor')}: "
        f"<bdi>{html.escape(_clean(head.visitor))}</bdi><br>"
        f"{form.word('started')}: {form.time(head.created_at)}<br>{zone}</p>\n"
    )


def _html(item: Mapping[str, Any], form: Form) -> str:
    kind = item["kind"] if item["kind"] in ("note", "event") else item["sender_type"]
    remarks = "".join(f" · {html.escape(each)}" for each in _remarks(item, form))
    head = (
        f"<bdi>{html.escape(_clean(_who(item, form)))}</bdi> "
        f'<time datetime="{item["created_at"]}">{form.time(item["created_at"])}</time>{remarks}'
    )
    body = ""
    if item["deleted_at"]:
        body = f'<p class="body"><em>{html.escape(form.word("deleted"))}</em></p>'
    elif item["body"]:
        body = f'<p class="body" dir="auto">{html.escape(_clean(item["body"]))}</p>'
    if item["attachments"]:
        files = "".join(
            f'<li><a href="{html.escape(form.site + file["url"])}" rel="noreferrer">'
            f"<bdi>{html.escape(_clean(file['name']))}</bdi></a></li>"
            for file in item["attachments"]
        )
        body += f"<ul>{files}</ul>"
    return f'<article class="{kind}"><header>{head}</header>{body}</article>\n'


def _text_head(head: Head, form: Form) -> str:
    return (
        f"{form.word('title', id=head.conversation_id, inbox=_plain(head.inbox))}\n"
        f"{form.word('visitor')}: {_plain(head.visitor)}\n"
        f"{form.word('started')}: {form.time(head.created_at)}\n"
        f"{form.word('zone', zone=form.zone.key)}\n\n"
    )


def _text(item: Mapping[str, Any], form: Form) -> str:
    remarks = "".join(f" ({each})" for each in _remarks(item, form))
    lines = [f"[{form.time(item['created_at'])}] {_plain(_who(item, form))}{remarks}:"]
    body = form.word("deleted") if item["deleted_at"] else _plain(item["body"])
    # indented, so that no line of a message can pass for the head of another one
    lines += [f"    {line}" for line in body.split("\n")] if body else []
    lines += [
        f"    {form.word('file')}: {_plain(file['name'])} <{form.site}{file['url']}>"
        for file in item["attachments"]
    ]
    return "\n".join(lines) + "\n\n"


def _clean(text: str) -> str:
    return _CONTROLS.sub("", _LINE_ENDS.sub("\n", text))


def _plain(text: str) -> str:
    return _DIRECTIONS.sub("", _clean(text))


# --- by mail -------------------------------------------------------------------------------------


def send(
    database: Database,
    caller: Agent | VisitorIdentity,
    conversation_id: int,
    form: Form,
    *,
    sender: str,
    to: str | None,
    actor: Actor | None,
) -> None:
    """Queue a mail with the newest part of the conversation, without notes.

    A visitor who gives no address gets it at its own. An agent's mail is noted in the audit log in
    the name of ``actor``. ``sender`` is the installation's address, empty when it sends no mail.
    Raises :class:`NotFound` or :class:`Refused`. Blocking.
    """
    with database.read() as connection:
        head = _head(connection, caller, conversation_id, notes=False)
    mail.require(sender)
    if isinstance(caller, VisitorIdentity) and head.visitor_blocked:
        raise Refused(
            "visitor_blocked", "The support team does not take messages from this visitor."
        )
    address = to or head.visitor_email
    if address is None:
        raise Refused("invalid_request", "Give the address to send it to.", field="email")
    # in one form, so that the mails to an address can be counted however it is written
    address = accounts.normalized_email(address)
    text, page = _newest(database, head, form)
    with database.write() as connection:
        # two requests at once are counted one after the other
        connection.execute(
            select(_c.c.id).where(_c.c.id == conversation_id).with_for_update()
        ).one_or_none()
        _check_rate(connection, _mails.c.conversation_id == conversation_id, "of this conversation")
        _check_rate(connection, _mails.c.to_address == address, "to this address")
        mail.queue(
            connection,
            MAIL_KIND,
            to=address,
            subject=form.word("subject", inbox=" ".join(_plain(head.inbox).split())),
            text=text,
            html=page,
            conversation_id=conversation_id,
        )
        if actor is not None:
            audit.record(
                connection,
                actor,
                "conversation.transcript_mailed",
                "conversation",
                object_id=conversation_id,
                details={"to": address},
            )


def _check_rate(connection: Connection, which: ColumnElement[bool], said: str) -> None:
    """Mail costs whoever gets it, and anybody may be named: few of a kind go out in an hour."""
    hour = timedelta(hours=1)
    sent = connection.execute(
        select(func.count(), func.min(_mails.c.created_at)).where(
            which, _mails.c.kind == MAIL_KIND, _mails.c.created_at > clock.now() - hour
        )
    ).one()
    if sent[0] >= MAILS_AN_HOUR:
        seconds = max(int((sent[1] + hour - clock.now()).total_seconds()), 1)
        raise Refused(
            "rate_limited",
            f"{MAILS_AN_HOUR} transcripts {said} were sent within an hour; "
            f"try again in {seconds} seconds.",
            retry_seconds=seconds,
        )


def _newest(database: Database, head: Head, form: Form) -> tuple[str, str]:
    """The newest messages that fit into a mail, as text and as HTML."""
    last = head.lasts[schema.PUBLIC]
    first = max(last - MAIL_MESSAGES, 0)
    kept: deque[tuple[str, str]] = deque()
    size, cut = 0, first > 0
    for item in _items(database, head, {schema.PUBLIC: first}):
        kept.append((_text(item, form), _html(item, form)))
        size += len(kept[-1][1])
        while size > MAIL_CHARACTERS and len(kept) > 1:
            size -= len(kept.popleft()[1])
            cut = True
    remark = form.word("cut") if cut else ""
    text = _text_head(head, form) + (f"{remark}\n\n" if cut else "")
    page = _html_head(head, form) + (f"<p>{html.escape(remark)}</p>" if cut else "")
    return (
        text + "".join(each for each, _ in kept),
        page + "".join(each for _, each in kept) + "</main></body></html>\n",
    )
