"""Every bad input gets a problem document with a stable code, and changes nothing."""

from __future__ import annotations

import re
import sqlite3
import uuid
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from app.db import late
from app.worker import search as worker_search
from tests.api.conftest import Agent, Visitor, assert_problem
from tests.conftest import Deskline

TEN_MEGABYTES = 10 * 1024 * 1024
JSON = {"Content-Type": "application/json"}
# what moves by itself or with every request: the worker's bookkeeping and the callers' own traces
MOVING = frozenset({"sessions", "job_fences", "search_marks", "outbox", "alembic_version"})
WORKERS_OWN = (late.HEARTBEAT, worker_search.STATE)


@pytest.fixture(scope="module")
def document(deskline: Deskline) -> dict[str, Any]:
    loaded: dict[str, Any] = httpx.get(f"{deskline.url}/openapi.json").json()
    return loaded


def content(deskline: Deskline, agent: Agent, conversation_id: int) -> Any:
    """What must not change: the rows of every table, or what staff see of the conversation."""
    if deskline.data_dir is None:
        shown = agent.get(f"/conversations/{conversation_id}").json()
        history = agent.messages(conversation_id, known_seq=shown["last_seq"]["public"])
        return shown["version"], history["items"]
    connection = sqlite3.connect(f"file:{deskline.data_dir}/deskline.db?mode=ro", uri=True)
    try:
        names = [
            name
            for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            if name not in MOVING and not name.startswith(("sqlite_", "message_search"))
        ]
        counts = {
            name: connection.execute(f'SELECT COUNT(*) FROM "{name}"').fetchone()[0]  # noqa: S608
            for name in names
        }
        # the worker notes its own progress there
        counts["app_settings"] -= connection.execute(
            "SELECT COUNT(*) FROM app_settings WHERE name IN (?, ?)", WORKERS_OWN
        ).fetchone()[0]
        messages = connection.execute(
            "SELECT * FROM messages WHERE conversation_id = ? ORDER BY stream, seq",
            (conversation_id,),
        ).fetchall()
    finally:
        connection.close()
    return counts, messages


