"""Labels: which there are."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest

from tests.api.conftest import Agent, Visitor, assert_problem
from tests.api.test_realtime import agent_auth, open_socket
from tests.conftest import Deskline


def unique(text: str = "") -> str:
    return f"{text}{uuid.uuid4().hex[:12]}"


@pytest.mark.parametrize("name", ["VIP 💎", "退貨與退款", "cafe\u0301", "Ärger"])
def test_a_label_is_made_renamed_and_deleted(agent: Agent, second_agent: Agent, name: str) -> None:
    name = unique(name)
    made = agent.post("/labels", {"name": f"  {name} ", "color": "#FF0000"})
    assert made.status_code == 201, made.text
    label = made.json()
    assert (label["name"], label["color"]) == (name, "#FF0000")
    assert label in second_agent.get("/labels").json()["items"]

    changed = agent.patch(f"/labels/{label['id']}", {"color": "#00ff00"})
    assert changed.json() == {**label, "color": "#00ff00"}
    assert agent.patch(f"/labels/{label['id']}", {}).json() == changed.json()

    assert agent.delete(f"/labels/{label['id']}").status_code == 204
    assert_problem(agent.delete(f"/labels/{label['id']}"), 404, "not_found")
    assert_problem(agent.patch(f"/labels/{label['id']}", {}), 404, "not_found")
    assert label["id"] not in [item["id"] for item in agent.get("/labels").json()["items"]]


def test_names_differ_by_more_than_their_case(agent: Agent) -> None:
    name = unique("Ä")
    label = agent.post("/labels", {"name": name}).json()
    other = agent.post("/labels", {"name": unique()}).json()
    taken = agent.post("/labels", {"name": name.lower()})
    problem = assert_problem(taken, 409, "conflict")
    assert problem["errors"][0]["field"] == "name"
    decomposed = name.replace("Ä", "A\u0308")
    assert_problem(agent.post("/labels", {"name": decomposed}), 409, "conflict")
    assert_problem(agent.patch(f"/labels/{other['id']}", {"name": name.upper()}), 409, "conflict")
    # its own name in another case is no conflict
    renamed = agent.patch(f"/labels/{label['id']}", {"name": name.lower()})
    assert renamed.json()["name"] == name.lower()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "  "}, "name"),
        ({"name": "x" * 51}, "name"),
        ({"name": "a\u0000b"}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": None}, "name"),
        ({"name": 7}, "name"),
        ({"name": "ok", "color": "red"}, "color"),
        ({"name": "ok", "color": "#12345"}, "color"),
        ({"name": "ok", "color": "#12345g"}, "color"),
    ],
)
def test_a_wrong_label_names_the_field(agent: Agent, body: dict[str, Any], field: str) -> None:
    before = agent.get("/labels").json()
    problem = assert_problem(agent.post("/labels", body), 422, "invalid_request")
    assert problem["errors"][0]["field"] == field
    assert agent.get("/labels").json() == before


def test_a_change_cannot_empty_a_field(agent: Agent) -> None:
    label = agent.post("/labels", {"name": unique()}).json()
    for body in ({"name": None}, {"color": None}, {"name": ""}):
        answer = agent.patch(f"/labels/{label['id']}", body)
        assert_problem(answer, 422, "invalid_request")


def test_agents_read_and_admins_manage(agent: Agent, second_agent: Agent) -> None:
    label = agent.post("/labels", {"name": unique()}).json()
    assert second_agent.get("/labels").status_code == 200
    assert_problem(second_agent.post("/labels", {"name": unique()}), 403, "forbidden")
    assert_problem(second_agent.patch(f"/labels/{label['id']}", {}), 403, "forbidden")
    assert_problem(second_agent.delete(f"/labels/{label['id']}"), 403, "forbidden")


async def test_a_deleted_label_leaves_its_conversations_and_that_is_announced(
    deskline: Deskline, agent: Agent, visitor: Visitor
) -> None:
    label, other = (agent.post("/labels", {"name": unique("標籤 ")}).json() for _ in range(2))
    conversation_id = visitor.conversation()
    path = f"/conversations/{conversation_id}"
    put = agent.put(f"{path}/labels", {"label_ids": [label["id"], other["id"]]})
    assert put.status_code == 200, put.text
    before = agent.get(path).json()
    assert {item["id"] for item in before["labels"]} == {label["id"], other["id"]}

    inbox = f"private-inbox.{visitor.session['inbox']['id']}"
    socket = await open_socket(deskline, visitor.session["realtime"]["key"])
    await socket.subscribe(inbox, agent_auth(agent, inbox, socket.socket_id))

    async def announced(names: set[str]) -> dict[str, Any]:
        while True:
            row = await socket.receive("conversation.updated")
            if row["id"] == conversation_id and {one["name"] for one in row["labels"]} == names:
                return row

    renamed = unique("renamed ")
    await asyncio.to_thread(agent.patch, f"/labels/{other['id']}", {"name": renamed})
    row = await announced({label["name"], renamed})
    assert row["version"] > before["version"]
    deleted = await asyncio.to_thread(agent.delete, f"/labels/{label['id']}")
    assert deleted.status_code == 204
    gone = await announced({renamed})
    assert gone["version"] > row["version"]
    await socket.connection.close()
    assert [item["name"] for item in agent.get(path).json()["labels"]] == [renamed]
