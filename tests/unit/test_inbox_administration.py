"""What admins do is written into the audit log, in the same transaction and without secrets."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from sqlalchemy import select

from app.chat import blocking, business_hours, canned, inboxes, labels, visitor_profiles
from app.chat.errors import NotFound, Refused
from app.chat.inboxes import InboxSettings
from app.chat.permissions import Actor, Agent
from app.db import schema
from app.db.engines import Database

ACTOR = Actor("agent", 1, "Ann", "192.0.2.1")
ANN = Agent(1, "Ann", "ann@example.com", "admin", None)


def log(database: Database) -> list[tuple[str, dict[str, Any]]]:
    with database.read() as connection:
        rows = connection.execute(
            select(schema.audit_log.c.action, schema.audit_log.c.details).order_by(
                schema.audit_log.c.id
            )
        )
        return [(row.action, orjson.loads(row.details or "{}")) for row in rows]


def test_every_act_is_in_the_audit_log(database: Database) -> None:
    inbox = inboxes.add(database, ACTOR, {"name": "Shop 🛒"})
    inboxes.change(database, ACTOR, inbox.id, {"name": "New", "greetings": {"en": "x" * 300}})
    inboxes.set_members(database, ACTOR, inbox.id, [1])
    inboxes.set_members(database, ACTOR, inbox.id, [1])
    inboxes.rotate_key(database, ACTOR, inbox.id)
    secret = inboxes.rotate_identity_secret(database, ACTOR, inbox.id)
    inboxes.remove_identity_secret(database, ACTOR, inbox.id)
    inboxes.set_archived(database, ACTOR, inbox.id, away=True)
    inboxes.set_archived(database, ACTOR, inbox.id, away=True)
    inboxes.set_archived(database, ACTOR, inbox.id, away=False)
    hours = business_hours.create(
        database, ACTOR, {"name": "H", "time_zone": "UTC", "weekly": {}, "holidays": []}
    )
    business_hours.change(database, ACTOR, hours["id"], {"name": "I"})
    business_hours.remove(database, ACTOR, hours["id"])
    label = labels.create(database, ACTOR, name="L", color="#000000")
    labels.change(database, ACTOR, label["id"], {"name": "M"})
    labels.change(database, ACTOR, label["id"], {"name": "M"})
    labels.remove(database, ACTOR, label["id"], lambda _id: None)
    response = canned.create(
        database, ACTOR, shortcut="s", title="t", body="a private text", inbox_id=None
    )
    canned.change(database, ACTOR, response["id"], {"body": "another private text"})
    canned.remove(database, ACTOR, response["id"])
    visitor_profiles.change(database, ANN, ACTOR, 1, {"email": "secret@example.com"})
    visitor_profiles.set_blocked(database, ANN, ACTOR, 1, blocked=True)
    visitor_profiles.set_blocked(database, ANN, ACTOR, 1, blocked=True)
    visitor_profiles.set_blocked(database, ANN, ACTOR, 1, blocked=False)
    network = blocking.create(database, ACTOR, network="192.0.2.0/24", reason="spam")
    blocking.change(database, ACTOR, network["id"], {"reason": "more spam"})
    blocking.remove(database, ACTOR, network["id"])
    written = log(database)
    assert [action for action, _ in written] == [
        "inbox.created",
        "inbox.updated",
        "inbox.members_changed",
        "inbox.key_rotated",
        "inbox.identity_secret_rotated",
        "inbox.identity_secret_removed",
        "inbox.archived",
        "inbox.restored",
        "business_hours.created",
        "business_hours.updated",
        "business_hours.deleted",
        "label.created",
        "label.updated",
        "label.deleted",
        "canned_response.created",
        "canned_response.updated",
        "canned_response.deleted",
        "visitor.updated",
        "visitor.blocked",
        "visitor.unblocked",
        "blocked_network.created",
        "blocked_network.updated",
        "blocked_network.deleted",
    ]
    assert written[1][1] == {"changed": {"name": "New", "greetings": "…"}}
    everything = str(written)
    for hidden in (secret, "private text", "secret@example.com"):
        assert hidden not in everything


def test_what_is_refused_leaves_no_trace(database: Database) -> None:
    hours = business_hours.create(
        database, ACTOR, {"name": "H", "time_zone": "UTC", "weekly": {}, "holidays": []}
    )
    inbox = inboxes.add(database, ACTOR, {"name": "Shop", "business_hours_id": hours["id"]})
    before = log(database)
    with pytest.raises(Refused):
        business_hours.remove(database, ACTOR, hours["id"])
    with pytest.raises(Refused):
        inboxes.add(database, ACTOR, {"name": "Shop", "key": inbox.key})
    with pytest.raises(Refused):
        inboxes.set_members(database, ACTOR, inbox.id, [1, 77])
    with pytest.raises(NotFound):
        inboxes.change(database, ACTOR, 77, {"name": "x"})
    assert log(database) == before


def test_an_inbox_of_the_release_before_has_the_defaults(database: Database) -> None:
    row = inboxes.one(database, 1)
    assert row.settings is None
    assert inboxes.settings_of(row) == InboxSettings()
    seen = inboxes.widget_wire(row, language="en", in_conversation=False)
    assert (seen["greeting"], seen["languages"], seen["open"]) == ("Hi", ["en"], True)
    changed = inboxes.change(database, ACTOR, 1, {"csat_enabled": False})
    assert inboxes.settings_of(changed) == InboxSettings(csat_enabled=False)