def with_body(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Method, path and operation of every call that takes a JSON body."""
    return [
        (method.upper(), path, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if "application/json" in operation.get("requestBody", {}).get("content", {})
    ]


def filled(path: str) -> str:
    """PATH with ids that are well formed."""
    return re.sub(r"\{(\w+)\}", lambda m: "1" if m[1].endswith("_id") else "x", path)


Send = Callable[..., httpx.Response]


@pytest.fixture
def send(deskline: Deskline, agent: Agent, visitor: Visitor) -> Send:
    """Sends raw bytes as whoever may make the call."""

    def call(
        method: str,
        path: str,
        operation: dict[str, Any],
        body: bytes,
        headers: dict[str, str],
    ) -> httpx.Response:
        ways = {name for way in operation["security"] for name in way}
        who: httpx.Client = visitor.http if ways == {"visitor"} else agent.http
        sent = {**headers, **(agent.csrf if who is agent.http else {})}
        return who.request(method, filled(path), content=body, headers=sent)

    return call


BAD_BODIES: list[tuple[str, bytes, dict[str, str], set[int]]] = [
    ("no JSON", b"{", JSON, {400}),
    ("nothing", b"", JSON, {400}),
    ("an array", b"[]", JSON, {422}),
    ("a text", b'"x"', JSON, {422}),
    ("null", b"null", JSON, {422}),
    ("invalid UTF-8", b'{"body": "\xff\xfe", "name": "\xff"}', JSON, {400}),
    ("a lone surrogate", b'{"body": "\\ud800", "name": "\\ud800", "seq": "\\ud800"}', JSON, {400}),
    ("a form", b"body=hello", {"Content-Type": "application/x-www-form-urlencoded"}, {400}),
    ("plain text", b'{"body": "x"}', {"Content-Type": "text/plain"}, {400}),
    ("no content type", b'{"body": "x"}', {}, {400}),
    ("deep nesting", b'{"body": ' + b"[" * 5000 + b"]" * 5000 + b"}", JSON, {400, 422}),
]


@pytest.mark.parametrize(("what", "body", "headers", "statuses"), BAD_BODIES)
def test_no_call_accepts_a_body_that_is_not_what_it_describes(  # noqa: PLR0917  fixtures
    document: dict[str, Any],
    deskline: Deskline,
    agent: Agent,
    visitor: Visitor,
    send: Send,
    what: str,
    body: bytes,
    headers: dict[str, str],
    statuses: set[int],
) -> None:
    conversation_id = visitor.conversation()
    calls = with_body(document)
    assert len(calls) >= 10
    before = content(deskline, agent, conversation_id)
    for method, path, operation in calls:
        if not body and not operation["requestBody"]["required"]:
            continue  # it may be left out
        answer = send(method, path, operation, body, headers)
        where = f"{method} {path}: {what}: {answer.status_code} {answer.text[:200]}"
        assert answer.status_code in statuses, where
        assert answer.headers["Content-Type"] == "application/problem+json", where
        document_ = answer.json()
        assert document_["code"] in {"malformed_request", "invalid_request"}, where
        assert str(answer.status_code) in operation["responses"], where
    assert content(deskline, agent, conversation_id) == before


def test_a_body_of_ten_megabytes_is_refused_by_every_call(
    document: dict[str, Any], deskline: Deskline, agent: Agent, visitor: Visitor, send: Send
) -> None:
    conversation_id = visitor.conversation()
    before = content(deskline, agent, conversation_id)
    body = b'{"body": "' + b"x" * TEN_MEGABYTES + b'"}'
    for method, path, operation in with_body(document)[:6]:
        answer = send(method, path, operation, body, JSON)
        assert answer.status_code == 413, (method, path, answer.status_code)
        if deskline.data_dir is not None:  # Nginx answers with a page of its own
            assert_problem(answer, 413, "payload_too_large")
    assert content(deskline, agent, conversation_id) == before


BAD_MESSAGES: list[tuple[str, dict[str, Any], str]] = [
    ("empty", {"body": ""}, "invalid_request"),
    ("missing", {}, "invalid_request"),
    ("blank", {"body": " \n\t "}, "invalid_request"),
    ("too long", {"body": "x" * 10_001}, "message_too_long"),
    ("too long in 4-byte code points", {"body": "\U0001f600" * 10_001}, "message_too_long"),
    ("a number", {"body": 7}, "invalid_request"),
    ("a list", {"body": ["x"]}, "invalid_request"),
    ("null", {"body": None}, "invalid_request"),
    ("NUL", {"body": "a\x00b"}, "invalid_request"),
    ("a client_id that is no UUID", {"client_id": "1", "body": "x"}, "invalid_request"),
    ("a client_id that is a number", {"client_id": 1, "body": "x"}, "invalid_request"),
    ("an unknown kind", {"body": "x", "kind": "event"}, "invalid_request"),
]


@pytest.mark.parametrize(("what", "body", "code"), BAD_MESSAGES)
def test_a_bad_message_is_refused_and_not_stored(  # noqa: PLR0917  fixtures
    deskline: Deskline,
    agent: Agent,
    visitor: Visitor,
    what: str,
    body: dict[str, Any],
    code: str,
) -> None:
    conversation_id = visitor.conversation()
    before = content(deskline, agent, conversation_id)
    message = {"client_id": str(uuid.uuid4()), **body}
    path = f"/conversations/{conversation_id}/messages"
    assert_problem(agent.post(path, message), 422, code)
    if "kind" not in body:  # a visitor has no kinds to choose from
        assert_problem(visitor.post(path, message), 422, code)
        assert_problem(visitor.post("/conversations", message), 422, code)
    assert content(deskline, agent, conversation_id) == before, what


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("read", {"seq": "1"}),
        ("read", {"seq": True}),
        ("read", {"seq": 1.0}),
        ("claim", {"version": "1"}),
        ("assign", {"user_id": "1"}),
    ],
)
def test_a_number_in_quotes_and_a_truth_value_are_no_number(
    agent: Agent, visitor: Visitor, path: str, body: dict[str, Any]
) -> None:
    answer = agent.post(f"/conversations/{visitor.conversation()}/{path}", body)
    assert_problem(answer, 422, "invalid_request")


@pytest.mark.parametrize(
    "body",
    [
        "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 family",
        "e\u0301 and \u00e9, Z\u0351\u036b\u0343\u036a\u0302",
        "\u202eright to left\u202c \u2066isolated\u2069",
        "\U00020bb7\u91ce\u5bb6 \U0001f1f9\U0001f1fc \U0010ffff",
        "\u7e41\u9ad4\u4e2d\u6587\uff0c\u5b8c\u6574\u652f\u63f4",
        "<script>alert('1')</script> &amp; %s {0} \\ ' \" ; --",
        "x" * 10_000,
        "\U0001f600" * 10_000,
    ],
)
def test_every_other_text_comes_back_as_it_was(agent: Agent, visitor: Visitor, body: str) -> None:
    conversation_id = visitor.conversation(body)
    assert agent.send(conversation_id, body).status_code == 201
    items = agent.messages(conversation_id, known_seq=2)["items"]
    assert [item["body"] for item in items] == [body, body]


def test_a_name_is_cut_of_blanks_and_has_no_control_characters(agent: Agent) -> None:
    for name in ("", "   ", "a\nb", "a\x00b", "a\x1bb", "x" * 101):
        answer = agent.post("/teams", {"name": name})
        assert_problem(answer, 422, "invalid_request")


@pytest.mark.parametrize(
    "token",
    ["x", "dk_nothing", "a.b.c", "W10.aaaa.bbbb", "\u00e9".encode().decode("latin-1"), "x" * 5000],
)
def test_a_forged_visitor_token_is_refused(deskline: Deskline, token: str) -> None:
    headers = {b"Authorization": b"Bearer " + token.encode("latin-1")}
    answer = httpx.get(
        f"{deskline.url}/api/v1/widget/conversations/1/messages", headers=headers, timeout=20
    )
    assert_problem(answer, 401, "not_authenticated")


def test_a_changed_visitor_token_is_refused(deskline: Deskline, visitor: Visitor) -> None:
    token = visitor.session["visitor_token"]
    conversation_id = visitor.conversation()
    for position in (0, len(token) // 2, len(token) - 2):
        changed = "A" if token[position] != "A" else "B"
        forged = token[:position] + changed + token[position + 1 :]
        answer = httpx.get(
            f"{deskline.url}/api/v1/widget/conversations/{conversation_id}/messages",
            headers={"Authorization": f"Bearer {forged}"},
            timeout=20,
        )
        assert_problem(answer, 401, "not_authenticated")


def test_a_cookie_that_is_replayed_after_logout_is_refused(deskline: Deskline) -> None:
    leaver = Agent(deskline, deskline.second_email)
    cookies = dict(leaver.http.cookies)
    assert leaver.get("/me").status_code == 200
    assert leaver.post("/auth/logout").status_code == 204
    replayed = httpx.get(f"{deskline.url}/api/v1/me", cookies=cookies, timeout=20)
    assert_problem(replayed, 401, "not_authenticated")
    leaver.http.close()


@pytest.mark.parametrize("conversation_id", ["0", "-1", "1.5", "abc", "9" * 30, "%00", "1%20"])
def test_an_id_that_is_none_is_not_found(
    agent: Agent, visitor: Visitor, conversation_id: str
) -> None:
    answer = agent.get(f"/conversations/{conversation_id}")
    if conversation_id == "%00" and answer.headers.get("Server", "").startswith("nginx"):
        assert answer.status_code == 400  # Nginx takes no address with a NUL
        return
    assert_problem(answer, 404, "not_found")
    # a call that would change nothing for a person who is not there
    path = f"/conversations/{visitor.conversation()}/participants/{conversation_id}"
    assert_problem(agent.delete(path), 404, "not_found")


@pytest.mark.parametrize("moment", ["0.5", "1795500000", "yesterday", "2026-13-01"])
def test_a_moment_is_written_out(agent: Agent, moment: str) -> None:
    for path, query in (
        ("/audit", {"since": moment}),
        ("/reports/volume", {"from": moment, "to": "2026-11-23"}),
    ):
        assert_problem(agent.get(path, **query), 422, "invalid_request")


@pytest.mark.parametrize(
    "query",
    [
        {"status": ""},
        {"limit": ""},
        {"limit": "0"},
        {"limit": "x"},
        {"limit": "99999999999999999999"},
        {"cursor": "nonsense"},
        {"cursor": "\U0001f600"},
        {"cursor": "W10"},
        {"status": "gone"},
        {"view": "theirs"},
        {"inbox": "-1"},
    ],
)
def test_a_bad_query_names_its_field(agent: Agent, query: dict[str, str]) -> None:
    problem = assert_problem(agent.get("/conversations", **query), 422, "invalid_request")
    assert [entry["field"] for entry in problem["errors"]] == list(query)
