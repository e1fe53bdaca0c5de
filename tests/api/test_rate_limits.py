"""Rate limits as a client meets them: a server with low limits of its own."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

import httpx
import pytest

from tests.api.conftest import Agent, Visitor, assert_problem
from tests.conftest import Deskline, embedded_deskline

WINDOW_SECONDS = 10


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deskline]:
    """Six sends and three openings of the widget in a window from one address."""
    with embedded_deskline(
        tmp_path_factory.mktemp("strict"), RATE_LIMIT_SENDS="36", RATE_LIMIT_SESSIONS="18"
    ) as running:
        yield running


@pytest.fixture(autouse=True)
def at_the_start_of_a_window() -> None:
    """So that a test does not count across the border of two windows."""
    left = WINDOW_SECONDS - time.time() % WINDOW_SECONDS
    if left < WINDOW_SECONDS - 1:
        time.sleep(left + 0.05)


def test_too_many_requests_are_refused_with_the_time_to_wait(strict: Deskline) -> None:
    visitor = Visitor(strict)
    conversation_id = visitor.conversation()
    codes = [visitor.send(conversation_id, f"message {n}").status_code for n in range(5)]
    assert codes == [201] * 5
    client_id = str(uuid.uuid4())
    refused = visitor.send(conversation_id, "one too many", client_id)
    assert_problem(refused, 429, "rate_limited")
    wait_seconds = int(refused.headers["Retry-After"])
    assert 1 <= wait_seconds <= WINDOW_SECONDS
    # other kinds of calls are not concerned
    assert visitor.get(f"/conversations/{conversation_id}/messages").status_code == 200
    # the agent comes from the same address
    agent = Agent(strict, strict.email)
    assert_problem(agent.send(conversation_id, "mine too"), 429, "rate_limited")
    # nothing was stored, and after the time that was named the same message is taken
    time.sleep(wait_seconds)
    assert visitor.send(conversation_id, "one too many", client_id).status_code == 201
    assert len(agent.messages(conversation_id)["items"]) == 7


def test_calls_without_credentials_are_limited_and_forged_addresses_do_not_help(
    strict: Deskline,
) -> None:
    body = {"inbox_key": strict.inbox_key}
    with httpx.Client(base_url=strict.url) as http:
        codes = [http.post("/api/v1/widget/session", json=body).status_code for _ in range(4)]
        forged = http.post(
            "/api/v1/widget/session", json=body, headers={"X-Forwarded-For": "203.0.113.9"}
        )
    assert codes == [200, 200, 200, 429]
    assert_problem(forged, 429, "rate_limited")


def test_refusals_are_counted(strict: Deskline) -> None:
    metrics = httpx.get(f"{strict.url}/metrics").text
    assert 'deskline_rate_limited_total{scope="address",traffic="sends"}' in metrics


def test_the_usual_limits_let_many_clients_of_one_address_work(deskline: Deskline) -> None:
    """An office behind one address: thirty visitors open the widget and write at once."""
    visitors = [Visitor(deskline) for _ in range(30)]
    assert {visitor.start("hello").status_code for visitor in visitors} == {201}
    for visitor in visitors:
        visitor.http.close()
