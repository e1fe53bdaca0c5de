"""Pages of other sites: what an inbox allows them, and nothing else."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.api.conftest import Agent, Visitor, assert_problem
from tests.conftest import Deskline

SHOP = "https://shop.example"
STRANGER = "https://stranger.example"
# what nodes remember of the origins
PATIENCE_SECONDS = 8.0


@pytest.fixture(scope="module")
def shop(deskline: Deskline, agent: Agent) -> Iterator[dict[str, Any]]:
    """An inbox that allows the shop's pages."""
    body = {"name": f"Shop {uuid.uuid4()}", "allowed_origins": [SHOP]}
    answer = agent.post("/inboxes", body)
    assert answer.status_code == 201, answer.text
    inbox: dict[str, Any] = answer.json()
    yield inbox
    agent.post(f"/inboxes/{inbox['id']}/archive")


def open_session(deskline: Deskline, key: str, origin: str | None) -> httpx.Response:
    headers = {"Origin": origin} if origin is not None else {}
    return httpx.post(
        f"{deskline.url}/api/v1/widget/session",
        json={"inbox_key": key},
        headers=headers,
        timeout=20,
    )


def preflight(deskline: Deskline, path: str, origin: str) -> httpx.Response:
    return httpx.options(
        f"{deskline.url}{path}",
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
        },
        timeout=20,
    )


def read(deskline: Deskline, token: str, origin: str) -> httpx.Response:
    return httpx.get(
        f"{deskline.url}/api/v1/widget/conversations/0/messages",
        headers={"Authorization": f"Bearer {token}", "Origin": origin},
        timeout=20,
    )


def allowed(answer: httpx.Response) -> str | None:
    assert "Access-Control-Allow-Credentials" not in answer.headers
    assert "Origin" in answer.headers["Vary"]
    return answer.headers.get("Access-Control-Allow-Origin")


def test_a_page_that_the_inbox_allows_opens_a_session(
    deskline: Deskline, shop: dict[str, Any]
) -> None:
    answer = open_session(deskline, shop["key"], SHOP)
    assert answer.status_code == 200, answer.text
    assert allowed(answer) == SHOP
    assert "Retry-After" in answer.headers["Access-Control-Expose-Headers"]


@pytest.mark.parametrize(
    "origin", [STRANGER, "null", "http://shop.example", f"{SHOP}:8443", f"{SHOP}.evil.example"]
)
def test_a_page_that_it_does_not_allow_opens_none(
    deskline: Deskline, shop: dict[str, Any], origin: str
) -> None:
    answer = open_session(deskline, shop["key"], origin)
    assert_problem(answer, 403, "origin_not_allowed")
    assert allowed(answer) is None


def test_an_inbox_without_a_list_allows_no_other_site(deskline: Deskline) -> None:
    for origin in (SHOP, STRANGER):
        answer = open_session(deskline, deskline.inbox_key, origin)
        assert_problem(answer, 403, "origin_not_allowed")


def test_the_widgets_own_frame_and_programs_need_no_list(
    deskline: Deskline, shop: dict[str, Any]
) -> None:
    for key in (deskline.inbox_key, shop["key"]):
        for origin in (deskline.url, None):
            answer = open_session(deskline, key, origin)
            assert answer.status_code == 200, answer.text
            assert allowed(answer) is None


def test_preflights_are_answered_for_what_any_inbox_allows(
    deskline: Deskline, shop: dict[str, Any]
) -> None:
    for path in (
        "/api/v1/widget/session",
        "/api/v1/widget/conversations/1/messages",
        "/broadcasting/auth",
    ):
        answer = preflight(deskline, path, SHOP)
        assert answer.status_code == 204, answer.text
        assert allowed(answer) == SHOP
        assert "POST" in answer.headers["Access-Control-Allow-Methods"]
        named = answer.headers["Access-Control-Allow-Headers"].lower()
        assert {"authorization", "content-type"} <= set(named.split(", "))
        refused = preflight(deskline, path, STRANGER)
        assert_problem(refused, 403, "origin_not_allowed")
        assert allowed(refused) is None


@pytest.mark.parametrize("path", ["/api/v1/auth/login", "/api/v1/me", "/api/v1/conversations"])
def test_the_staffs_calls_are_for_no_other_site(
    deskline: Deskline, shop: dict[str, Any], path: str
) -> None:
    answer = preflight(deskline, path, SHOP)
    assert answer.status_code == 405
    assert "Access-Control-Allow-Origin" not in answer.headers
    answer = httpx.get(f"{deskline.url}{path}", headers={"Origin": SHOP}, timeout=20)
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_an_answer_is_for_pages_that_the_callers_own_inbox_allows(
    deskline: Deskline, shop: dict[str, Any], visitor: Visitor
) -> None:
    ours = open_session(deskline, shop["key"], SHOP).json()["visitor_token"]
    theirs = visitor.session["visitor_token"]
    assert allowed(read(deskline, ours, SHOP)) == SHOP
    assert allowed(read(deskline, ours, STRANGER)) is None
    # the demo's inbox does not allow the shop, although another one does
    assert allowed(read(deskline, theirs, SHOP)) is None
    assert read(deskline, theirs, SHOP).status_code == 404


def test_a_page_may_read_why_it_must_open_a_new_session(
    deskline: Deskline, shop: dict[str, Any]
) -> None:
    answer = read(deskline, "forged.token.here", SHOP)
    assert_problem(answer, 401, "not_authenticated")
    assert allowed(answer) == SHOP
    assert allowed(read(deskline, "forged.token.here", STRANGER)) is None


def test_an_origin_that_is_taken_off_the_list_is_refused(deskline: Deskline, agent: Agent) -> None:
    origin = f"https://shop-{uuid.uuid4()}.example"
    made = agent.post("/inboxes", {"name": f"Shop {uuid.uuid4()}", "allowed_origins": [origin]})
    inbox = made.json()
    token = open_session(deskline, inbox["key"], origin).json()["visitor_token"]
    eventually(lambda: allowed(read(deskline, token, origin)) == origin)
    assert agent.patch(f"/inboxes/{inbox['id']}", {"allowed_origins": []}).status_code == 200
    assert_problem(open_session(deskline, inbox["key"], origin), 403, "origin_not_allowed")
    eventually(lambda: allowed(read(deskline, token, origin)) is None)
    eventually(lambda: preflight(deskline, "/broadcasting/auth", origin).status_code == 403)
    agent.post(f"/inboxes/{inbox['id']}/archive")


def eventually(check: Any) -> None:
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while not check():
        assert time.monotonic() < give_up_at
        time.sleep(0.2)


def test_the_channels_of_a_visitor_are_signed_for_allowed_pages(
    deskline: Deskline, shop: dict[str, Any]
) -> None:
    opened = open_session(deskline, shop["key"], SHOP).json()
    form = {"socket_id": "1.2", "channel_name": f"private-visitor.{opened['visitor']['id']}"}
    for origin, expected in ((SHOP, SHOP), (STRANGER, None)):
        answer = httpx.post(
            f"{deskline.url}/broadcasting/auth",
            data=form,
            headers={"Authorization": f"Bearer {opened['visitor_token']}", "Origin": origin},
            timeout=20,
        )
        assert answer.status_code == 200, answer.text
        assert allowed(answer) == expected
