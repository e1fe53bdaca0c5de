"""What staff and visitors do to a conversation, and what its timeline tells of it."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.api.conftest import Agent, Visitor, assert_problem

MakeVisitor = Callable[..., Visitor]


def act(agent: Agent, conversation_id: int, verb: str, body: Any = None) -> dict[str, Any]:
    """Carry out an act that must succeed; gives the conversation."""
    answer = agent.post(f"/conversations/{conversation_id}/{verb}", body)
    assert answer.status_code == 200, answer.text
    conversation: dict[str, Any] = answer.json()
    return conversation


def events(agent: Agent, conversation_id: int) -> list[dict[str, Any]]:
    """What happened, from the staff stream: the type and its data, without the doer."""
    page = agent.messages(conversation_id, stream="staff", limit=200, known_seq=2**30)
    found = []
    for message in page["items"]:
        if message["kind"] == "event":
            assert message["sender_type"] == "system"
            assert message["sender"] is None
            assert message["body"]
            found.append({k: v for k, v in message["event"].items() if k != "by"})
    return found


def in_an_hour() -> str:
    return (datetime.now(UTC) + timedelta(hours=1)).isoformat()


def test_claim_release_and_assign(agent: Agent, second_agent: Agent, visitor: Visitor) -> None:
    conversation_id = visitor.conversation()
    taken = act(agent, conversation_id, "claim")
    assert taken["assignee"]["id"] == agent.user["id"]
    assert act(agent, conversation_id, "claim")["version"] == taken["version"]

    path = f"/conversations/{conversation_id}"
    refused = assert_problem(
        second_agent.post(f"{path}/release"), 409, "conversation_already_claimed"
    )
    assert refused["holder"]["name"] == agent.user["name"]
    released = act(agent, conversation_id, "release")
    assert released["assignee"] is None
    assert act(second_agent, conversation_id, "release")["version"] == released["version"]

    given = act(agent, conversation_id, "assign", {"user_id": second_agent.user["id"]})
    assert given["assignee"]["name"] == second_agent.user["name"]
    again = act(agent, conversation_id, "assign", {"user_id": second_agent.user["id"]})
    assert again["version"] == given["version"]
    assert events(agent, conversation_id) == [
        {"type": "claimed"},
        {"type": "released"},
        {
            "type": "assigned",
            "to": {
                "type": "agent",
                "id": second_agent.user["id"],
                "name": second_agent.user["name"],
            },
        },
    ]


def test_only_somebody_who_can_take_it_is_given_it(agent: Agent, visitor: Visitor) -> None:
    path = f"/conversations/{visitor.conversation()}"
    for verb in ("assign", "transfer"):
        answer = agent.post(f"{path}/{verb}", {"user_id": 2**50})
        problem = assert_problem(answer, 422, "invalid_request")
        assert problem["errors"][0]["field"] == "user_id"
    answer = agent.post(f"{path}/transfer", {"team_id": 2**50})
    assert assert_problem(answer, 422, "invalid_request")["errors"][0]["field"] == "team_id"
    for body in ({}, {"user_id": 1, "team_id": 1}):
        assert_problem(agent.post(f"{path}/transfer", body), 422, "invalid_request")
    assert agent.get(path).json()["version"] == 1


def test_transfer_with_a_note(agent: Agent, second_agent: Agent, visitor: Visitor) -> None:
    conversation_id = visitor.conversation()
    act(agent, conversation_id, "claim")
    body = {"user_id": second_agent.user["id"], "note": "wants a refund 退款"}
    path = f"/conversations/{conversation_id}/transfer"
    assert_problem(
        second_agent.post(path, body),
        409,
        "conversation_already_claimed",
    )
    moved = act(agent, conversation_id, "transfer", body)
    assert moved["assignee"]["id"] == second_agent.user["id"]
    # a retry finds its work done: no second note
    assert act(agent, conversation_id, "transfer", body)["version"] == moved["version"]
    staff = agent.messages(conversation_id, stream="staff", known_seq=3)["items"]
    assert [m["kind"] for m in staff] == ["event", "event", "note"]
    assert staff[2]["body"] == "wants a refund 退款"
    assert staff[2]["sender"]["id"] == agent.user["id"]
    assert [m["seq"] for m in staff] == [1, 2, 3]


def test_the_states_and_back(agent: Agent, visitor: Visitor) -> None:
    conversation_id = visitor.conversation()
    until = in_an_hour()
    asleep = act(agent, conversation_id, "snooze", {"until": until})
    assert asleep["status"] == "snoozed"
    assert asleep["snoozed_until"] == until.replace("+00:00", "Z")
    assert act(agent, conversation_id, "snooze", {"until": until})["version"] == asleep["version"]
    assert asleep["waiting_since"] is not None

    done = act(agent, conversation_id, "resolve")
    assert (done["status"], done["snoozed_until"], done["waiting_since"]) == (
        "resolved",
        None,
        None,
    )
    assert done["resolved_at"] is not None
    assert act(agent, conversation_id, "resolve")["version"] == done["version"]
    path = f"/conversations/{conversation_id}"
    refused = assert_problem(agent.post(f"{path}/snooze", {"until": until}), 409, "conflict")
    assert refused["conversation"] == {
        "id": conversation_id,
        "status": "resolved",
        "assignee": None,
        "version": done["version"],
    }

    opened = act(agent, conversation_id, "reopen")
    assert (opened["status"], opened["resolved_at"]) == ("open", None)
    # nobody has answered: the visitor has waited on
    assert opened["waiting_since"] == asleep["waiting_since"]
    assert act(agent, conversation_id, "reopen")["version"] == opened["version"]
    kinds = [event["type"] for event in events(agent, conversation_id)]
    assert kinds == ["snoozed", "resolved", "reopened"]


@pytest.mark.parametrize(
    "until",
    [
        "2020-01-01T00:00:00Z",
        "2999-01-01T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2999-01-01T00:00:00",
        "0001-01-01T00:00:00+14:00",
        "tomorrow",
        7,
        None,
    ],
)
def test_a_snooze_needs_a_time_that_comes(agent: Agent, visitor: Visitor, until: Any) -> None:
    path = f"/conversations/{visitor.conversation()}"
    answer = agent.post(f"{path}/snooze", {"until": until})
    problem = assert_problem(answer, 422, "invalid_request")
    assert problem["errors"][0]["field"] == "until"
    assert agent.get(path).json()["status"] == "open"


@pytest.mark.parametrize("verb", ["snooze", "resolve"])
def test_the_visitor_wakes_it_by_writing(agent: Agent, visitor: Visitor, verb: str) -> None:
    conversation_id = visitor.conversation()
    agent.send(conversation_id, "done?")
    body = {"until": in_an_hour()} if verb == "snooze" else None
    asleep = act(agent, conversation_id, verb, body)
    assert asleep["waiting_since"] is None
    assert visitor.send(conversation_id, "one more thing").status_code == 201
    awake = agent.get(f"/conversations/{conversation_id}").json()
    assert (awake["status"], awake["snoozed_until"], awake["resolved_at"]) == ("open", None, None)
    assert awake["waiting_since"] is not None
    assert events(agent, conversation_id)[-1]["type"] == "reopened"
    assert awake["last_seq"] == {"public": 3, "staff": 2}


def test_a_snoozed_conversation_wakes_by_itself(agent: Agent, visitor: Visitor) -> None:
    conversation_id = visitor.conversation()
    until = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    act(agent, conversation_id, "snooze", {"until": until})
    path = f"/conversations/{conversation_id}"
    give_up_at = time.monotonic() + 30
    while agent.get(path).json()["status"] != "open" and time.monotonic() < give_up_at:
        time.sleep(0.25)
    awake = agent.get(path).json()
    assert (awake["status"], awake["snoozed_until"]) == ("open", None)
    assert [event["type"] for event in events(agent, conversation_id)] == ["snoozed", "woke"]


def test_undo_with_the_version_that_was_answered(
    agent: Agent, second_agent: Agent, visitor: Visitor
) -> None:
    conversation_id = visitor.conversation()
    done = act(agent, conversation_id, "resolve")
    undone = act(agent, conversation_id, "reopen", {"version": done["version"]})
    assert undone["status"] == "open"

    done = act(agent, conversation_id, "resolve")
    act(second_agent, conversation_id, "claim")
    path = f"/conversations/{conversation_id}/reopen"
    problem = assert_problem(agent.post(path, {"version": done["version"]}), 409, "conflict")
    assert problem["conversation"]["assignee"]["id"] == second_agent.user["id"]
    # an act that finds its work done is no conflict, whatever the version
    act(agent, conversation_id, "resolve", {"version": 0})
    body = {"version": done["version"]}
    assert_problem(
        agent.post(f"/conversations/{visitor.conversation()}/claim", body | {"version": 77}),
        409,
        "conflict",
    )


def test_acts_at_once_leave_one_story(
    agent: Agent, second_agent: Agent, new_visitor: MakeVisitor
) -> None:
    """However the acts interleave, the timeline has no hole and its last word is the state."""
    for _ in range(3):
        conversation_id = new_visitor().conversation()
        barrier = threading.Barrier(6)

        def go(
            work: tuple[Agent, str],
            conversation_id: int = conversation_id,
            barrier: threading.Barrier = barrier,
        ) -> int:
            barrier.wait(10)
            return work[0].post(f"/conversations/{conversation_id}/{work[1]}").status_code

        works = [
            (a, verb) for a in (agent, second_agent) for verb in ("claim", "resolve", "reopen")
        ]
        with ThreadPoolExecutor(6) as threads:
            codes = list(threads.map(go, works))
        assert set(codes) <= {200, 409}
        seen = agent.get(f"/conversations/{conversation_id}").json()
        told = events(agent, conversation_id)
        assert [e["type"] for e in told].count("claimed") == 1
        assert seen["last_seq"]["staff"] == len(told)
        assert seen["version"] == 1 + len(told)
        status = [e["type"] for e in told if e["type"] in ("resolved", "reopened")]
        assert status == ["resolved", "reopened"] * (len(status) // 2) + ["resolved"] * (
            len(status) % 2
        )
        assert seen["status"] == ("resolved" if len(status) % 2 else "open")


def test_priority_and_its_filter(agent: Agent, visitor: Visitor) -> None:
    conversation_id = visitor.conversation()
    assert agent.get(f"/conversations/{conversation_id}").json()["priority"] == "normal"
    changed = agent.patch(f"/conversations/{conversation_id}", {"priority": "urgent"})
    assert changed.json()["priority"] == "urgent"
    assert (
        agent.patch(f"/conversations/{conversation_id}", {"priority": "urgent"}).json()
        == changed.json()
    )
    listed = agent.get("/conversations", priority="urgent", visitor=visitor.id).json()["items"]
    assert [item["id"] for item in listed] == [conversation_id]
    assert agent.get("/conversations", priority="low", visitor=visitor.id).json()["items"] == []
    assert events(agent, conversation_id) == [
        {"type": "priority_changed", "from": "normal", "to": "urgent"}
    ]
    assert_problem(
        agent.patch(f"/conversations/{conversation_id}", {"priority": "3"}), 422, "invalid_request"
    )
    assert_problem(agent.patch(f"/conversations/{conversation_id}", {}), 422, "invalid_request")


def test_labels_and_their_filter(agent: Agent, visitor: Visitor) -> None:
    conversation_id = visitor.conversation()
    path = f"/conversations/{conversation_id}/labels"
    labels = []
    for name in ("b-refund", "a-vip"):
        made = agent.post("/labels", {"name": f"{name}-{uuid.uuid4().hex[:8]}", "color": "#aa0000"})
        assert made.status_code == 201, made.text
        labels.append(made.json())
    ids = [label["id"] for label in labels]
    labelled = agent.put(path, {"label_ids": ids}).json()
    assert [label["id"] for label in labelled["labels"]] == [ids[1], ids[0]]
    assert agent.put(path, {"label_ids": [*ids, ids[0]]}).json()["version"] == labelled["version"]
    listed = agent.get("/conversations", label=ids[0]).json()["items"]
    assert [item["id"] for item in listed] == [conversation_id]
    assert listed[0]["labels"] == labelled["labels"]
    fewer = agent.put(path, {"label_ids": [ids[1]]}).json()
    assert [label["id"] for label in fewer["labels"]] == [ids[1]]
    assert events(agent, conversation_id) == [
        {
            "type": "labels_changed",
            "added": sorted(label["name"] for label in labels),
            "removed": [],
        },
        {"type": "labels_changed", "added": [], "removed": [labels[0]["name"]]},
    ]
    problem = assert_problem(agent.put(path, {"label_ids": [2**50]}), 422, "invalid_request")
    assert problem["errors"][0]["field"] == "label_ids"
    assert_problem(agent.put(path, {"label_ids": list(range(1, 60))}), 422, "invalid_request")
    assert agent.get(f"/conversations/{conversation_id}").json()["labels"] == fewer["labels"]


def test_who_holds_or_writes_takes_part(
    agent: Agent, second_agent: Agent, visitor: Visitor
) -> None:
    conversation_id = visitor.conversation()
    path = f"/conversations/{conversation_id}/participants"

    def ids() -> list[int]:
        return [item["user"]["id"] for item in agent.get(path).json()["items"]]

    mine, other = agent.user["id"], second_agent.user["id"]
    assert ids() == []
    second_agent.send(conversation_id, "a note", kind="note")
    assert ids() == [other]
    act(agent, conversation_id, "claim")
    assert sorted(ids()) == sorted([mine, other])
    detail = agent.get(f"/conversations/{conversation_id}").json()
    assert detail["participants"] == agent.get(path).json()["items"]

    assert agent.delete(f"{path}/{other}").status_code == 200
    assert agent.delete(f"{path}/{other}").status_code == 200
    assert ids() == [mine]
    assert_problem(agent.delete(f"{path}/{mine}"), 409, "conflict")
    assert agent.put(f"{path}/{other}", None).status_code == 200
    assert agent.put(f"{path}/{other}", None).status_code == 200
    assert sorted(ids()) == sorted([mine, other])
    assert_problem(agent.put(f"{path}/{2**50}", None), 422, "invalid_request")
    kinds = [event["type"] for event in events(agent, conversation_id)]
    assert kinds == ["claimed", "participant_removed", "participant_added"]


def test_the_longest_waiting_first(agent: Agent, new_visitor: MakeVisitor) -> None:
    visitors = [new_visitor() for _ in range(4)]
    ids = [visitor.conversation() for visitor in visitors]
    visitors[0].send(ids[0], "hello?")
    agent.send(ids[1], "answered")
    listed: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = agent.get(
            "/conversations", sort="waiting", status="open", limit=200, **cursor
        ).json()
        listed += page["items"]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    since = [item["waiting_since"] for item in listed]
    assert None not in since
    assert since == sorted(since)
    # more words do not put it further back, an answer takes it out
    assert [item["id"] for item in listed if item["id"] in ids] == [ids[0], ids[2], ids[3]]


def test_the_pages_of_the_waiting_list_meet(agent: Agent, new_visitor: MakeVisitor) -> None:
    visitor = new_visitor()
    visitor.conversation()
    one = agent.get("/conversations", sort="waiting", limit=1).json()
    assert len(one["items"]) == 1
    if one["next_cursor"] is not None:
        two = agent.get("/conversations", sort="waiting", limit=1, cursor=one["next_cursor"]).json()
        assert two["items"][0]["id"] != one["items"][0]["id"]
        wrong = agent.get("/conversations", cursor=one["next_cursor"])
        assert_problem(wrong, 422, "invalid_request")


def test_the_place_in_the_queue(agent: Agent, new_visitor: MakeVisitor) -> None:
    first, second = new_visitor(), new_visitor()
    before, after = first.conversation(), second.conversation()

    def position(visitor: Visitor, conversation_id: int) -> int | None:
        answer = visitor.get(f"/conversations/{conversation_id}")
        assert answer.status_code == 200, answer.text
        place: int | None = answer.json()["queue_position"]
        return place

    one, two = position(first, before), position(second, after)
    assert one is not None
    assert two is not None
    assert 1 <= one <= two
    if two <= 100:
        assert two - one >= 1
    act(agent, before, "claim")
    assert position(first, before) is None
    if two <= 100:
        assert position(second, after) == two - 1
    agent.send(after, "one moment")
    assert position(second, after) is None


def test_the_visitors_own_list_shows_nothing_of_the_staff(
    agent: Agent, new_visitor: MakeVisitor
) -> None:
    visitor, other = new_visitor(), new_visitor()
    first = visitor.conversation("first")
    act(agent, first, "resolve")
    second = visitor.conversation("second")
    agent.patch(f"/conversations/{second}", {"priority": "urgent"})
    assert second != first
    page = visitor.get("/conversations").json()
    assert [item["id"] for item in page["items"]] == [second, first]
    assert page["items"][1]["last_message"]["body"] == "first"
    for item in page["items"]:
        assert not {"priority", "labels", "team", "participants", "version"} & set(item)
    one = visitor.get("/conversations", limit=1).json()
    two = visitor.get("/conversations", limit=1, cursor=one["next_cursor"]).json()
    assert [item["id"] for item in one["items"] + two["items"]] == [second, first]
    assert two["next_cursor"] is None
    assert other.get("/conversations").json()["items"] == []
    assert_problem(other.get(f"/conversations/{first}"), 404, "not_found")


def test_the_visitor_ends_and_rates(
    agent: Agent, visitor: Visitor, new_visitor: MakeVisitor
) -> None:
    conversation_id = visitor.conversation()
    path = f"/conversations/{conversation_id}"
    other = new_visitor()
    assert_problem(other.post(f"{path}/end"), 404, "not_found")
    assert_problem(other.post(f"{path}/rating", {"score": 1}), 404, "not_found")
    early = assert_problem(visitor.post(f"{path}/rating", {"score": 5}), 409, "conflict")
    assert early["conversation"]["status"] == "open"

    ended = visitor.post(f"{path}/end")
    assert ended.status_code == 200, ended.text
    assert (ended.json()["status"], ended.json()["rating"]) == ("resolved", None)
    assert visitor.post(f"{path}/end").json() == ended.json()
    rated = visitor.post(f"{path}/rating", {"score": 4, "comment": "很好 👍"}).json()
    assert rated["rating"]["score"] == 4
    assert visitor.post(f"{path}/rating", {"score": 4, "comment": "很好 👍"}).json() == rated
    changed = visitor.post(f"{path}/rating", {"score": 5}).json()
    assert changed["rating"] == {"score": 5, "comment": None, "at": rated["rating"]["at"]}
    assert agent.get(path).json()["csat"] == changed["rating"]
    assert events(agent, conversation_id) == [
        {"type": "ended"},
        {"type": "rated", "score": 4},
        {"type": "rated", "score": 5},
    ]
    for body in (
        {"score": 0},
        {"score": 6},
        {"score": "5"},
        {},
        {"score": 3, "comment": "x" * 2001},
    ):
        assert_problem(visitor.post(f"{path}/rating", body), 422, "invalid_request")
    assert agent.get(path).json()["csat"] == changed["rating"]


@pytest.mark.parametrize(
    ("method", "verb", "body"),
    [
        ("POST", "release", None),
        ("POST", "assign", {"user_id": 1}),
        ("POST", "transfer", {"user_id": 1}),
        ("POST", "snooze", {"until": "2999-01-01T00:00:00Z"}),
        ("POST", "resolve", None),
        ("POST", "reopen", None),
        ("PUT", "labels", {"label_ids": []}),
        ("PATCH", "", {"priority": "low"}),
        ("GET", "participants", None),
        ("PUT", "participants/1", None),
        ("DELETE", "participants/1", None),
    ],
)
def test_acts_on_what_does_not_exist(agent: Agent, method: str, verb: str, body: Any) -> None:
    path = f"/api/v1/conversations/999999999999/{verb}".rstrip("/")
    if verb == "snooze":
        body = {"until": in_an_hour()}
    answer = agent.http.request(method, path, json=body, headers=agent.csrf)
    assert_problem(answer, 404, "not_found")


def test_an_act_without_the_csrf_token_changes_nothing(agent: Agent, visitor: Visitor) -> None:
    conversation_id = visitor.conversation()
    path = f"/conversations/{conversation_id}"
    assert_problem(agent.http.post(f"/api/v1{path}/resolve"), 403, "csrf_failed")
    assert agent.get(path).json()["status"] == "open"
