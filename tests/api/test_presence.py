"""Who is present, and what is given to them by itself."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.conftest import Agent, Visitor
from tests.conftest import Deskline


def present(agent: Agent) -> dict[str, Any]:
    answer = agent.get("/presence")
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def test_who_talks_to_us_is_present(agent: Agent, second_agent: Agent) -> None:
    beat = second_agent.post("/presence")
    assert beat.status_code == 200
    assert beat.json()["lifetime_seconds"] > 60
    agent.post("/presence")
    wanted = {agent.user["id"], second_agent.user["id"]}
    give_up_at = time.monotonic() + 25
    while time.monotonic() < give_up_at:
        document = present(agent)
        if wanted <= {item["user"]["id"] for item in document["items"]}:
            break
        time.sleep(0.2)
    assert document["known"] is True
    assert wanted <= {item["user"]["id"] for item in document["items"]}
    assert {item["availability"] for item in document["items"]} <= {"online", "away"}
    names = [item["user"]["name"] for item in document["items"]]
    assert names == sorted(names)


def test_a_heartbeat_needs_a_login(visitor: Visitor, deskline: Deskline) -> None:
    assert visitor.http.post("/api/v1/presence").status_code == 401
    assert visitor.http.get("/api/v1/presence").status_code == 401


@pytest.fixture
def busy_inbox(agent: Agent) -> Iterator[dict[str, Any]]:
    """An inbox with automatic assignment; it is archived at the end, so that it stays quiet."""
    made = agent.post("/inboxes", {"name": f"Auto {uuid.uuid4().hex[:8]}", "auto_assign": True})
    assert made.status_code == 201, made.text
    inbox: dict[str, Any] = made.json()
    yield inbox
    agent.post(f"/inboxes/{inbox['id']}/archive")


def test_a_waiting_visitor_is_given_to_somebody_who_is_there(
    deskline: Deskline, agent: Agent, second_agent: Agent, busy_inbox: dict[str, Any]
) -> None:
    visitor = Visitor(deskline)
    opened = visitor.open(busy_inbox["key"])
    visitor.http.headers["Authorization"] = f"Bearer {opened['visitor_token']}"
    conversation_id = visitor.conversation("anybody there?")
    path = f"/conversations/{conversation_id}"
    give_up_at = time.monotonic() + 60
    seen = agent.get(path).json()
    while seen["assignee"] is None and time.monotonic() < give_up_at:
        second_agent.post("/presence")
        time.sleep(0.3)
        seen = agent.get(path).json()
    there = {item["user"]["id"] for item in present(agent)["items"]}
    assert seen["assignee"] is not None
    assert seen["assignee"]["id"] in there
    staff = agent.messages(conversation_id, stream="staff", known_seq=1)["items"]
    assert [m["event"]["type"] for m in staff] == ["assigned"]
    assert staff[0]["event"]["by"]["type"] == "system"
    assert visitor.get(path).json()["assignee"]["id"] == seen["assignee"]["id"]
    agent.post(f"{path}/resolve")
    visitor.http.close()
