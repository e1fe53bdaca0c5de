"""The audit log through the API."""

from __future__ import annotations

import csv
import io
import uuid
from typing import Any

import pytest

from tests.api.conftest import Agent, Visitor, assert_problem


@pytest.fixture(scope="module")
def webhook_id(agent: Agent) -> int:
    """A webhook with a short history of three acts."""
    body = {
        "name": f"=hook {uuid.uuid4()}",
        "url": "https://hooks.example.com/",
        "events": ["message.created"],
        "active": False,
    }
    made = agent.post("/webhooks", body).json()
    agent.patch(f"/webhooks/{made['id']}", {"name": "another"})
    agent.delete(f"/webhooks/{made['id']}")
    return int(made["id"])


def entries(agent: Agent, **params: Any) -> list[dict[str, Any]]:
    answer = agent.get("/audit", **params)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def test_acts_are_told_newest_first(agent: Agent, webhook_id: int) -> None:
    # an id may have been used before, by a webhook that was deleted
    items = entries(agent, object_type="webhook", object_id=str(webhook_id))[:3]
    assert [item["action"] for item in items] == [
        "webhook.deleted",
        "webhook.updated",
        "webhook.created",
    ]
    for item in items:
        assert item["actor"] == {
            "type": "agent",
            "id": agent.user["id"],
            "name": agent.user["name"],
        }
        assert item["object"] == {"type": "webhook", "id": str(webhook_id)}
        assert item["address"]
    assert items[1]["details"] == {"changed": {"name": "another"}}


def test_filters(agent: Agent, webhook_id: int) -> None:
    only = {"object_type": "webhook", "object_id": str(webhook_id), "limit": 3}
    newest = entries(agent, **only)[0]
    assert {item["action"] for item in entries(agent, **only, action="webhook.deleted")} == {
        "webhook.deleted"
    }
    assert len(entries(agent, **only, action="webhook.*")) == 3
    assert entries(agent, **only, action="webhook") == []
    assert entries(agent, **only, action="web%.*") == []
    assert entries(agent, **only, actor=2**52) == []
    assert len(entries(agent, **only, actor=agent.user["id"])) == 3
    assert entries(agent, **only, since="2999-01-01T00:00:00Z") == []
    assert entries(agent, **only, until="1999-01-01") == []
    assert newest in entries(agent, **only, since=newest["at"])
    assert newest not in entries(agent, **only, until=newest["at"])


def test_pages(agent: Agent, webhook_id: int) -> None:
    only = {"object_type": "webhook", "object_id": str(webhook_id)}
    whole = [item["id"] for item in entries(agent, **only, limit=3)]
    seen: list[int] = []
    cursor = None
    while len(seen) < 3:
        params = {"cursor": cursor} if cursor else {}
        page = agent.get("/audit", **only, limit=1, **params).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert seen == whole


def test_csv(agent: Agent, webhook_id: int) -> None:
    answer = agent.get(
        "/audit", object_type="webhook", object_id=str(webhook_id), limit=3, format="csv"
    )
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"))))
    assert [row["action"] for row in rows] == [
        "webhook.deleted",
        "webhook.updated",
        "webhook.created",
    ]
    assert rows[0]["actor.name"] == agent.user["name"]


@pytest.mark.parametrize(
    "params",
    [
        {"actor": 0},
        {"action": "x" * 65},
        {"object_type": "a\x00"},
        {"since": "yesterday"},
        {"until": "9999-12-31T23:59:59-12:00"},
        {"limit": 501},
        {"cursor": "no-cursor"},
        {"format": "xml"},
    ],
)
def test_bad_queries(agent: Agent, params: dict[str, Any]) -> None:
    assert_problem(agent.get("/audit", **params), 422, "invalid_request")


def test_it_is_for_admins(second_agent: Agent, visitor: Visitor) -> None:
    assert_problem(second_agent.get("/audit"), 403, "forbidden")
    assert visitor.http.get("/api/v1/audit").status_code == 401
