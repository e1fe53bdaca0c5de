"""Retention through the API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.conftest import Agent, Visitor, assert_problem


@pytest.fixture(autouse=True)
def put_back(agent: Agent) -> Iterator[None]:
    """The numbers as they were."""
    before = agent.get("/retention").json()
    yield
    names = ("default_days", "webhook_delivery_days", "audit_days", "idle_visitor_days")
    agent.put("/retention", {name: before[name] for name in names})


def test_numbers_are_set_and_told_for_each_inbox(agent: Agent) -> None:
    changed = agent.put("/retention", {"default_days": 3650, "audit_days": 3000})
    assert changed.status_code == 200, changed.text
    told = agent.get("/retention").json()
    assert told == changed.json()
    assert (told["default_days"], told["audit_days"]) == (3650, 3000)
    for inbox in told["inboxes"]:
        assert inbox["days"] == (inbox["own_days"] or 3650)
    agent.put("/retention", {"audit_days": None})
    assert agent.get("/retention").json()["audit_days"] is None
    assert agent.get("/retention").json()["default_days"] == 3650
    newest = agent.get("/audit", action="retention.updated", limit=1).json()["items"][0]
    assert newest["details"] == {"changed": {"audit_days": None}}


def test_visitors_without_a_conversation_have_a_number(agent: Agent) -> None:
    assert agent.get("/retention").json()["idle_visitor_days"] == 400
    assert agent.put("/retention", {"idle_visitor_days": 3650}).status_code == 200
    assert agent.get("/retention").json()["idle_visitor_days"] == 3650
    assert agent.post("/retention/dry-run", {"idle_visitor_days": None}).status_code == 200
    assert agent.put("/retention", {"idle_visitor_days": None}).json()["idle_visitor_days"] is None


def test_a_dry_run_counts_and_removes_nothing(agent: Agent, visitor: Visitor) -> None:
    conversation_id = visitor.conversation("still here")
    answer = agent.post("/retention/dry-run", {"default_days": 1})
    assert answer.status_code == 200, answer.text
    told = answer.json()
    mine = next(one for one in told["items"] if one["inbox"]["id"])
    assert {"conversations", "messages", "attachments", "visitors", "days"} < set(mine)
    assert agent.get("/retention").json()["default_days"] != 1
    assert agent.messages(conversation_id)["items"][0]["body"] == "still here"
    assert agent.post("/retention/dry-run").status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {"default_days": 0},
        {"default_days": 3651},
        {"default_days": "30"},
        {"default_days": 1.5},
        {"webhook_delivery_days": None},
        {"webhook_delivery_days": 366},
        {"audit_days": 29},
        {"idle_visitor_days": 0},
        {"idle_visitor_days": 3651},
    ],
)
def test_bad_numbers(agent: Agent, body: dict[str, Any]) -> None:
    before = agent.get("/retention").json()
    assert_problem(agent.put("/retention", body), 422, "invalid_request")
    assert_problem(agent.post("/retention/dry-run", body), 422, "invalid_request")
    assert agent.get("/retention").json() == before


def test_only_admins_may(second_agent: Agent) -> None:
    assert_problem(second_agent.get("/retention"), 403, "forbidden")
    assert_problem(second_agent.put("/retention", {}), 403, "forbidden")
    assert_problem(second_agent.post("/retention/dry-run", {}), 403, "forbidden")
