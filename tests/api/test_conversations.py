"""A conversation between a visitor and the staff, over HTTP alone."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.api.conftest import Agent, Visitor, assert_problem
from tests.conftest import Deskline

MakeVisitor = Callable[..., Visitor]


def find(agent: Agent, conversation_id: int, **params: Any) -> dict[str, Any] | None:
    """The conversation's row in the staff list, looked for through all pages."""
    cursor = None
    while True:
        page = agent.get("/conversations", **params, **({"cursor": cursor} if cursor else {}))
        assert page.status_code == 200, page.text
        document = page.json()
        for item in document["items"]:
            if item["id"] == conversation_id:
                return dict(item)
        cursor = document["next_cursor"]
        if cursor is None:
            return None


def test_a_message_goes_there_and_an_answer_comes_back(agent: Agent, visitor: Visitor) -> None:
    started = visitor.start("Do you ship to Taiwan? 台灣 🚚")
    assert started.status_code == 201
    conversation, message = started.json()["conversation"], started.json()["message"]
    assert message["seq"] == 1
    assert message["stream"] == "public"
    assert message["sender"] == {
        "id": visitor.id,
        "name": visitor.session["visitor"]["name"],
        "avatar_url": None,
    }
    assert message["created_at"].endswith("Z")
    assert conversation["last_seq"] == 1
    assert conversation["unread"] == 0

    row = find(agent, conversation["id"])
    assert row is not None
    assert row["unread"] == 1
    assert row["last_message"] == message
    assert row["visitor"]["name"] == visitor.session["visitor"]["name"]

    answer = agent.send(conversation["id"], "Yes, we do.")
    assert answer.status_code == 201
    assert answer.json()["seq"] == 2
    assert answer.json()["sender"]["name"] == agent.user["name"]

    seen = visitor.get(f"/conversations/{conversation['id']}/messages", known_seq=2).json()
    assert [item["body"] for item in seen["items"]] == [message["body"], "Yes, we do."]
    assert seen["has_more"] is False
    assert seen["next_cursor"] is None


def test_unread_counts_move_with_the_read_mark_and_never_back(
    agent: Agent, visitor: Visitor
) -> None:
    conversation_id = visitor.conversation("one")
    for body in ("two", "three"):
        assert visitor.send(conversation_id, body).status_code == 201
    path = f"/conversations/{conversation_id}"
    assert agent.get(path).json()["unread"] == 3
    assert agent.post(f"{path}/read", {"seq": 2}).json() == {"read_seq": 2}
    assert agent.get(path).json()["unread"] == 1
    assert agent.post(f"{path}/read", {"seq": 1}).json() == {"read_seq": 2}
    assert agent.post(f"{path}/read", {"seq": 99}).json() == {"read_seq": 3}
    seen = agent.get(path).json()
    assert (seen["unread"], seen["staff_read_seq"], seen["read_seq"]["public"]) == (0, 3, 3)


def test_unread_is_each_agents_own(agent: Agent, second_agent: Agent, visitor: Visitor) -> None:
    conversation_id = visitor.conversation()
    agent.post(f"/conversations/{conversation_id}/read", {"seq": 1})
    assert agent.get(f"/conversations/{conversation_id}").json()["unread"] == 0
    assert second_agent.get(f"/conversations/{conversation_id}").json()["unread"] == 1


def test_an_own_message_moves_the_own_mark(agent: Agent, visitor: Visitor) -> None:
    conversation_id = visitor.conversation()
    agent.send(conversation_id, "answer")
    seen = agent.get(f"/conversations/{conversation_id}").json()
    assert (seen["unread"], seen["read_seq"]["public"]) == (0, 2)
    resumed = visitor.open("demo", visitor_token=visitor.session["visitor_token"])
    assert resumed["conversation"]["unread"] == 1
    assert resumed["conversation"]["staff_read_seq"] == 2
    assert visitor.post(f"/conversations/{conversation_id}/read", {"seq": 2}).json() == {
        "read_seq": 2
    }
    assert agent.get(f"/conversations/{conversation_id}").json()["visitor_read_seq"] == 2


def test_sending_twice_stores_once(agent: Agent, visitor: Visitor) -> None:
    first_id, second_id, answer_id = (str(uuid.uuid4()) for _ in range(3))
    first = visitor.start("hello", first_id)
    conversation_id = first.json()["conversation"]["id"]
    again = visitor.start("hello", first_id)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json()["message"] == first.json()["message"]
    assert again.json()["conversation"]["id"] == conversation_id

    sent = visitor.send(conversation_id, "still there?", second_id)
    resent = visitor.send(conversation_id, "still there?", second_id.upper())
    assert (sent.status_code, resent.status_code) == (201, 200)
    assert resent.json() == sent.json()

    answered = agent.send(conversation_id, "yes", client_id=answer_id)
    repeated = agent.send(conversation_id, "yes", client_id=answer_id)
    assert (answered.status_code, repeated.status_code) == (201, 200)
    assert repeated.json() == answered.json()
    page = agent.messages(conversation_id, known_seq=3)
    assert [m["seq"] for m in page["items"]] == [1, 2, 3]


