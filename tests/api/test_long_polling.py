"""Waiting for messages over plain HTTP."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.api.conftest import Agent, Visitor, assert_problem
from tests.api.test_edits import edit_own, staff_path
from tests.conftest import Deskline, embedded_deskline

MakeVisitor = Callable[..., Visitor]
PATIENCE_SECONDS = 40


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(64) as pool:
        yield pool


def poll(client: Agent | Visitor, conversation_id: int, **params: Any) -> httpx.Response:
    base = "/api/v1/widget" if isinstance(client, Visitor) else "/api/v1"
    return client.http.get(
        f"{base}/conversations/{conversation_id}/messages",
        params=params,
        timeout=PATIENCE_SECONDS,
    )


def timed(
    threads: ThreadPoolExecutor, client: Agent | Visitor, conversation_id: int, **params: Any
) -> Future[tuple[httpx.Response, float]]:
    """Poll in a thread; gives the answer and how many seconds it took."""

    def work() -> tuple[httpx.Response, float]:
        started = time.monotonic()
        answer = poll(client, conversation_id, **params)
        return answer, time.monotonic() - started

    return threads.submit(work)


def test_what_is_there_is_answered_at_once(agent: Agent, visitor: Visitor) -> None:
    conversation_id = visitor.conversation()
    started = time.monotonic()
    assert len(poll(agent, conversation_id, after_seq=0, wait=20).json()["items"]) == 1
    assert time.monotonic() - started < 5


def test_a_message_ends_the_waiting(
    agent: Agent, visitor: Visitor, threads: ThreadPoolExecutor
) -> None:
    conversation_id = visitor.conversation()
    waits = [
        timed(threads, client, conversation_id, after_seq=1, wait=20) for client in (agent, visitor)
    ]
    time.sleep(1)
    sent = agent.send(conversation_id, "here").json()
    for each in waits:
        answer, seconds = each.result()
        assert answer.json()["items"] == [sent]
        assert 0.8 < seconds < 10


def test_the_time_ends_the_waiting(agent: Agent, visitor: Visitor) -> None:
    conversation_id = visitor.conversation()
    started = time.monotonic()
    page = poll(agent, conversation_id, after_seq=1, wait=2).json()
    assert 1.9 < time.monotonic() - started < 8
    assert (page["items"], page["has_more"]) == ([], False)


def test_a_note_does_not_wake_the_visitor(
    agent: Agent, visitor: Visitor, threads: ThreadPoolExecutor
) -> None:
    conversation_id = visitor.conversation()
    public = timed(threads, visitor, conversation_id, after_seq=1, wait=3)
    staff = timed(threads, agent, conversation_id, after_seq=0, wait=20, stream="staff")
    time.sleep(0.5)
    note = agent.send(conversation_id, "psst", kind="note").json()
    answer, seconds = staff.result()
    assert answer.json()["items"] == [note]
    assert seconds < 3
    answer, seconds = public.result()
    assert answer.json()["items"] == []
    assert seconds > 2.5


def test_an_edit_ends_the_waiting_of_those_who_asked_for_edits(
    agent: Agent, visitor: Visitor, threads: ThreadPoolExecutor
) -> None:
    conversation_id = visitor.conversation("helo")
    page = poll(agent, conversation_id, after_seq=1, after_edit=0).json()
    assert (page["edits"], page["last_edit"]) == ([], 0)
    asked = timed(threads, agent, conversation_id, after_seq=1, after_edit=0, wait=20)
    not_asked = timed(threads, visitor, conversation_id, after_seq=1, wait=3)
    time.sleep(0.5)
    edited = edit_own(visitor, conversation_id, 1, "hello").json()
    answer, seconds = asked.result()
    page = answer.json()
    assert (page["items"], page["edits"], page["last_edit"]) == ([], [edited], 1)
    assert seconds < 10
    answer, _ = not_asked.result()
    assert (answer.json()["edits"], answer.json()["last_edit"]) == ([], None)
    # asked again with what was told, nothing is new
    assert poll(agent, conversation_id, after_seq=1, after_edit=1).json()["edits"] == []


def test_a_page_without_after_seq_takes_the_known_edit_and_tells_none(visitor: Visitor) -> None:
    conversation_id = visitor.conversation("helo")
    edited = edit_own(visitor, conversation_id, 1, "hello").json()
    for params in ({"after_edit": 1}, {"after_edit": 1, "before_seq": 2}, {"after_edit": 0}):
        page = poll(visitor, conversation_id, **params).json()
        assert (page["items"], page["edits"]) == ([edited], [])
        assert page["last_edit"] == params["after_edit"]


def test_edits_of_what_was_not_shown_yet_are_not_counted_as_told(visitor: Visitor) -> None:
    conversation_id = visitor.conversation("1")
    for text in ("2", "3"):
        assert visitor.send(conversation_id, text).status_code == 201
    for seq in (1, 3, 2):
        assert edit_own(visitor, conversation_id, seq, f"new {seq}").status_code == 200
    answer = poll(visitor, conversation_id, after_seq=1, after_edit=0, limit=1)
    page = answer.json()
    # a replica that is a moment late shows the old text: the new one is in the next answer's edits
    shown = ["new 2"] if answer.headers["X-Deskline-Read"] == "primary" else ["2", "new 2"]
    (item,) = page["items"]
    assert item["seq"] == 2
    assert item["body"] in shown
    assert ([item["body"] for item in page["edits"]], page["last_edit"]) == (["new 1"], 1)
    page = poll(visitor, conversation_id, after_seq=2, after_edit=1).json()
    assert [item["body"] for item in page["items"]] == ["new 3"]
    assert ([item["body"] for item in page["edits"]], page["last_edit"]) == (["new 2"], 3)


def test_a_notes_edit_is_not_counted_for_the_visitor(agent: Agent, visitor: Visitor) -> None:
    conversation_id = visitor.conversation()
    agent.send(conversation_id, "nte", kind="note")
    agent.patch(staff_path(conversation_id, 1, "staff"), {"body": "note"})
    page = poll(visitor, conversation_id, after_seq=1, after_edit=0).json()
    assert (page["edits"], page["last_edit"]) == ([], 0)
    page = poll(agent, conversation_id, after_seq=1, after_edit=0, stream="staff").json()
    assert ([item["body"] for item in page["edits"]], page["last_edit"]) == (["note"], 1)


def test_nobody_misses_a_message_between_two_polls(
    agent: Agent, visitor: Visitor, threads: ThreadPoolExecutor
) -> None:
    conversation_id, count = visitor.conversation("1"), 40

    def listen() -> list[int]:
        seen, after = [], 1
        while after < count:
            for item in poll(agent, conversation_id, after_seq=after, wait=20).json()["items"]:
                seen.append(item["seq"])
                after = item["seq"]
        return seen

    listening = threads.submit(listen)
    for number in range(2, count + 1):
        assert visitor.send(conversation_id, str(number)).status_code == 201
    assert listening.result(timeout=30) == list(range(2, count + 1))


@pytest.mark.parametrize(
    "params",
    [
        {"after_seq": 0, "wait": 26},
        {"after_seq": 0, "wait": -1},
        {"after_seq": 0, "wait": "x"},
        {"wait": 5},
        {"before_seq": 5, "wait": 5},
        {"after_seq": 1, "before_seq": 5, "wait": 5},
    ],
)
def test_waiting_needs_to_know_for_what(
    agent: Agent, visitor: Visitor, params: dict[str, Any]
) -> None:
    conversation_id = visitor.conversation()
    for client in (agent, visitor):
        assert_problem(poll(client, conversation_id, **params), 422, "invalid_request")


def test_strangers_do_not_wait(visitor: Visitor, new_visitor: MakeVisitor) -> None:
    conversation_id = visitor.conversation()
    answer = poll(new_visitor(), conversation_id, after_seq=1, wait=20)
    assert_problem(answer, 404, "not_found")


def test_one_caller_may_not_take_all_the_room(
    deskline: Deskline, visitor: Visitor, threads: ThreadPoolExecutor
) -> None:
    conversation_id = visitor.conversation()
    # each process counts for itself, and a cluster has two
    count = 30 if deskline.data_dir else 60
    waits = [timed(threads, visitor, conversation_id, after_seq=1, wait=4) for _ in range(count)]
    answers = [each.result()[0] for each in waits]
    assert sorted({answer.status_code for answer in answers}) == [200, 429]
    assert sum(answer.status_code == 200 for answer in answers) >= 20
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert_problem(refused, 429, "rate_limited")
    assert refused.headers["Retry-After"]


def gauge(deskline: Deskline, name: str) -> float:
    text = httpx.get(f"{deskline.url}/metrics").text
    line = next(line for line in text.splitlines() if line.startswith(f"{name} "))
    return float(line.split()[1])


def test_who_goes_away_leaves_nothing_behind(deskline: Deskline, visitor: Visitor) -> None:
    if deskline.data_dir is None:
        pytest.skip("the balancer does not pass /metrics on")
    conversation_id = visitor.conversation()
    parts = urlsplit(deskline.url)
    assert parts.hostname
    head = (
        f"GET /api/v1/widget/conversations/{conversation_id}/messages?after_seq=1&wait=25 "
        f"HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        f"Authorization: {visitor.http.headers['Authorization']}\r\n\r\n"
    )
    before = gauge(deskline, "deskline_long_polls")
    sockets = []
    for _ in range(5):
        sockets.append(socket.create_connection((parts.hostname, parts.port or 80), timeout=10))
        sockets[-1].sendall(head.encode())
    assert eventually(lambda: gauge(deskline, "deskline_long_polls") == before + 5)
    for each in sockets:
        each.close()
    assert eventually(lambda: gauge(deskline, "deskline_long_polls") == before)


def eventually(condition: Callable[[], bool], seconds: float = 8) -> bool:
    give_up_at = time.monotonic() + seconds
    while time.monotonic() < give_up_at:
        if condition():
            return True
        time.sleep(0.1)
    return False


def test_many_that_wait_cost_one_look(
    deskline: Deskline, agent: Agent, new_visitor: MakeVisitor, threads: ThreadPoolExecutor
) -> None:
    if deskline.data_dir is None:
        pytest.skip("the balancer does not pass /metrics on")
    visitor = new_visitor()
    conversation_id = visitor.conversation()
    waits = [timed(threads, visitor, conversation_id, after_seq=1, wait=20) for _ in range(15)]
    assert eventually(lambda: gauge(deskline, "deskline_long_polls") >= 15)
    time.sleep(0.5)
    before = gauge(deskline, "deskline_long_poll_looks_total")
    time.sleep(2)
    # nothing happens, nobody looks
    assert gauge(deskline, "deskline_long_poll_looks_total") == before
    agent.send(conversation_id, "now")
    assert all(len(each.result()[0].json()["items"]) == 1 for each in waits)
    assert gauge(deskline, "deskline_long_poll_looks_total") <= before + 2


@pytest.fixture(scope="module")
def tight(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deskline]:
    with embedded_deskline(tmp_path_factory.mktemp("tight"), LONG_POLLS="3") as running:
        yield running


def test_there_is_room_for_so_many(tight: Deskline, threads: ThreadPoolExecutor) -> None:
    visitor = Visitor(tight)
    conversation_id = visitor.conversation()
    waits = [timed(threads, visitor, conversation_id, after_seq=1, wait=3) for _ in range(6)]
    answers = [each.result()[0] for each in waits]
    assert sorted(answer.status_code for answer in answers) == [200] * 3 + [503] * 3
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert_problem(refused, 503, "service_unavailable")
    assert refused.headers["Retry-After"]
    visitor.http.close()


def test_who_waits_is_answered_when_the_process_stops(
    tmp_path_factory: pytest.TempPathFactory, threads: ThreadPoolExecutor
) -> None:
    with embedded_deskline(tmp_path_factory.mktemp("stopping")) as running:
        visitor = Visitor(running)
        conversation_id = visitor.conversation()
        waiting = timed(threads, visitor, conversation_id, after_seq=1, wait=25)
        assert eventually(lambda: gauge(running, "deskline_long_polls") == 1)
    answer, seconds = waiting.result()
    assert answer.status_code == 200
    assert answer.json()["items"] == []
    assert seconds < 15
    visitor.http.close()
