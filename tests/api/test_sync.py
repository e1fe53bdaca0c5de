"""Catching up with everything that a client watches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.api.conftest import Agent, Visitor, assert_problem
from tests.api.test_edits import delete_own, edit_own, staff_path

MakeVisitor = Callable[..., Visitor]


def sync(client: Agent | Visitor, known: dict[int, Any], **more: Any) -> dict[str, Any]:
    named = {str(item): told for item, told in known.items()}
    answer = client.post("/sync", {"known": named, **more})
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def places(messages: list[dict[str, Any]]) -> list[tuple[int, str, int]]:
    return [(item["conversation_id"], item["stream"], item["seq"]) for item in messages]


def test_the_staff_catch_up_with_all_that_they_watch(
    agent: Agent, new_visitor: MakeVisitor
) -> None:
    one, two, three = (new_visitor() for _ in range(3))
    first, second, third = (each.conversation("1") for each in (one, two, three))
    one.send(first, "2")
    agent.send(first, "note 1", kind="note")
    two.send(second, "2")
    two.send(second, "3")
    known = {first: {"public": 1, "staff": 0}, second: {"public": 1}, third: 1}
    seen = sync(agent, known)
    assert sorted(places(seen["messages"])) == [
        (first, "public", 2),
        (first, "staff", 1),
        (second, "public", 2),
        (second, "public", 3),
    ]
    assert {row["id"] for row in seen["conversations"]} == {first, second, third}
    assert agent.get(f"/conversations/{first}").json()["version"] in [
        row["version"] for row in seen["conversations"]
    ]
    assert (seen["gone"], seen["new"], seen["edits"], seen["more"]) == ([], [], [], False)
    assert seen["known"][str(first)] == {
        "public": 2,
        "staff": 1,
        "edits": {"public": 0, "staff": 0},
    }
    # a stream that was not named is not told
    assert seen["known"][str(third)]["staff"] is None
    again = sync(agent, {int(item): told for item, told in seen["known"].items()})
    assert (again["messages"], again["edits"], again["more"]) == ([], [], False)
    assert again["known"] == seen["known"]


def test_edits_are_caught_up_with(agent: Agent, visitor: Visitor) -> None:
    conversation_id = visitor.conversation("one")
    for body in ("two", "three"):
        visitor.send(conversation_id, body)
    agent.send(conversation_id, "note", kind="note")
    seen = sync(agent, {conversation_id: {"public": 2, "staff": 1}})
    known = {conversation_id: {**seen["known"][str(conversation_id)], "public": 2}}
    edit_own(visitor, conversation_id, 1, "ONE")
    edit_own(visitor, conversation_id, 1, "One")
    delete_own(visitor, conversation_id, 2)
    edit_own(visitor, conversation_id, 3, "THREE")
    agent.patch(staff_path(conversation_id, 1, "staff"), {"body": "NOTE"})
    seen = sync(agent, known)
    # each once, as it is now; what comes anew is not told twice
    assert [item["body"] for item in seen["edits"]] == ["One", "", "NOTE"]
    assert [item["body"] for item in seen["messages"]] == ["THREE"]
    assert seen["known"][str(conversation_id)]["edits"] == {"public": 4, "staff": 1}
    again = sync(agent, {conversation_id: seen["known"][str(conversation_id)]})
    assert (again["messages"], again["edits"]) == ([], [])


def test_a_visitor_catches_up_and_sees_no_note(
    agent: Agent, visitor: Visitor, new_visitor: MakeVisitor
) -> None:
    stranger = new_visitor()
    foreign = stranger.conversation()
    conversation_id = visitor.conversation("one")
    agent.send(conversation_id, "secret", kind="note")
    agent.send(conversation_id, "two")
    agent.patch(staff_path(conversation_id, 1, "staff"), {"body": "more secret"})
    seen = sync(visitor, {conversation_id: {"seq": 0, "edits": 0}, foreign: 0})
    assert places(seen["messages"]) == [
        (conversation_id, "public", 1),
        (conversation_id, "public", 2),
    ]
    assert "secret" not in str(seen)
    assert seen["gone"] == [foreign]
    # nothing tells that there is a note, nor that it was edited
    assert seen["known"] == {str(conversation_id): {"seq": 2, "edits": 0}}
    edit_own(visitor, conversation_id, 1, "ONE")
    again = sync(visitor, {conversation_id: seen["known"][str(conversation_id)]})
    assert [item["body"] for item in again["edits"]] == ["ONE"]
    assert again["conversations"][0]["last_edit"] == 1


def test_a_visitor_hears_of_a_conversation_that_another_tab_opened(visitor: Visitor) -> None:
    assert sync(visitor, {})["new"] == []
    conversation_id = visitor.conversation("from the other tab")
    seen = sync(visitor, {})
    assert [row["id"] for row in seen["new"]] == [conversation_id]
    assert sync(visitor, {conversation_id: 0})["new"] == []


def test_what_the_caller_may_not_see_is_gone(agent: Agent, visitor: Visitor) -> None:
    conversation_id = visitor.conversation()
    seen = sync(agent, {conversation_id: 1, 999_999_999: 5})
    assert seen["gone"] == [999_999_999]
    assert [row["id"] for row in seen["conversations"]] == [conversation_id]


def test_the_view_tells_what_is_not_known(agent: Agent, new_visitor: MakeVisitor) -> None:
    old = new_visitor().conversation("known")
    since = agent.get(f"/conversations/{old}").json()["updated_at"]
    fresh = [new_visitor().conversation(f"new {number}") for number in range(3)]
    for more in ({}, {"since": since}):
        seen = sync(agent, {old: 1}, view="all", **more)
        new = [row["id"] for row in seen["new"]]
        assert new[:3] == fresh[::-1]
        assert old not in new
        known = {old: 1, **dict.fromkeys(fresh, 1)}
        rest = sync(agent, known, view="all", **more)
        assert not set(fresh) & {row["id"] for row in rest["new"]}
    assert rest["new"] == []
    agent.post(f"/conversations/{fresh[0]}/claim")
    assert fresh[0] in [row["id"] for row in sync(agent, {}, view="mine")["new"]]
    unassigned = sync(agent, {}, view="unassigned", since=since)["new"]
    assert fresh[0] not in [row["id"] for row in unassigned]
    assert fresh[1] in [row["id"] for row in unassigned]


def test_a_long_absence_is_caught_up_with_in_parts(agent: Agent, new_visitor: MakeVisitor) -> None:
    quiet = new_visitor()
    quiet_id = quiet.conversation("1")
    quiet.send(quiet_id, "2")
    loud: list[int] = []
    for _ in range(4):
        visitor = new_visitor()
        loud.append(visitor.conversation("1"))
        for number in range(2, 131):
            assert visitor.send(loud[-1], str(number)).status_code == 201
    known: dict[int, Any] = dict.fromkeys([quiet_id, *loud], 0)
    got: list[tuple[int, str, int]] = []
    rounds = 0
    while True:
        seen = sync(agent, known)
        assert len(seen["messages"]) <= 500
        got += places(seen["messages"])
        rounds += 1
        # the one that was silent is not kept waiting
        assert (quiet_id, "public", 2) in got
        if not seen["more"]:
            break
        known = {int(item): told for item, told in seen["known"].items()}
    assert rounds == 2
    assert len(got) == len(set(got))
    assert set(got) == {(quiet_id, "public", 1), (quiet_id, "public", 2)} | {
        (item, "public", number) for item in loud for number in range(1, 131)
    }


def test_a_number_beyond_the_last_is_put_right(agent: Agent, visitor: Visitor) -> None:
    conversation_id = visitor.conversation()
    known = {"public": 99, "edits": {"public": 99, "staff": 99}}
    seen = sync(agent, {conversation_id: known})
    assert seen["messages"] == []
    assert seen["known"][str(conversation_id)]["public"] == 1
    assert seen["known"][str(conversation_id)]["edits"] == {"public": 0, "staff": 0}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"known": []},
        {"known": {"x": 1}},
        {"known": {"0": 1}},
        {"known": {"1": -1}},
        {"known": {"1": {"public": 2**31}}},
        {"known": {str(number): 0 for number in range(1, 202)}},
        {"known": {}, "view": "everything"},
        {"known": {}, "view": "all", "since": "yesterday"},
        {"known": {}, "view": "all", "since": "2026-01-01T00:00:00"},
    ],
)
def test_what_cannot_be_known_is_refused(agent: Agent, body: Any) -> None:
    assert_problem(agent.post("/sync", body), 422, "invalid_request")


def test_only_those_who_are_known_may_ask(agent: Agent, visitor: Visitor) -> None:
    base = str(agent.http.base_url).rstrip("/")
    for path in ("/api/v1/sync", "/api/v1/widget/sync"):
        assert_problem(httpx.post(base + path, json={"known": {}}), 401, "not_authenticated")
    answer = visitor.http.post("/api/v1/sync", json={"known": {}})
    assert_problem(answer, 401, "not_authenticated")
    answer = agent.http.post("/api/v1/sync", json={"known": {}})
    assert_problem(answer, 403, "csrf_failed")
