"""Visitors as the staff know them, the pages they looked at, and blocked networks."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from tests.api.conftest import Agent, NewAccount, Visitor, assert_problem

MakeVisitor = Callable[..., Visitor]


def find(agent: Agent, **params: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        answer = agent.get("/visitors", limit=2, **params, **cursor)
        assert answer.status_code == 200, answer.text
        found += answer.json()["items"]
        if answer.json()["next_cursor"] is None:
            return found
        cursor = {"cursor": answer.json()["next_cursor"]}


def test_the_list_finds_parts_of_names_and_addresses(
    agent: Agent, second_agent: Agent, new_visitor: MakeVisitor
) -> None:
    mark = uuid.uuid4().hex[:10]
    identities = [
        {"name": f"陳 {mark} 小明"},
        {"email": f"ann.{mark}@example.com"},
        {"name": f"100% {mark}_x"},
    ]
    made = [new_visitor(identity=identity) for identity in identities]
    other = new_visitor(identity={"name": "somebody else"})
    found = [item["id"] for item in find(second_agent, query=mark.upper())]
    assert found == [visitor.id for visitor in reversed(made)]
    assert other.id not in found
    assert [item["id"] for item in find(agent, query=f"{mark} 小明")] == [made[0].id]
    assert [item["id"] for item in find(agent, query=f"% {mark}_x")] == [made[2].id]
    assert find(agent, query=f"{mark}_y") == []
    inbox_id = made[0].session["inbox"]["id"]
    assert len(find(agent, query=mark, inbox=inbox_id)) == 3
    assert find(agent, query=mark, inbox=2**50) == []
    assert_problem(agent.get("/visitors", cursor="x"), 422, "invalid_request")
    assert_problem(agent.get("/visitors", query="x" * 101), 422, "invalid_request")


def test_a_visitor_is_shown_with_its_context(agent: Agent, new_visitor: MakeVisitor) -> None:
    visitor = new_visitor(
        language="zh-Hant-TW",
        page={
            "url": "https://shop.example/a",
            "title": "A 🧥\u0000",
            "referrer": "https://search.example/",
        },
    )
    conversation_id = visitor.conversation()
    agent.post(f"/conversations/{conversation_id}/claim")
    seen = agent.get(f"/visitors/{visitor.id}").json()
    assert seen["inbox"]["id"] == visitor.session["inbox"]["id"]
    assert (seen["language"], seen["browser"]) == ("zh-Hant-TW", "Firefox 133, Linux")
    assert seen["page"] == {"url": "https://shop.example/a", "title": "A 🧥"}
    assert seen["referrer"] == "https://search.example/"
    assert seen["address"]
    assert (seen["identifier"], seen["blocked_at"], seen["attributes"]) == (None, None, {})
    (conversation,) = seen["conversations"]
    assert conversation["id"] == conversation_id
    assert conversation["status"] == "open"
    assert conversation["assignee"]["id"] == agent.user["id"]
    assert conversation["form"] is None


def test_the_last_fifty_pages_are_kept(agent: Agent, new_visitor: MakeVisitor) -> None:
    first = {"url": "https://shop.example/0", "title": "0"}
    visitor = new_visitor(page=first)
    token = visitor.session["visitor_token"]
    # opening the session again on the same page, as polling does, is no other page
    visitor.open("demo", visitor_token=token, page=first)
    for number in range(1, 54):
        page = {"url": f"https://shop.example/{number}", "title": f"頁 {number} " + "x" * 400}
        assert visitor.post("/page", page).status_code == 204
    assert visitor.post("/page", {"url": "javascript:alert(1)"}).status_code == 204
    seen = agent.get(f"/visitors/{visitor.id}").json()
    assert [page["url"] for page in seen["pages"]] == [
        f"https://shop.example/{number}" for number in range(53, 3, -1)
    ]
    assert len(seen["pages"][0]["title"]) == 300
    assert seen["page"]["url"] == "https://shop.example/53"
    for body in ({}, {"url": ""}, {"url": 7}):
        assert_problem(visitor.post("/page", body), 422, "invalid_request")


def test_staff_correct_what_is_known(agent: Agent, second_agent: Agent, visitor: Visitor) -> None:
    conversation_id = visitor.conversation()
    path = f"/visitors/{visitor.id}"
    change = {
        "name": " 王大明 🙂 e\u0301 ",
        "email": "wang@example.com",
        "phone": "+886 2 5555 0100",
        "attributes": {"plan": "gold", "orders": 2},
    }
    changed = second_agent.patch(path, change)
    assert changed.status_code == 200, changed.text
    assert changed.json()["name"] == "王大明 🙂 e\u0301"
    assert changed.json()["attributes"] == {"plan": "gold", "orders": 2}
    seen = agent.get(f"/conversations/{conversation_id}").json()["visitor"]
    assert (seen["name"], seen["email"]) == ("王大明 🙂 e\u0301", "wang@example.com")
    again = agent.patch(path, {"email": None, "attributes": {"plan": None, "vip": True}}).json()
    assert (again["email"], again["phone"]) == (None, "+886 2 5555 0100")
    assert again["attributes"] == {"orders": 2, "vip": True}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": None}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "a\u0000"}, "name"),
        ({"email": "nobody"}, "email"),
        ({"email": "a@" + "b" * 254}, "email"),
        ({"phone": "x" * 41}, "phone"),
        ({"attributes": None}, "attributes"),
        ({"attributes": {"x": []}}, "attributes"),
        ({"attributes": {f"a{n}": "𠜎" * 500 for n in range(10)}}, "attributes"),
        ({"attributes": {"x": 2**60}}, "attributes"),
    ],
)
def test_a_wrong_correction_names_the_field(
    agent: Agent, visitor: Visitor, body: dict[str, Any], field: str
) -> None:
    path = f"/visitors/{visitor.id}"
    before = agent.get(path).json()
    problem = assert_problem(agent.patch(path, body), 422, "invalid_request")
    assert problem["errors"][0]["field"].split(".")[0] == field
    assert agent.get(path).json() == before


@pytest.mark.parametrize("number", ["0", "999999999999", "abc", "-1"])
def test_a_visitor_that_does_not_exist(agent: Agent, number: str) -> None:
    path = f"/visitors/{number}"
    assert_problem(agent.get(path), 404, "not_found")
    assert_problem(agent.patch(path, {}), 404, "not_found")
    assert_problem(agent.post(f"{path}/block"), 404, "not_found")
    assert_problem(agent.post(f"{path}/unblock"), 404, "not_found")


def test_visitors_call_none_of_it(visitor: Visitor) -> None:
    for method, path in (
        ("GET", "/visitors"),
        ("GET", f"/visitors/{visitor.id}"),
        ("PATCH", f"/visitors/{visitor.id}"),
        ("POST", f"/visitors/{visitor.id}/unblock"),
        ("GET", "/blocked-networks"),
        ("POST", "/blocked-networks"),
    ):
        answer = visitor.http.request(method, f"/api/v1{path}", json={})
        assert_problem(answer, 401, "not_authenticated")


def test_agents_see_the_visitors_of_their_inboxes(
    agent: Agent, new_account: NewAccount, new_visitor: MakeVisitor
) -> None:
    mine, theirs = (
        agent.post("/inboxes", {"name": f"Shop {uuid.uuid4().hex[:8]}"}).json() for _ in range(2)
    )
    limited = new_account(all_inboxes=False, inbox_ids=[mine["id"]])
    inside, outside = (new_visitor(inbox_key=one["key"]) for one in (mine, theirs))
    conversation_id = outside.conversation()
    assert [item["id"] for item in find(limited)] == [inside.id]
    assert find(limited, inbox=theirs["id"]) == []
    assert [one["id"] for one in limited.get("/directory/inboxes").json()["items"]] == [mine["id"]]
    assert limited.get(f"/visitors/{inside.id}").status_code == 200
    path = f"/visitors/{outside.id}"
    assert_problem(limited.get(path), 404, "not_found")
    assert_problem(limited.patch(path, {"name": "x"}), 404, "not_found")
    assert_problem(limited.post(f"{path}/block"), 404, "not_found")
    assert_problem(limited.post(f"{path}/unblock"), 404, "not_found")
    assert agent.get(path).json()["blocked_at"] is None

    canned = [
        agent.post(
            "/canned-responses",
            {"shortcut": uuid.uuid4().hex, "title": "T", "body": "B", "inbox_id": inbox_id},
        ).json()
        for inbox_id in (mine["id"], theirs["id"], None)
    ]
    codes = [limited.get(f"/canned-responses/{one['id']}").status_code for one in canned]
    assert codes == [200, 404, 200]
    seen = {one["shortcut"] for one in limited.get("/canned-responses", limit=100).json()["items"]}
    assert canned[1]["shortcut"] not in seen
    render = f"/canned-responses/{canned[2]['id']}/render"
    there = {"conversation_id": conversation_id}
    assert_problem(limited.post(render, there), 404, "not_found")
    other = agent.post(f"/canned-responses/{canned[0]['id']}/render", there)
    assert_problem(other, 409, "conflict")


# --- blocked networks -------------------------------------------------------------------------


def network() -> str:
    """A range that no visitor of the tests comes from (RFC 3849)."""
    digits = uuid.uuid4().hex
    return f"2001:db8:{digits[:4]}:{digits[4:8]}:{digits[8:12]}::/80"


def test_networks_are_blocked_listed_and_let_go(agent: Agent, second_agent: Agent) -> None:
    ranges = [network() for _ in range(3)]
    made = [
        second_agent.post("/blocked-networks", {"network": one, "reason": "垃圾訊息 🚫"})
        for one in ranges
    ]
    assert [answer.status_code for answer in made] == [201] * 3
    assert made[0].json()["created_by"]["id"] == second_agent.user["id"]
    assert made[0].json()["reason"] == "垃圾訊息 🚫"
    listed: list[int] = []
    cursor: dict[str, str] = {}
    while not listed or cursor:
        page = agent.get("/blocked-networks", limit=2, **cursor).json()
        listed += [item["id"] for item in page["items"]]
        cursor = {"cursor": page["next_cursor"]} if page["next_cursor"] else {}
    ids = [answer.json()["id"] for answer in made]
    assert [one for one in listed if one in ids] == sorted(ids, reverse=True)
    again = agent.post("/blocked-networks", {"network": made[0].json()["network"].upper()})
    assert_problem(again, 409, "conflict")
    path = f"/blocked-networks/{ids[0]}"
    assert agent.patch(path, {"reason": "spam"}).json()["reason"] == "spam"
    for one in ids:
        assert agent.delete(f"/blocked-networks/{one}").status_code == 204
    assert_problem(agent.delete(path), 404, "not_found")
    assert_problem(agent.patch(path, {}), 404, "not_found")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "network"),
        ({"network": ""}, "network"),
        ({"network": "example.com"}, "network"),
        ({"network": "192.0.2.0/33"}, "network"),
        ({"network": "0.0.0.0/0"}, "network"),
        ({"network": "::/0"}, "network"),
        ({"network": "192.0.2.\u0000"}, "network"),
        ({"network": 7}, "network"),
        ({"network": "192.0.2.0/24", "reason": "x" * 301}, "reason"),
        ({"network": "192.0.2.0/24", "reason": "a\nb"}, "reason"),
    ],
)
def test_a_wrong_network_is_named(agent: Agent, body: dict[str, Any], field: str) -> None:
    problem = assert_problem(agent.post("/blocked-networks", body), 422, "invalid_request")
    assert problem["errors"][0]["field"] == field
