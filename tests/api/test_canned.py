"""Canned responses, and filling them for a conversation."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from tests.api.conftest import Agent, Visitor, assert_problem


def make(agent: Agent, body: str = "Hello!", **more: Any) -> dict[str, Any]:
    shortcut = more.pop("shortcut", f"t{uuid.uuid4().hex[:12]}")
    answer = agent.post(
        "/canned-responses", {"shortcut": shortcut, "title": "Title 標題", "body": body, **more}
    )
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def test_a_response_is_made_read_changed_and_deleted(agent: Agent, second_agent: Agent) -> None:
    body = "您好 👋 {{visitor.name}}\ncafe\u0301"
    made = make(agent, body)
    path = f"/canned-responses/{made['id']}"
    assert second_agent.get(path).json() == made
    assert made["body"] == body
    changed = agent.patch(path, {"title": "New"}).json()
    assert (changed["title"], changed["body"]) == ("New", body)
    assert agent.delete(path).status_code == 204
    assert_problem(agent.get(path), 404, "not_found")
    assert_problem(agent.delete(path), 404, "not_found")


def test_the_search_goes_by_the_beginning_of_the_shortcut(
    agent: Agent, second_agent: Agent
) -> None:
    mark = uuid.uuid4().hex[:10]
    names = [f"{mark}{end}" for end in ("b", "a", "c%", "退貨", "💎")]
    for name in names:
        make(agent, shortcut=name)
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = second_agent.get("/canned-responses", query=mark.upper(), limit=2, **cursor).json()
        found += [item["shortcut"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert sorted(found) == sorted(names)
    assert found[:2] == [f"{mark}a", f"{mark}b"] or found[1:3] == [f"{mark}a", f"{mark}b"]
    for query, shortcuts in ((f"{mark}c%", [f"{mark}c%"]), (f"{mark}%", []), (f"{mark}_", [])):
        page = agent.get("/canned-responses", query=query).json()
        assert [item["shortcut"] for item in page["items"]] == shortcuts
    assert_problem(agent.get("/canned-responses", cursor="nonsense"), 422, "invalid_request")


def test_shortcuts_are_unique_whatever_the_case(agent: Agent) -> None:
    made = make(agent)
    answer = agent.post(
        "/canned-responses",
        {"shortcut": made["shortcut"].upper(), "title": "T", "body": "B"},
    )
    problem = assert_problem(answer, 409, "conflict")
    assert problem["errors"][0]["field"] == "shortcut"
    other = make(agent)
    taken = agent.patch(f"/canned-responses/{other['id']}", {"shortcut": made["shortcut"]})
    assert_problem(taken, 409, "conflict")


def test_variables_are_filled_once_and_unknown_ones_reported(
    agent: Agent, second_agent: Agent, visitor: Visitor
) -> None:
    conversation_id = visitor.conversation()
    inbox = agent.get(f"/conversations/{conversation_id}").json()["inbox"]["name"]
    made = make(
        agent,
        "{{visitor.name}} · {{ agent.name }} · {{inbox.name}} · {{conversation.id}} · "
        "{{visitor.email}} · {{weather}} · {{visitor.email}} · {{ odd thing }} · {}",
    )
    answer = second_agent.post(
        f"/canned-responses/{made['id']}/render", {"conversation_id": conversation_id}
    )
    assert answer.status_code == 200, answer.text
    name = visitor.session["visitor"]["name"]
    assert answer.json() == {
        "body": f"{name} · {second_agent.user['name']} · {inbox} · {conversation_id} · "
        "{{visitor.email}} · {{weather}} · {{visitor.email}} · {{ odd thing }} · {}",
        "unknown_variables": ["visitor.email", "weather"],
    }


def test_rendering_needs_a_conversation_that_exists(
    agent: Agent, new_visitor: Callable[..., Visitor]
) -> None:
    path = f"/canned-responses/{make(agent)['id']}/render"
    assert_problem(agent.post(path, {"conversation_id": 2**60}), 404, "not_found")
    assert_problem(agent.post(path, {"conversation_id": 0}), 422, "invalid_request")
    gone = "/canned-responses/999999999/render"
    conversation = {"conversation_id": new_visitor().conversation()}
    assert_problem(agent.post(gone, conversation), 404, "not_found")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"shortcut": ""}, "shortcut"),
        ({"shortcut": "two words"}, "shortcut"),
        ({"shortcut": "x" * 51}, "shortcut"),
        ({"title": "x" * 101}, "title"),
        ({"title": "a\tb"}, "title"),
        ({"body": ""}, "body"),
        ({"body": "a\u0000"}, "body"),
        ({"inbox_id": 0}, "inbox_id"),
        ({"inbox_id": 2**60}, "inbox_id"),
        ({"inbox_id": "x"}, "inbox_id"),
    ],
)
def test_a_wrong_response_names_the_field(agent: Agent, change: dict[str, Any], field: str) -> None:
    good = {"shortcut": uuid.uuid4().hex, "title": "T", "body": "B"}
    answer = agent.post("/canned-responses", {**good, **change})
    problem = assert_problem(answer, 422, "invalid_request")
    assert problem["errors"][0]["field"] == field
    too_long = agent.post("/canned-responses", {**good, "body": "x" * 10_001})
    assert_problem(too_long, 422, "message_too_long")


def test_agents_read_and_admins_manage(agent: Agent, second_agent: Agent) -> None:
    made = make(agent)
    path = f"/canned-responses/{made['id']}"
    new = {"shortcut": uuid.uuid4().hex, "title": "T", "body": "B"}
    assert second_agent.get("/canned-responses").status_code == 200
    assert_problem(second_agent.post("/canned-responses", new), 403, "forbidden")
    assert_problem(second_agent.patch(path, {}), 403, "forbidden")
    assert_problem(second_agent.delete(path), 403, "forbidden")
