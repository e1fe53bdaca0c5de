"""Search over messages and visitors."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from tests.api.conftest import Agent, Visitor, assert_problem

FOUND_WITHIN_SECONDS = 10.0


def word() -> str:
    """A word that no other test uses."""
    return f"w{uuid.uuid4().hex}"


def search(agent: Agent, q: str, **params: Any) -> dict[str, Any]:
    answer = agent.get("/search", q=q, **params)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def found(agent: Agent, q: str, count: int = 1, **params: Any) -> list[dict[str, Any]]:
    """The hits, once there are ``count`` of them: the worker copies new messages within seconds."""
    give_up_at = time.monotonic() + FOUND_WITHIN_SECONDS
    while True:
        items: list[dict[str, Any]] = search(agent, q, **params)["items"]
        if len(items) == count:
            return items
        assert time.monotonic() < give_up_at, items
        time.sleep(0.1)


def marked(snippet: dict[str, Any]) -> list[str]:
    units = snippet["text"].encode("utf-16-le")
    return [units[2 * a : 2 * b].decode("utf-16-le") for a, b in snippet["highlights"]]


@pytest.mark.parametrize(
    ("body", "query"),
    [
        ("Where is my {w} parcel?", "{w}"),
        ("Where is my {w} parcel?", "PARCEL {w}"),
        ("{w} 訂單什麼時候到", "什麼時候 {w}"),
        ("{w} 訂單什麼時候到", "時候 {w}"),
        ("{w} 訂單什麼時候到", "{w} 到"),
        ("{w} naïve 😀🎉 emoji", "{w} 😀"),
        ("{w} -50% (today) a*b", "{w} -50% (today) a*b"),
        ('{w} "quoted" it\'s a\\b', '{w} "quoted" it\'s a\\b'),
        ("{w} zzaiazz", "{w} aia"),
        ("{w} ann@example.com", "{w} ann@example.com"),
    ],
)
def test_messages_are_found_in_chinese_and_english(
    agent: Agent, visitor: Visitor, body: str, query: str
) -> None:
    unique = word()
    conversation_id = visitor.conversation(body.format(w=unique))
    (hit,) = found(agent, query.format(w=unique))
    assert hit["type"] == "message"
    assert hit["conversation"]["id"] == conversation_id
    assert hit["conversation"]["visitor"]["id"] == visitor.id
    assert (hit["stream"], hit["seq"], hit["sender_type"]) == ("public", 1, "visitor")
    assert hit["snippet"]["text"] == body.format(w=unique)
    wanted = {part.lower() for part in query.format(w=unique).split()}
    assert {piece.lower() for piece in marked(hit["snippet"])} == wanted


@pytest.mark.parametrize("operator", ["-{w}", "{w}*", "NOT {w}", "{w} OR nothing", "~{w}", ">{w}"])
def test_operators_mean_nothing(agent: Agent, visitor: Visitor, operator: str) -> None:
    unique = word()
    visitor.conversation(f"plain {unique} text")
    found(agent, unique)
    assert search(agent, operator.format(w=unique))["items"] == []


def test_all_parts_must_occur(agent: Agent, visitor: Visitor) -> None:
    one, other = word(), word()
    conversation_id = visitor.conversation(f"{one} {other}")
    visitor.send(conversation_id, one)
    assert [hit["seq"] for hit in found(agent, one, 2)] == [2, 1]
    assert [hit["seq"] for hit in search(agent, f"{other} {one}")["items"]] == [1]


def test_notes_and_answers_are_found_by_staff(agent: Agent, visitor: Visitor) -> None:
    unique = word()
    conversation_id = visitor.conversation("hello")
    agent.send(conversation_id, f"a note {unique}", kind="note")
    agent.send(conversation_id, f"an answer {unique}")
    hits = found(agent, unique, 2)
    assert {(hit["stream"], hit["kind"]) for hit in hits} == {("staff", "note"), ("public", "text")}
    assert {hit["sender"]["name"] for hit in hits} == {agent.user["name"]}


def test_pages_are_newest_first_and_complete(agent: Agent, visitor: Visitor) -> None:
    unique = word()
    conversation_id = visitor.conversation(f"{unique} 0")
    for number in range(1, 7):
        visitor.send(conversation_id, f"{unique} {number}")
    found(agent, unique, 7)
    seen: list[int] = []
    cursor = None
    while True:
        page = search(agent, unique, limit=3, **({"cursor": cursor} if cursor else {}))
        seen += [hit["seq"] for hit in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
        # what is sent meanwhile does not move the pages
        visitor.send(conversation_id, "something else")
    assert seen == [7, 6, 5, 4, 3, 2, 1]


def test_a_long_text_is_cut_around_the_hit(agent: Agent, visitor: Visitor) -> None:
    unique = word()
    visitor.conversation("前" * 300 + "\n" + unique + " 😀 " + "後" * 300)
    (hit,) = found(agent, unique)
    text = hit["snippet"]["text"]
    assert text.startswith("…")
    assert text.endswith("…")
    assert len(text) < 250
    assert marked(hit["snippet"]) == [unique]


def test_visitors_are_found(agent: Agent, new_visitor: Callable[..., Visitor]) -> None:
    visitor = new_visitor()
    conversation_id = visitor.conversation("hello")
    name = visitor.session["visitor"]["name"]
    give_up_at = time.monotonic() + FOUND_WITHIN_SECONDS
    mine: dict[str, Any] | None = None
    while mine is None:
        hits = search(agent, name, type="visitors", limit=50)["items"]
        mine = next((hit for hit in hits if hit["visitor"]["id"] == visitor.id), None)
        assert mine or time.monotonic() < give_up_at
    assert mine["type"] == "visitor"
    assert mine["conversation_id"] == conversation_id
    assert mine["field"] == "name"
    assert marked(mine["snippet"])[0] == name.split()[0]


def test_one_inbox_only(agent: Agent, visitor: Visitor) -> None:
    unique = word()
    visitor.conversation(unique)
    (hit,) = found(agent, unique)
    inbox_id = hit["conversation"]["inbox"]["id"]
    assert len(search(agent, unique, inbox=inbox_id)["items"]) == 1
    assert search(agent, unique, inbox=inbox_id + 10_000_000)["items"] == []


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"q": ""},
        {"q": "   "},
        {"q": "x" * 201},
        {"q": "a\x00b"},
        {"q": "ab", "type": "other"},
        {"q": "ab", "limit": 0},
        {"q": "ab", "cursor": "no-cursor"},
        {"q": "ab", "inbox": 0},
    ],
)
def test_bad_queries(agent: Agent, params: dict[str, Any]) -> None:
    assert_problem(agent.get("/search", **params), 422, "invalid_request")


def test_visitors_may_not_search(visitor: Visitor) -> None:
    assert_problem(visitor.http.get("/api/v1/search", params={"q": "x"}), 401, "not_authenticated")


@pytest.mark.parametrize(
    ("field", "value", "query"),
    [
        ("name", "王小明 {w}", "王小 {w}"),
        ("email", "{w}@example.com", "{w}@EXAMPLE"),
        ("phone", "+886 2 {w}", "{w}"),
        ("attributes", {"plan": "企業 {w}"}, "企業 {w}"),
    ],
)
def test_visitors_are_found_by_what_is_known_of_them(
    agent: Agent, visitor: Visitor, field: str, value: Any, query: str
) -> None:
    unique = word()[:20]
    known = (
        {name: text.format(w=unique) for name, text in value.items()}
        if isinstance(value, dict)
        else value.format(w=unique)
    )
    changed = agent.patch(f"/visitors/{visitor.id}", {field: known})
    assert changed.status_code == 200, changed.text
    (hit,) = found(agent, query.format(w=unique), type="visitors")
    assert (hit["visitor"]["id"], hit["field"]) == (visitor.id, field)
    assert unique in hit["snippet"]["text"]
    assert unique in " ".join(marked(hit["snippet"]))
    assert search(agent, query.format(w=unique))["items"][0]["type"] == "visitor"
