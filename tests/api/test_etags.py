"""Lists that are polled: a client that holds the answer gets it once."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.api.conftest import Agent, Visitor

LISTS = [
    "/conversations",
    "/conversations?view=mine&status=open&limit=5",
    "/conversations/{id}",
    "/conversations/{id}/messages",
    "/conversations/{id}/messages?after_seq=0&stream=staff",
    "/labels",
    "/canned-responses",
    "/inboxes",
    "/directory/inboxes",
    "/teams",
    "/colleagues",
]


def again(client: Agent | Visitor, path: str, tag: str) -> httpx.Response:
    return client.http.get(path, headers={"If-None-Match": tag})


@pytest.mark.parametrize("path", LISTS)
def test_what_the_client_holds_is_not_sent_again(agent: Agent, visitor: Visitor, path: str) -> None:
    path = "/api/v1" + path.replace("{id}", str(visitor.conversation()))
    first = agent.http.get(path)
    assert first.status_code == 200
    tag = first.headers["ETag"]
    assert first.headers["Cache-Control"] == "private, no-cache"
    held = again(agent, path, tag)
    assert (held.status_code, held.content) == (304, b"")
    assert held.headers["ETag"].removeprefix("W/") == tag.removeprefix("W/")
    assert "Content-Type" not in held.headers
    for other in ('"something else"', "", tag.strip('W/"')):
        assert again(agent, path, other).status_code == 200
    # a proxy that compresses weakens the tag; a client may hold several
    strong = tag.removeprefix("W/")
    for form in (f"W/{strong}", f'"a", {strong}', "*"):
        assert again(agent, path, form).status_code == 304


def test_the_visitors_page_too_and_it_changes_with_each_message(
    agent: Agent, visitor: Visitor
) -> None:
    conversation_id = visitor.conversation()
    path = f"/api/v1/widget/conversations/{conversation_id}/messages?known_seq=1"
    tag = visitor.http.get(path).headers["ETag"]
    assert again(visitor, path, tag).status_code == 304
    agent.send(conversation_id, "new")
    path = path.replace("known_seq=1", "known_seq=2")
    fresh = again(visitor, path, tag)
    assert (fresh.status_code, len(fresh.json()["items"])) == (200, 2)
    assert fresh.headers["ETag"] != tag


def test_the_list_changes_with_the_reader(agent: Agent, visitor: Visitor) -> None:
    conversation_id = visitor.conversation()
    path = "/api/v1/conversations"
    tag = agent.http.get(path).headers["ETag"]
    agent.post(f"/conversations/{conversation_id}/read", {"seq": 1})
    changed = again(agent, path, tag)
    assert changed.status_code == 200
    row = next(item for item in changed.json()["items"] if item["id"] == conversation_id)
    assert row["unread"] == 0


def test_errors_have_no_tag(agent: Agent) -> None:
    answer = agent.http.get("/api/v1/conversations/999999999/messages")
    assert answer.status_code == 404
    assert "ETag" not in answer.headers
    assert answer.headers["Cache-Control"] == "no-store"


def test_an_empty_wait_is_answered_with_304(agent: Agent, visitor: Visitor) -> None:
    conversation_id = visitor.conversation()
    path = f"/api/v1/conversations/{conversation_id}/messages?after_seq=1"
    tag = agent.http.get(path).headers["ETag"]
    assert again(agent, f"{path}&wait=1", tag).status_code == 304


def test_the_document_tells(agent: Agent) -> None:
    document: dict[str, Any] = agent.http.get("/openapi.json").json()
    operation = document["paths"]["/api/v1/conversations"]["get"]
    assert "304" in operation["responses"]
    assert "ETag" in operation["responses"]["200"]["headers"]
    assert "If-None-Match" in {each["name"] for each in operation["parameters"]}
