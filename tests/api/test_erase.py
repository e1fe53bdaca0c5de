"""A person's data through the API: given out, and erased."""

from __future__ import annotations

import io
import json
import time
import uuid
import zipfile

import httpx
import pytest

from tests.api.conftest import Agent, Visitor, assert_problem
from tests.conftest import Deskline


def export(agent: Agent, visitor_id: int) -> zipfile.ZipFile:
    answer = agent.post(f"/visitors/{visitor_id}/export")
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "application/zip"
    assert f'filename="visitor-{visitor_id}.zip"' in answer.headers["Content-Disposition"]
    return zipfile.ZipFile(io.BytesIO(answer.content))


def test_an_export_holds_what_was_said(agent: Agent, visitor: Visitor) -> None:
    conversation_id = visitor.conversation("my order 訂單")
    agent.send(conversation_id, "an answer")
    agent.send(conversation_id, "a note", kind="note")
    document = json.loads(export(agent, visitor.id).read("export.json"))
    assert document["visitors"][0]["id"] == visitor.id
    (conversation,) = document["conversations"]
    assert {"my order 訂單", "an answer", "a note"} <= {
        message["body"] for message in conversation["messages"]
    }


def test_an_erased_visitor_is_nobody(agent: Agent, visitor: Visitor, deskline: Deskline) -> None:
    unique = f"w{uuid.uuid4().hex}"
    conversation_id = visitor.conversation(f"secret {unique}")
    agent.send(conversation_id, f"note on {unique}", kind="note")
    give_up_at = time.monotonic() + 10
    while len(agent.get("/search", q=unique).json()["items"]) < 2:
        assert time.monotonic() < give_up_at
        time.sleep(0.1)

    answer = agent.post(f"/visitors/{visitor.id}/erase", {"confirm": str(visitor.id)})
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"conversations": 1, "messages": 2, "attachments": 0}

    give_up_at = time.monotonic() + 10
    while agent.get("/search", q=unique).json()["items"]:
        assert time.monotonic() < give_up_at
        time.sleep(0.1)
    shown = agent.get(f"/conversations/{conversation_id}")
    assert unique not in shown.text
    assert shown.json()["visitor"]["name"] == "Erased visitor"
    assert shown.json()["status"] == "resolved"
    for stream in ("public", "staff"):
        items = agent.messages(conversation_id, stream=stream)["items"]
        assert [item["seq"] for item in items] == list(range(1, len(items) + 1))
        assert all(item["deleted_at"] or item["kind"] == "event" for item in items)
        assert unique not in json.dumps(items)

    # the token speaks for nobody any more
    for refused in (
        visitor.get(f"/conversations/{conversation_id}/messages"),
        visitor.send(conversation_id, "me again"),
        visitor.start("me again"),
    ):
        assert refused.status_code in (401, 403, 404), refused.text
    again = visitor.open(deskline.inbox_key, visitor_token=visitor.session["visitor_token"])
    assert again["visitor"]["id"] != visitor.id
    assert again["conversation"] is None
    assert_problem(
        agent.post(f"/visitors/{visitor.id}/erase", {"confirm": str(visitor.id)}), 404, "not_found"
    )
    assert_problem(agent.post(f"/visitors/{visitor.id}/export"), 404, "not_found")


def test_it_is_noted_who_did_it(agent: Agent, visitor: Visitor) -> None:
    visitor.conversation("hello")
    export(agent, visitor.id)
    agent.post(f"/visitors/{visitor.id}/erase", {"confirm": str(visitor.id)})
    entries = agent.get("/audit", object_type="visitor", object_id=str(visitor.id)).json()["items"]
    assert [entry["action"] for entry in entries] == ["visitor.erased", "visitor.exported"]
    assert entries[0]["actor"]["name"] == agent.user["name"]
    assert "hello" not in json.dumps(entries)


@pytest.mark.parametrize("body", [{}, {"confirm": ""}, {"confirm": "no"}, {"confirm": 7}])
def test_it_must_be_confirmed(agent: Agent, visitor: Visitor, body: dict[str, object]) -> None:
    conversation_id = visitor.conversation("still here")
    answer = agent.post(f"/visitors/{visitor.id}/erase", body)
    assert_problem(answer, 422, "invalid_request")
    assert agent.messages(conversation_id)["items"][0]["body"] == "still here"


def test_only_admins_may(second_agent: Agent, visitor: Visitor) -> None:
    body = {"confirm": str(visitor.id)}
    assert_problem(second_agent.post(f"/visitors/{visitor.id}/erase", body), 403, "forbidden")
    assert_problem(second_agent.post(f"/visitors/{visitor.id}/export"), 403, "forbidden")
    answer: httpx.Response = visitor.http.post(f"/api/v1/visitors/{visitor.id}/export")
    assert answer.status_code == 401
