"""Erasing a person: nothing of it is left in any table. Exporting: everything is there."""

from __future__ import annotations

import io
import json
import uuid
import zipfile
from typing import Any

import pytest
from sqlalchemy import insert, inspect, select, text

from app import clock
from app.chat import privacy, search
from app.chat.errors import NotFound, Refused
from app.chat.permissions import SYSTEM, Agent
from app.db import schema
from app.db.engines import Database

MARKER = "Zyxwvut"
ADMIN = Agent(1, "Ann", "ann@example.com", "admin", None)
OTHER = Agent(2, "Bob", "bob@example.com", "admin", None, frozenset({99}))


def fill_person(database: Database) -> None:
    """Visitor 1, and 2 that was merged into it, with the marker wherever text can stand."""
    now = clock.now()
    mail = f"{MARKER}@example.com"
    with database.write() as connection:
        for visitor_id, merged in ((1, None), (2, 1)):
            connection.execute(
                schema.visitors.update()
                .where(schema.visitors.c.id == visitor_id)
                .values(
                    name=f"{MARKER} Doe",
                    email=mail,
                    phone=MARKER,
                    identifier=f"{MARKER}{visitor_id}",
                    attributes=json.dumps({"plan": MARKER}),
                    page_url=f"https://x/{MARKER}",
                    page_title=MARKER,
                    referrer=f"https://x/{MARKER}",
                    browser=MARKER,
                    address="203.0.113.9",
                    merged_into_id=merged,
                )
            )
            connection.execute(
                insert(schema.visitor_pages).values(
                    visitor_id=visitor_id, url=f"https://x/{MARKER}", title=MARKER, seen_at=now
                )
            )
        connection.execute(
            schema.conversations.update()
            .where(schema.conversations.c.id.in_([1, 2]))
            .values(
                form=json.dumps({"order": MARKER}),
                csat_score=4,
                csat_comment=MARKER,
                last_seq_public=3,
                last_seq_staff=2,
            )
        )
        connection.execute(
            insert(schema.webhooks).values(
                id=1,
                name="w",
                url="https://example.com/",
                events="[]",
                secret="s",
                active=True,
                created_at=now,
            )
        )
        for conversation_id in (1, 2):
            for stream, seq, sender, kind in (
                (0, 1, "visitor", "text"),
                (0, 2, "agent", "text"),
                (0, 3, "visitor", "file"),
                (1, 1, "agent", "note"),
                (1, 2, "system", "event"),
            ):
                event = {"type": "renamed", "from": MARKER} if kind == "event" else None
                files = None
                if kind == "file":
                    files = json.dumps([{"id": conversation_id, "name": f"{MARKER}.png"}])
                connection.execute(
                    insert(schema.messages).values(
                        conversation_id=conversation_id,
                        stream=stream,
                        seq=seq,
                        client_id=str(uuid.uuid4()),
                        sender_type=sender,
                        sender_id={"visitor": conversation_id, "agent": 1}.get(sender),
                        kind=kind,
                        body=f"my name is {MARKER}",
                        created_at=now,
                        attachments=files,
                        event=json.dumps(event) if event else None,
                    )
                )
            connection.execute(
                insert(schema.attachments).values(
                    id=conversation_id,
                    token=clock.token(),
                    conversation_id=conversation_id,
                    stream=0,
                    seq=3,
                    uploader_type="visitor",
                    uploader_id=conversation_id,
                    name=f"{MARKER}.png",
                    content_type="image/png",
                    size_bytes=9,
                    sha256="0" * 64,
                    scan="none",
                    created_at=now,
                )
            )
            connection.execute(
                insert(schema.attachment_bytes).values(
                    attachment_id=conversation_id, content=f"{MARKER}!!".encode()
                )
            )
            connection.execute(
                insert(schema.webhook_deliveries).values(
                    webhook_id=1,
                    event_id=f"e{conversation_id}",
                    event="message.created",
                    payload=json.dumps({"message": MARKER}),
                    status="pending",
                    attempts=0,
                    next_attempt_at=now,
                    created_at=now,
                    conversation_id=conversation_id,
                )
            )
            for channel in ("conversation", "staff"):
                connection.execute(
                    insert(schema.outbox).values(
                        channel=f"private-{channel}.{conversation_id}",
                        message=MARKER,
                        created_at=now,
                    )
                )
        for channel in ("private-inbox.1", "private-visitor.1", "private-visitor.2"):
            connection.execute(
                insert(schema.outbox).values(channel=channel, message=MARKER, created_at=now)
            )
        for to, of in ((mail, None), (mail.lower(), None), ("boss@example.com", 1)):
            connection.execute(
                insert(schema.mails).values(
                    kind="transcript",
                    to_address=to,
                    subject=MARKER,
                    body_text=MARKER,
                    body_html=MARKER,
                    status="pending",
                    attempts=0,
                    created_at=now,
                    conversation_id=of,
                )
            )
        for action, of, details in (
            ("visitor.updated", 1, {"changed": {"name": MARKER}}),
            ("conversation.transcript_mailed", 1, {"to": mail}),
            ("conversation.transcript_mailed", 2, {"to": mail}),
        ):
            connection.execute(
                insert(schema.audit_log).values(
                    at=now,
                    actor_type="agent",
                    actor_id=1,
                    actor_name="Ann",
                    action=action,
                    object_type=action.partition(".")[0],
                    object_id=str(of),
                    details=json.dumps(details),
                )
            )
        connection.execute(
            insert(schema.read_marks).values(
                conversation_id=1,
                stream=0,
                reader_type="visitor",
                reader_id=1,
                seq=3,
                updated_at=now,
            )
        )
        grown = [search.Grown(number, 1, (3, 2), now) for number in (1, 2)]
        search.add_marks(connection, grown)
        search.index(connection, grown, 100, lambda: None)


