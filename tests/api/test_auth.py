"""Login, sessions, CSRF, throttling."""

from __future__ import annotations

import uuid

import httpx
import pytest

from tests.api.conftest import Agent, Visitor, assert_problem
from tests.conftest import Deskline


def unique_email() -> str:
    return f"nobody-{uuid.uuid4()}@example.com"


def test_login_gives_the_user_and_a_cookie_that_scripts_cannot_read(deskline: Deskline) -> None:
    answer = httpx.post(
        f"{deskline.url}/api/v1/auth/login",
        json={"email": f"  {deskline.email.upper()} ", "password": deskline.password},
    )
    assert answer.status_code == 200
    assert answer.json()["user"]["email"] == deskline.email
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith("deskline_session=")
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert ("Secure" in cookie) == deskline.url.startswith("https")


def test_me_gives_what_the_dashboard_needs(agent: Agent, deskline: Deskline) -> None:
    me = agent.get("/me").json()
    assert me["user"] == agent.user
    assert me["csrf_token"] == agent.csrf["X-CSRF-Token"]
    assert {"id", "name"} == set(me["inboxes"][0])
    realtime = me["realtime"]
    assert realtime["key"]
    assert realtime["authEndpoint"] == "/broadcasting/auth"
    assert realtime["forceTLS"] == deskline.url.startswith("https")
    assert isinstance(realtime["wsPort"], int)


@pytest.mark.parametrize("email", ["known", "unknown"])
def test_a_wrong_password_and_an_unknown_address_answer_alike(
    deskline: Deskline, email: str
) -> None:
    address = deskline.second_email if email == "known" else unique_email()
    answer = httpx.post(
        f"{deskline.url}/api/v1/auth/login", json={"email": address, "password": "wrong-wrong"}
    )
    assert_problem(answer, 401, "invalid_credentials")


def test_logout_ends_the_session(deskline: Deskline) -> None:
    leaving = Agent(deskline, deskline.second_email)
    cookie = leaving.http.cookies["deskline_session"]
    answer = leaving.post("/auth/logout")
    assert answer.status_code == 204
    again = httpx.get(f"{deskline.url}/api/v1/me", cookies={"deskline_session": cookie})
    assert_problem(again, 401, "not_authenticated")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/me"),
        ("GET", "/api/v1/conversations"),
        ("POST", "/api/v1/conversations/1/claim"),
        ("POST", "/api/v1/auth/logout"),
        ("GET", "/api/v1/widget/conversations/1/messages"),
        ("POST", "/api/v1/widget/conversations"),
    ],
)
@pytest.mark.parametrize(
    "credentials",
    [{}, {"Cookie": "deskline_session=forged"}, {"Authorization": "Bearer forged.token.here"}],
)
def test_without_a_valid_session_or_token_the_answer_is_401(
    deskline: Deskline, method: str, path: str, credentials: dict[str, str]
) -> None:
    answer = httpx.request(method, f"{deskline.url}{path}", headers=credentials, json={})
    assert_problem(answer, 401, "not_authenticated")
    assert "Bearer" in answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize("token", [None, "", "wrong", "é"])
def test_an_unsafe_call_needs_the_csrf_token(
    agent: Agent, visitor: Visitor, token: str | None
) -> None:
    conversation_id = visitor.conversation()
    headers = {} if token is None else {"X-CSRF-Token": token.encode()}
    answer = agent.http.post(
        f"/api/v1/conversations/{conversation_id}/claim",
        headers=headers,  # type: ignore[arg-type]
    )
    assert_problem(answer, 403, "csrf_failed")
    assert agent.get(f"/conversations/{conversation_id}").json()["assignee"] is None


def test_the_csrf_token_of_another_session_does_not_help(
    agent: Agent, second_agent: Agent, visitor: Visitor
) -> None:
    answer = agent.http.post(
        f"/api/v1/conversations/{visitor.conversation()}/claim", headers=second_agent.csrf
    )
    assert_problem(answer, 403, "csrf_failed")


def test_a_form_of_another_site_cannot_log_in(deskline: Deskline) -> None:
    answer = httpx.post(
        f"{deskline.url}/api/v1/auth/login",
        content=f'{{"email":"{deskline.email}","password":"{deskline.password}"}}',
        headers={"Content-Type": "text/plain"},
    )
    assert_problem(answer, 400, "malformed_request")


@pytest.mark.parametrize("wrong", [b"\xff\xfe", b"\xed\xa0\x80", b"\xc3\x28x", "é".encode()])
@pytest.mark.parametrize(
    ("header", "before"),
    [
        ("Cookie", b"deskline_session="),
        ("Authorization", b"Bearer "),
        ("Authorization", b"Bearer dk_"),
        ("X-CSRF-Token", b""),
        ("Origin", b""),
        ("X-Request-ID", b""),
        ("X-Forwarded-For", b""),
    ],
)
def test_headers_that_are_no_text_are_no_credentials(
    deskline: Deskline, agent: Agent, header: str, before: bytes, wrong: bytes
) -> None:
    headers = {header.encode(): before + wrong}
    for path in ("/api/v1/presence", "/api/v1/widget/sync"):
        answer = httpx.post(f"{deskline.url}{path}", headers=headers, json={}, timeout=20)
        assert_problem(answer, 401, "not_authenticated")
    if not before:
        answer = agent.http.post("/api/v1/presence", headers=headers)
        assert_problem(answer, 403, "csrf_failed")