def test_another_senders_client_id_is_a_conflict(agent: Agent, visitor: Visitor) -> None:
    conversation_id = visitor.conversation()
    taken = str(uuid.uuid4())
    assert agent.send(conversation_id, "secret", kind="note", client_id=taken).status_code == 201
    assert_problem(visitor.send(conversation_id, "x", taken), 409, "client_id_conflict")


def test_the_same_message_sent_at_once_is_stored_once(visitor: Visitor) -> None:
    client_id = str(uuid.uuid4())
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: visitor.start("once", client_id), range(8)))
    assert sorted(a.status_code for a in answers) == [200] * 7 + [201]
    assert len({a.json()["conversation"]["id"] for a in answers}) == 1
    assert {a.json()["message"]["seq"] for a in answers} == {1}


def test_two_first_messages_at_once_open_one_conversation(visitor: Visitor) -> None:
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda n: visitor.start(f"tab {n}"), range(6)))
    assert [a.status_code for a in answers] == [201] * 6
    assert len({a.json()["conversation"]["id"] for a in answers}) == 1
    assert sorted(a.json()["message"]["seq"] for a in answers) == [1, 2, 3, 4, 5, 6]


def test_everybody_sees_one_order_without_holes(
    agent: Agent, second_agent: Agent, visitor: Visitor
) -> None:
    conversation_id = visitor.conversation("start")
    senders = [
        lambda n: visitor.send(conversation_id, f"v{n}"),
        lambda n: agent.send(conversation_id, f"a{n}"),
        lambda n: second_agent.send(conversation_id, f"b{n}"),
        lambda n: agent.send(conversation_id, f"note{n}", kind="note"),
    ]
    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(lambda n: senders[n % 4](n), range(80)))
    assert {a.status_code for a in answers} == {201}

    public = agent.messages(conversation_id, limit=200, known_seq=61)["items"]
    notes = agent.messages(conversation_id, stream="staff", limit=200, known_seq=20)["items"]
    assert [m["seq"] for m in public] == list(range(1, 62))
    assert [m["seq"] for m in notes] == list(range(1, 21))
    assert {m["kind"] for m in notes} == {"note"}
    answered = {m["client_id"]: m["seq"] for m in (a.json() for a in answers)}
    stored = {m["client_id"]: m["seq"] for m in public + notes}
    assert all(stored[client_id] == seq for client_id, seq in answered.items())
    own = visitor.get(f"/conversations/{conversation_id}/messages", limit=200, known_seq=61)
    assert own.json()["items"] == public


def test_history_in_pages(agent: Agent, visitor: Visitor) -> None:
    conversation_id = visitor.conversation("1")
    for n in range(2, 8):
        visitor.send(conversation_id, str(n))

    def seqs(**params: Any) -> tuple[list[int], bool]:
        page = agent.messages(conversation_id, known_seq=7, **params)
        return [m["seq"] for m in page["items"]], page["has_more"]

    assert seqs() == ([1, 2, 3, 4, 5, 6, 7], False)
    assert seqs(limit=3) == ([5, 6, 7], True)
    assert seqs(before_seq=5, limit=3) == ([2, 3, 4], True)
    assert seqs(before_seq=2, limit=3) == ([1], False)
    assert seqs(after_seq=0, limit=3) == ([1, 2, 3], True)
    assert seqs(after_seq=3, limit=4) == ([4, 5, 6, 7], False)
    assert seqs(after_seq=7) == ([], False)
    assert seqs(after_seq=2, before_seq=5) == ([3, 4], False)


def test_history_says_where_it_was_read(agent: Agent, visitor: Visitor) -> None:
    conversation_id = visitor.conversation()
    path = f"/conversations/{conversation_id}/messages"
    answer = agent.get(path, known_seq=1)
    assert answer.headers["X-Deskline-Read"] in ("primary", "replica")
    assert [m["seq"] for m in answer.json()["items"]] == [1]
    ahead = agent.get(path, known_seq=1_000_000)
    assert ahead.headers["X-Deskline-Read"] == "primary"