def found(database: Database) -> list[str]:
    """Where the marker stands: tables of ours, and those of the full-text index."""
    places = []
    with database.read() as connection:
        for name in inspect(connection).get_table_names():
            for row in connection.execute(text(f"SELECT * FROM {name}")).all():  # noqa: S608
                for value in row:
                    raw = value if isinstance(value, bytes) else str(value).encode()
                    if MARKER.lower().encode() in raw.lower():
                        places.append(str(name))
    return sorted(set(places))


def test_nothing_is_left(database: Database) -> None:
    fill_person(database)
    before = found(database)
    assert set(before) >= {
        "visitors",
        "messages",
        "attachment_bytes",
        "message_search",
        "outbox",
        "mails",
        "audit_log",
    }
    erased = privacy.erase(database, ADMIN, SYSTEM, 2, confirm="2")
    assert found(database) == []
    assert (erased.conversation_ids, erased.message_count, erased.attachment_count) == (
        [1, 2],
        8,
        2,
    )
    with database.read() as connection:
        if connection.dialect.name != "sqlite":
            return
        # the trigrams are gone from the index as well
        index = connection.execute(text("SELECT block FROM message_search_fts_data")).scalars()
        assert not [block for block in index if b"zyx" in bytes(block)]


def test_the_frame_stays(database: Database) -> None:
    fill_person(database)
    privacy.erase(database, ADMIN, SYSTEM, 1, confirm=f" {MARKER} Doe ")
    with database.read() as connection:
        rows = connection.execute(
            select(schema.messages).where(schema.messages.c.conversation_id == 1)
        ).all()
        kept = connection.execute(
            select(schema.conversations).where(schema.conversations.c.id == 1)
        ).one()
        owner = connection.execute(
            select(schema.visitors).where(schema.visitors.c.id == kept.visitor_id)
        ).one()
        gone = connection.execute(select(schema.visitors).where(schema.visitors.c.id.in_([1, 2])))
        assert gone.all() == []
        audited = connection.execute(
            select(schema.audit_log).where(schema.audit_log.c.action == "visitor.erased")
        ).one()
    assert [(row.stream, row.seq) for row in rows] == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2)]
    assert {row.sender_id for row in rows if row.sender_type == "visitor"} == {owner.id}
    assert all(row.deleted_at and not row.body for row in rows if row.kind != "event")
    assert (kept.last_seq_public, kept.csat_score, kept.status) == (3, 4, "resolved")
    assert (kept.last_edit_public, kept.last_edit_staff) == (3, 2)
    assert owner.name == privacy.ERASED_NAME
    assert owner.blocked_at is not None
    assert json.loads(audited.details) == {"conversations": 2, "messages": 8, "attachments": 2}
    assert audited.object_id == "1"


def test_others_keep_what_is_theirs(database: Database) -> None:
    fill_person(database)
    with database.write() as connection:
        connection.execute(
            insert(schema.messages).values(
                conversation_id=3,
                stream=0,
                seq=1,
                client_id="c",
                sender_type="visitor",
                sender_id=3,
                kind="text",
                body="mine",
                created_at=clock.now(),
            )
        )
    privacy.erase(database, ADMIN, SYSTEM, 1, confirm="1")
    with database.read() as connection:
        kept = connection.execute(
            select(schema.messages.c.body).where(schema.messages.c.conversation_id == 3)
        ).scalar()
        assert kept == "mine"


@pytest.mark.parametrize("confirm", ["", " ", "3", "yes", MARKER])
def test_without_the_right_word_nothing_happens(database: Database, confirm: str) -> None:
    fill_person(database)
    before = found(database)
    with pytest.raises(Refused):
        privacy.erase(database, ADMIN, SYSTEM, 1, confirm=confirm)
    assert found(database) == before


def test_whoever_does_not_see_the_inbox_does_not_find_the_person(database: Database) -> None:
    fill_person(database)
    with pytest.raises(NotFound):
        privacy.erase(database, OTHER, SYSTEM, 1, confirm="1")
    with pytest.raises(NotFound):
        privacy.begin_export(database, OTHER, SYSTEM, 1)


def test_an_export_holds_everything(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(privacy, "PAGE_ROWS", 2)
    fill_person(database)
    whose = privacy.begin_export(database, ADMIN, SYSTEM, 2)
    archive = zipfile.ZipFile(io.BytesIO(b"".join(privacy.export(database, whose))))
    assert archive.testzip() is None
    document: dict[str, Any] = json.loads(archive.read("export.json"))
    assert [visitor["id"] for visitor in document["visitors"]] == [1, 2]
    assert document["visitors"][0]["attributes"] == {"plan": MARKER}
    assert document["visitors"][0]["pages"][0]["title"] == MARKER
    assert [one["id"] for one in document["conversations"]] == [1, 2]
    one = document["conversations"][0]
    assert (one["form"], one["csat_comment"]) == ({"order": MARKER}, MARKER)
    assert [(item["stream"], item["seq"]) for item in one["messages"]] == [
        ("public", 1),
        ("public", 2),
        ("public", 3),
        ("staff", 1),
        ("staff", 2),
    ]
    for attachment in document["attachments"]:
        assert archive.read(attachment["file"]) == f"{MARKER}!!".encode()
    assert len(document["attachments"]) == 2
