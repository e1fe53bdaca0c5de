"""A real web process on a real primary and replica: late, stopped, killed, hanging."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.api.conftest import Agent, Visitor
from tests.mysql.conftest import Web
from tools.private_mysql import Servers

# the servers are started within the first test
pytestmark = pytest.mark.timeout(300)

SEND_ANSWER_SECONDS = 2.0


def seqs(page: dict[str, Any]) -> list[int]:
    return [item["seq"] for item in page["items"]]


def until(condition: Any, seconds: float = 20.0) -> None:
    """Wait until ``condition()`` is true."""
    give_up_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up_at, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture
def agent(web: Web) -> Iterator[Agent]:
    logged_in = Agent(web.deskline, web.deskline.email)
    yield logged_in
    logged_in.http.close()


@pytest.fixture
def visitor(web: Web) -> Iterator[Visitor]:
    made = Visitor(web.deskline)
    yield made
    made.http.close()


@contextmanager
def delayed_replica(mysql: Servers, seconds: int) -> Iterator[None]:
    mysql.replicate(delay_seconds=seconds)
    try:
        yield
    finally:
        mysql.replicate()
        mysql.catch_up()


def test_a_reader_never_goes_back_although_the_replica_is_five_seconds_late(
    web: Web, mysql: Servers, agent: Agent, visitor: Visitor
) -> None:
    conversation = visitor.conversation("first")
    mysql.catch_up()
    assert seqs(agent.messages(conversation, known_seq=1)) == [1]
    assert web.metric("deskline_history_reads_total", target="replica", why="ok") == 1
    with delayed_replica(mysql, 5):
        for number in range(2, 5):
            sent = visitor.send(conversation, f"message {number}")
            assert sent.status_code == 201
            answer = visitor.get(
                f"/conversations/{conversation}/messages", known_seq=sent.json()["seq"]
            )
            assert seqs(answer.json()) == list(range(1, number + 1))
            assert answer.headers["X-Deskline-Read"] == "primary"
            after = agent.messages(conversation, after_seq=number - 1, known_seq=number)
            assert seqs(after) == [number]
        behind = web.metric("deskline_history_reads_total", target="primary", why="behind")
        assert behind == 6
        # who knows less may be served by the replica: that is no step back
        old = agent.get(f"/conversations/{conversation}/messages", known_seq=1)
        assert old.headers["X-Deskline-Read"] == "replica"
    again = agent.get(f"/conversations/{conversation}/messages", known_seq=4)
    assert (seqs(again.json()), again.headers["X-Deskline-Read"]) == ([1, 2, 3, 4], "replica")


def test_who_knows_of_an_edit_never_sees_the_text_before_it(
    web: Web, mysql: Servers, agent: Agent, visitor: Visitor
) -> None:
    conversation = visitor.conversation("regret this")
    mysql.catch_up()
    path = f"/conversations/{conversation}/messages"
    with delayed_replica(mysql, 5):
        visitor.http.delete(f"/api/v1/widget{path}/1").raise_for_status()
        for query in ({}, {"before_seq": 2}, {"after_seq": 0}):
            page = visitor.get(path, known_seq=1, after_edit=1, **query)
            assert page.headers["X-Deskline-Read"] == "primary"
            assert [item["body"] for item in page.json()["items"]] == [""]
        # who asks for the edits gets the page as they left it, wherever it was read
        page = visitor.get(path, after_seq=0, known_seq=1, after_edit=0)
        assert page.headers["X-Deskline-Read"] == "replica"
        assert [item["body"] for item in page.json()["items"]] == [""]
        assert (page.json()["edits"], page.json()["last_edit"]) == ([], 1)
    page = agent.get(path, known_seq=1, after_edit=1)
    assert page.headers["X-Deskline-Read"] == "replica"
    assert [item["body"] for item in page.json()["items"]] == [""]


def test_a_stopped_replica_is_left_alone_and_told_in_a_metric(
    web: Web, mysql: Servers, agent: Agent, visitor: Visitor
) -> None:
    assert mysql.replica is not None
    conversation = visitor.conversation()
    mysql.catch_up()
    mysql.replica.stop()
    try:
        for _ in range(5):
            answer = agent.get(f"/conversations/{conversation}/messages", known_seq=1)
            assert answer.status_code == 200
            assert answer.headers["X-Deskline-Read"] == "primary"
        reads = "deskline_history_reads_total"
        assert web.metric(reads, target="primary", why="failed") == 1
        assert web.metric(reads, target="primary", why="suspect") == 4
    finally:
        mysql.replica.start()
    until(
        lambda: (
            agent.get(f"/conversations/{conversation}/messages", known_seq=1).headers[
                "X-Deskline-Read"
            ]
            == "replica"
        )
    )


def timed(call: Any, *arguments: Any, **options: Any) -> tuple[httpx.Response, float]:
    started = time.monotonic()
    answer: httpx.Response = call(*arguments, **options)
    return answer, time.monotonic() - started


@pytest.mark.parametrize("how", ["killed", "hanging"])
def test_without_the_primary_sends_are_refused_in_time_and_reads_go_on(
    web: Web, mysql: Servers, agent: Agent, visitor: Visitor, how: str
) -> None:
    conversation = visitor.conversation("before")
    mysql.catch_up()
    (mysql.primary.kill if how == "killed" else mysql.primary.pause)()
    repeated = str(uuid.uuid4())
    try:
        for number in range(4):
            for sender in (visitor, agent):
                client_id = repeated if number == 0 and sender is visitor else str(uuid.uuid4())
                sent, seconds = timed(sender.send, conversation, "during", client_id=client_id)
                assert sent.status_code == 503, sent.text
                assert sent.json()["code"] == "service_unavailable"
                assert int(sent.headers["Retry-After"]) >= 1
                assert seconds < SEND_ANSWER_SECONDS
            read, seconds = timed(agent.get, f"/conversations/{conversation}/messages", known_seq=1)
            assert (read.status_code, read.headers["X-Deskline-Read"]) == (200, "replica")
            assert seqs(read.json()) == [1]
            assert seconds < SEND_ANSWER_SECONDS
            read, seconds = timed(visitor.get, f"/conversations/{conversation}/messages")
            assert (read.status_code, seqs(read.json())) == (200, [1])
            assert seconds < SEND_ANSWER_SECONDS
        assert web.metric("deskline_primary_away") == 1
        assert web.metric("deskline_login_replica_reads_total") >= 1
        for path in ("/me", "/conversations", f"/conversations/{conversation}", "/labels"):
            shown, seconds = timed(agent.get, path)
            assert shown.status_code == 200, shown.text
            assert seconds < SEND_ANSWER_SECONDS
        assert httpx.get(f"{web.url}/readyz", timeout=10).status_code == 503
    finally:
        if how == "killed":
            mysql.primary.start()
        else:
            mysql.primary.resume()
    until(lambda: visitor.send(conversation, "after", client_id=repeated).status_code in {200, 201})
    stored = agent.messages(conversation, known_seq=2)
    mine = [item for item in stored["items"] if item["client_id"] == repeated]
    assert len(mine) == 1
    assert seqs(stored) == list(range(1, len(stored["items"]) + 1))
    until(lambda: web.metric("deskline_primary_away") == 0)


def test_a_revoked_session_is_refused_at_once_by_every_web_process(
    web: Web, mysql: Servers, agent: Agent
) -> None:
    """Also while the replica still holds it."""
    with delayed_replica(mysql, 5):
        other = httpx.Client(base_url=web.url, cookies=agent.http.cookies)
        assert other.get("/api/v1/me").status_code == 200
        assert agent.post("/auth/logout").status_code == 204
        assert other.get("/api/v1/me").status_code == 401
        other.close()


def test_what_was_acknowledged_is_stored_when_the_primary_is_killed_under_load(
    web: Web, mysql: Servers, visitor: Visitor
) -> None:
    """kill -9 of mysqld again and again; every sender repeats until it is told."""
    conversations = [Visitor(web.deskline).conversation() for _ in range(4)]
    senders = 24
    acknowledged: list[dict[str, Any]] = []
    stop = threading.Event()
    failures: list[str] = []

    def send(number: int) -> None:
        conversation = conversations[number % len(conversations)]
        with httpx.Client(base_url=web.url, timeout=20, cookies=cookies, headers=csrf) as http:
            while not stop.is_set():
                message = {"client_id": str(uuid.uuid4()), "body": f"from {number}"}
                while True:
                    path = f"/api/v1/conversations/{conversation}/messages"
                    answer = http.post(path, json=message)
                    if answer.status_code in {200, 201}:
                        acknowledged.append(answer.json())
                        break
                    if answer.status_code != 503:
                        failures.append(answer.text)
                        return
                    time.sleep(0.1)

    agent = Agent(web.deskline, web.deskline.email)
    cookies, csrf = agent.http.cookies, agent.csrf
    threads = [threading.Thread(target=send, args=(number,)) for number in range(senders)]
    for thread in threads:
        thread.start()
    for _ in range(4):
        time.sleep(1.0)
        mysql.primary.kill()
        time.sleep(0.3)
        mysql.primary.start()
    time.sleep(1.0)
    stop.set()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert failures == []
    assert len(acknowledged) > 100

    rows = mysql.primary.sql(
        "SELECT conversation_id, seq, client_id, body FROM deskline.messages"
        " WHERE stream = 0 AND conversation_id IN (%s, %s, %s, %s) ORDER BY conversation_id, seq",
        *conversations,
    )
    stored = {(row["conversation_id"], row["client_id"]): row for row in rows}
    assert len(stored) == len(rows)
    for message in acknowledged:
        row = stored[message["conversation_id"], message["client_id"]]
        assert (row["seq"], row["body"]) == (message["seq"], message["body"])
    for conversation in conversations:
        mine = [row["seq"] for row in rows if row["conversation_id"] == conversation]
        assert mine == list(range(1, len(mine) + 1))
    assert len(stored) == len(acknowledged) + len(conversations)
    agent.http.close()
    mysql.catch_up()