def test_visitors_reach_their_own_conversation_only(new_visitor: MakeVisitor, agent: Agent) -> None:
    mine, other = new_visitor(), new_visitor()
    conversation_id = mine.conversation("private")
    path = f"/conversations/{conversation_id}"
    assert_problem(other.get(f"{path}/messages"), 404, "not_found")
    assert_problem(other.send(conversation_id, "let me in"), 404, "not_found")
    assert_problem(other.post(f"{path}/read", {"seq": 1}), 404, "not_found")
    assert [m["body"] for m in agent.messages(conversation_id)["items"]] == ["private"]


def test_a_visitor_token_opens_no_staff_call(visitor: Visitor) -> None:
    answer = visitor.http.get("/api/v1/conversations")
    assert_problem(answer, 401, "not_authenticated")


def test_notes_never_reach_the_visitor(agent: Agent, visitor: Visitor) -> None:
    conversation_id = visitor.conversation("hello")
    note = agent.send(conversation_id, "a difficult customer", kind="note").json()
    assert (note["stream"], note["seq"]) == ("staff", 1)
    agent.send(conversation_id, "good day")
    for params in ({}, {"stream": "staff"}, {"after_seq": 0, "stream": "staff"}):
        path = f"/conversations/{conversation_id}/messages"
        seen = visitor.get(path, known_seq=2, **params).json()
        assert [(m["seq"], m["kind"]) for m in seen["items"]] == [(1, "text"), (2, "text")]
    opened = visitor.open("demo", visitor_token=visitor.session["visitor_token"])
    assert opened["conversation"]["last_seq"] == 2
    assert agent.get(f"/conversations/{conversation_id}").json()["last_seq"] == {
        "public": 2,
        "staff": 1,
    }


def test_a_visitor_comes_back_to_the_conversation(deskline: Deskline, visitor: Visitor) -> None:
    conversation_id = visitor.conversation()
    resumed = visitor.open(deskline.inbox_key, visitor_token=visitor.session["visitor_token"])
    assert resumed["visitor"] == visitor.session["visitor"]
    assert resumed["conversation"]["id"] == conversation_id
    stranger = visitor.open(deskline.inbox_key, visitor_token="forged")
    assert stranger["visitor"]["id"] != visitor.id
    assert stranger["conversation"] is None


def test_staff_see_the_visitors_context(agent: Agent, new_visitor: MakeVisitor) -> None:
    visitor = new_visitor(
        language="zh-Hant-TW",
        page={
            "url": "https://shop.example/cart",
            "title": "Cart " * 200,
            "referrer": "javascript:alert(1)",
        },
    )
    context = agent.get(f"/conversations/{visitor.conversation()}").json()["visitor_context"]
    assert context["language"] == "zh-Hant-TW"
    assert context["browser"] == "Firefox 133, Linux"
    assert context["page"]["url"] == "https://shop.example/cart"
    assert len(context["page"]["title"]) == 300
    assert context["referrer"] is None


def test_two_agents_claim_and_one_wins(
    agent: Agent, second_agent: Agent, new_visitor: MakeVisitor
) -> None:
    for _ in range(5):
        conversation_id = new_visitor().conversation()
        barrier = threading.Barrier(2)

        def claim(
            who: Agent,
            conversation_id: int = conversation_id,
            barrier: threading.Barrier = barrier,
        ) -> Any:
            barrier.wait(10)
            return who.post(f"/conversations/{conversation_id}/claim")

        agents = [agent, second_agent]
        with ThreadPoolExecutor(2) as threads:
            answers = list(threads.map(claim, agents))
        assert sorted(a.status_code for a in answers) == [200, 409]
        winner = next(w for w, a in zip(agents, answers, strict=True) if a.status_code == 200)
        lost = next(a for a in answers if a.status_code == 409)
        problem = assert_problem(lost, 409, "conversation_already_claimed")
        assert problem["holder"]["id"] == winner.user["id"]
        assert problem["holder"]["name"] == winner.user["name"]
        seen = agent.get(f"/conversations/{conversation_id}").json()
        assert seen["assignee"]["id"] == winner.user["id"]
        assert winner.post(f"/conversations/{conversation_id}/claim").status_code == 200


def test_the_views_of_the_list(agent: Agent, second_agent: Agent, visitor: Visitor) -> None:
    conversation_id = visitor.conversation()
    inbox_id = agent.get(f"/conversations/{conversation_id}").json()["inbox"]["id"]
    assert find(agent, conversation_id, view="unassigned", status="open", inbox=inbox_id)
    assert find(agent, conversation_id, view="mine") is None
    agent.post(f"/conversations/{conversation_id}/claim")
    assert find(agent, conversation_id, view="mine", limit=1)
    assert find(second_agent, conversation_id, view="mine") is None
    assert find(agent, conversation_id, view="unassigned") is None
    assert find(agent, conversation_id, view="all", status="resolved") is None
    assert find(agent, conversation_id, inbox=2**50) is None


def test_the_list_has_the_newest_activity_first_and_no_row_twice(
    agent: Agent, new_visitor: MakeVisitor
) -> None:
    visitors = [new_visitor() for _ in range(4)]
    ids = [visitor.conversation() for visitor in visitors]
    visitors[0].send(ids[0], "again")
    listed: list[int] = []
    cursor: dict[str, str] = {}
    while len(listed) < 4:
        page = agent.get("/conversations", limit=2, **cursor).json()
        listed += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert len(listed) == len(set(listed))
    mine = [item for item in listed if item in ids]
    assert mine == [ids[0], ids[3], ids[2], ids[1]][: len(mine)]


@pytest.mark.parametrize("path", ["999999999999", "0", "-1", "abc", "9" * 30, "1.5"])
def test_a_conversation_that_does_not_exist(agent: Agent, path: str) -> None:
    assert_problem(agent.get(f"/conversations/{path}"), 404, "not_found")
    assert_problem(agent.get(f"/conversations/{path}/messages"), 404, "not_found")
    assert_problem(agent.post(f"/conversations/{path}/claim"), 404, "not_found")
    assert_problem(agent.post(f"/conversations/{path}/read", {"seq": 1}), 404, "not_found")
    message = {"client_id": str(uuid.uuid4()), "body": "x"}
    assert_problem(agent.post(f"/conversations/{path}/messages", message), 404, "not_found")


def test_an_unknown_inbox(deskline: Deskline, visitor: Visitor) -> None:
    answer = visitor.post("/session", {"inbox_key": "no-such-inbox"})
    assert_problem(answer, 404, "unknown_inbox")


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"client_id": "not-a-uuid", "body": "x"}, "invalid_request", "client_id"),
        ({"client_id": str(uuid.uuid4())}, "invalid_request", "body"),
        ({"client_id": str(uuid.uuid4()), "body": ""}, "invalid_request", "body"),
        ({"client_id": str(uuid.uuid4()), "body": 7}, "invalid_request", "body"),
        ({"client_id": str(uuid.uuid4()), "body": "a\u0000b"}, "invalid_request", "body"),
        ({"client_id": str(uuid.uuid4()), "body": "x" * 10_001}, "message_too_long", "body"),
        ({"client_id": str(uuid.uuid4()), "body": "x", "kind": "file"}, "invalid_request", "kind"),
    ],
)
def test_a_wrong_message_names_the_field(
    agent: Agent, visitor: Visitor, body: dict[str, Any], code: str, field: str
) -> None:
    answer = agent.post(f"/conversations/{visitor.conversation()}/messages", body)
    problem = assert_problem(answer, 422, code)
    assert [error["field"] for error in problem["errors"]] == [field]
    assert "x" * 100 not in answer.text


def test_the_longest_message_of_the_widest_characters(agent: Agent, visitor: Visitor) -> None:
    body = "𠜎" * 10_000
    sent = visitor.start(body)
    assert sent.status_code == 201
    conversation_id = sent.json()["conversation"]["id"]
    assert agent.messages(conversation_id, known_seq=1)["items"][0]["body"] == body


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"null", b'{"body":"\\ud800","client_id":"x"}', b"\xff\xfe"]
)
def test_a_body_that_is_no_json_object(visitor: Visitor, raw: bytes) -> None:
    answer = visitor.http.post(
        "/api/v1/widget/conversations", content=raw, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code in (400, 422), answer.text
    assert answer.json()["code"] in ("malformed_request", "invalid_request")


@pytest.mark.parametrize(
    "params",
    [
        {"cursor": "nonsense"},
        {"cursor": "MjAyNg"},
        {"limit": 0},
        {"limit": 1000},
        {"view": "theirs"},
        {"status": "closed"},
        {"inbox": "x"},
    ],
)
def test_a_wrong_query_is_named(agent: Agent, params: dict[str, Any]) -> None:
    problem = assert_problem(agent.get("/conversations", **params), 422, "invalid_request")
    assert problem["errors"][0]["field"] == next(iter(params))


def test_text_with_controls_and_markup_comes_back_as_it_was(agent: Agent, visitor: Visitor) -> None:
    body = "<script>alert(1)</script>\n\t\u0007 ' \" \\ %s :x ; -- é e\u0301 \u202e"
    conversation_id = visitor.conversation(body)
    assert agent.messages(conversation_id, known_seq=1)["items"][0]["body"] == body
