"""Outgoing webhooks: what admins set up, and what receivers get."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.api.conftest import Agent, Visitor, assert_problem
from tests.conftest import Deskline

WAIT_SECONDS = 20.0
EVERYTHING = ["message.created", "conversation.created"]


@dataclass
class Receiver:
    """A web server on loopback that keeps what it gets, and answers with ``status``."""

    status: int = 200
    pause_seconds: float = 0.0
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""

    def about(self, conversation_id: int) -> list[tuple[dict[str, str], bytes]]:
        """What tells of that conversation: another test's last message may still be under way."""
        return [
            (headers, body)
            for headers, body in list(self.got)
            if (json.loads(body)["conversation"] or {}).get("id") == conversation_id
        ]


@pytest.fixture
def new_receiver(deskline: Deskline) -> Iterator[Callable[..., Receiver]]:
    if deskline.data_dir is None:
        pytest.skip("the deployment cannot reach a receiver on the machine of the tests")
    servers: list[ThreadingHTTPServer] = []

    def make(**options: Any) -> Receiver:
        receiver = Receiver(**options)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                time.sleep(receiver.pause_seconds)
                receiver.got.append((dict(self.headers), body))
                self.send_response(receiver.status)
                if receiver.status == 302:
                    self.send_header("Location", receiver.url + "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Silence."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        receiver.url = f"http://127.0.0.1:{server.server_port}/hook"
        servers.append(server)
        return receiver

    yield make
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def new_webhook(agent: Agent) -> Iterator[Callable[..., dict[str, Any]]]:
    made: list[int] = []

    def make(url: str, events: list[str] | None = None, **more: Any) -> dict[str, Any]:
        body = {"name": f"hook {uuid.uuid4()}", "url": url, "events": events or EVERYTHING, **more}
        answer = agent.post("/webhooks", body)
        assert answer.status_code == 201, answer.text
        webhook: dict[str, Any] = answer.json()
        made.append(webhook["id"])
        return webhook

    yield make
    for webhook_id in made:
        agent.delete(f"/webhooks/{webhook_id}")


def until(condition: Callable[[], Any]) -> Any:
    give_up_at = time.monotonic() + WAIT_SECONDS
    while not (value := condition()):
        assert time.monotonic() < give_up_at, "it did not happen in time"
        time.sleep(0.05)
    return value


def deliveries(agent: Agent, webhook_id: int, **params: Any) -> list[dict[str, Any]]:
    answer = agent.get(f"/webhooks/{webhook_id}/deliveries", **params)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def test_a_receiver_is_told_what_happened_and_can_check_who_says_so(
    agent: Agent,
    visitor: Visitor,
    new_receiver: Callable[..., Receiver],
    new_webhook: Callable[..., dict[str, Any]],
) -> None:
    receiver = new_receiver()
    webhook = new_webhook(receiver.url)
    conversation_id = visitor.conversation("Hello webhook 訂單")
    got = until(lambda: (told := receiver.about(conversation_id)) and len(told) == 2 and told)
    by_event = {json.loads(body)["event"]: json.loads(body) for _, body in got}
    assert set(by_event) == {"conversation.created", "message.created"}
    told = by_event["message.created"]
    assert told["conversation"]["visitor"]["id"] == visitor.id
    assert (told["message"]["body"], told["message"]["seq"]) == ("Hello webhook 訂單", 1)
    assert by_event["conversation.created"]["message"] is None

    for headers, body in got:
        assert headers["Content-Type"] == "application/json"
        assert headers["X-Deskline-Event"] == json.loads(body)["event"]
        timestamp, _, given = headers["X-Deskline-Signature"].partition(",v1=")
        signed = timestamp.removeprefix("t=").encode() + b"." + body
        expected = hmac.new(webhook["secret"].encode(), signed, hashlib.sha256).hexdigest()
        assert given == expected
        assert abs(int(timestamp.removeprefix("t=")) - time.time()) < 60

    mine = {body["id"] for body in by_event.values()}

    def logged() -> list[dict[str, Any]]:
        delivered = deliveries(agent, webhook["id"], status="delivered")
        return [item for item in delivered if item["event_id"] in mine]

    items = until(lambda: (found := logged()) and len(found) == 2 and found)
    assert {(item["response_status"], item["attempts"]) for item in items} == {(200, 1)}
    assert {headers["X-Deskline-Delivery"] for headers, _ in got} == {
        str(item["id"]) for item in items
    }


def test_only_the_events_that_were_asked_for(
    agent: Agent,
    visitor: Visitor,
    new_receiver: Callable[..., Receiver],
    new_webhook: Callable[..., dict[str, Any]],
) -> None:
    one, other, off = new_receiver(), new_receiver(), new_receiver()
    new_webhook(one.url, ["conversation.created"])
    new_webhook(off.url, active=False)
    inbox_id = agent.get("/me").json()["inboxes"][0]["id"]
    new_webhook(other.url, ["message.created"], inbox_id=inbox_id)
    conversation_id = visitor.conversation()
    until(lambda: one.about(conversation_id) and other.got)
    time.sleep(1)
    events = [json.loads(body)["event"] for _, body in one.about(conversation_id)]
    assert events == ["conversation.created"]
    assert {json.loads(body)["inbox"]["id"] for _, body in other.got} <= {inbox_id}
    assert off.got == []


@pytest.mark.parametrize("status", [500, 302, 404])
def test_what_was_not_taken_is_kept_and_can_be_sent_again(
    agent: Agent,
    new_receiver: Callable[..., Receiver],
    new_webhook: Callable[..., dict[str, Any]],
    status: int,
) -> None:
    receiver = new_receiver(status=status)
    webhook = new_webhook(receiver.url)
    tested = agent.post(f"/webhooks/{webhook['id']}/test")
    assert tested.status_code == 202
    assert tested.json()["payload"]["event"] == "webhook.test"
    path = f"/webhooks/{webhook['id']}/deliveries/{tested.json()['id']}"
    first = until(lambda: (found := agent.get(path).json()) and found["attempts"] == 1 and found)
    assert (first["status"], first["response_status"]) == ("pending", status)
    assert str(status) in first["error"]
    assert first["next_attempt_at"] > first["created_at"]
    assert len(receiver.got) == 1, "a redirect was followed"

    receiver.status = 204
    again = agent.post(f"{path}/retry")
    assert again.status_code == 202
    second = until(
        lambda: (found := agent.get(path).json()) and found["status"] == "delivered" and found
    )
    assert (second["attempts"], second["response_status"], second["error"]) == (2, 204, None)
    first_time, second_time = receiver.got
    assert first_time[1] == second_time[1]
    assert first_time[0]["X-Deskline-Delivery"] == second_time[0]["X-Deskline-Delivery"]


def test_nobody_listens(agent: Agent, new_webhook: Callable[..., dict[str, Any]]) -> None:
    webhook = new_webhook("http://127.0.0.1:9/hook")
    tested = agent.post(f"/webhooks/{webhook['id']}/test").json()
    path = f"/webhooks/{webhook['id']}/deliveries/{tested['id']}"
    tried = until(lambda: (found := agent.get(path).json()) and found["attempts"] and found)
    assert (tried["status"], tried["response_status"]) == ("pending", None)
    assert tried["error"]


def test_a_slow_receiver_holds_up_nobody_else(
    agent: Agent,
    visitor: Visitor,
    new_receiver: Callable[..., Receiver],
    new_webhook: Callable[..., dict[str, Any]],
) -> None:
    slow, quick = new_receiver(pause_seconds=5), new_receiver()
    new_webhook(slow.url, ["message.created"])
    new_webhook(quick.url, ["message.created"])
    conversation_id = visitor.conversation("0")
    for number in range(1, 12):
        visitor.send(conversation_id, str(number))
    begun = time.monotonic()
    until(lambda: len(quick.got) >= 12)
    assert time.monotonic() - begun < 5
    assert len(slow.got) < 5


def test_a_secret_is_shown_once_and_can_be_changed(
    agent: Agent,
    new_receiver: Callable[..., Receiver],
    new_webhook: Callable[..., dict[str, Any]],
) -> None:
    receiver = new_receiver()
    webhook = new_webhook(receiver.url)
    path = f"/webhooks/{webhook['id']}"
    shown = agent.get(path).json()
    assert shown == {name: value for name, value in webhook.items() if name != "secret"}
    assert webhook["secret"] not in agent.get("/webhooks").text
    rotated = agent.post(f"{path}/rotate-secret").json()
    assert rotated["secret"] not in (webhook["secret"], "")
    agent.post(f"{path}/test")
    until(lambda: receiver.got)
    headers, body = receiver.got[0]
    timestamp, _, given = headers["X-Deskline-Signature"].partition(",v1=")
    signed = timestamp.removeprefix("t=").encode() + b"." + body
    assert given == hmac.new(rotated["secret"].encode(), signed, hashlib.sha256).hexdigest()


def test_changing_and_deleting(agent: Agent, new_webhook: Callable[..., dict[str, Any]]) -> None:
    webhook = new_webhook("https://hooks.example.com/a")
    path = f"/webhooks/{webhook['id']}"
    inbox = agent.get("/me").json()["inboxes"][0]
    changed = agent.patch(
        path, {"active": False, "inbox_id": inbox["id"], "events": EVERYTHING[:1]}
    )
    assert changed.status_code == 200
    assert changed.json() == {
        **{name: value for name, value in webhook.items() if name != "secret"},
        "active": False,
        "inbox": inbox,
        "events": EVERYTHING[:1],
    }
    assert agent.patch(path, {"inbox_id": None}).json()["inbox"] is None
    assert agent.patch(path, {"name": None}).status_code == 422
    assert_problem(agent.post(f"{path}/test"), 409, "conflict")
    assert agent.delete(path).status_code == 204
    for answer in (
        agent.get(path),
        agent.patch(path, {"active": True}),
        agent.delete(path),
        agent.get(f"{path}/deliveries"),
        agent.get(f"{path}/deliveries/1"),
        agent.post(f"{path}/deliveries/1/retry"),
        agent.post(f"{path}/test"),
        agent.post(f"{path}/rotate-secret"),
    ):
        assert_problem(answer, 404, "not_found")


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "ftp://example.com/x"},
        {"url": "https://"},
        {"url": "https://user:pw@example.com/"},
        {"url": "https://example.com/#x"},
        {"url": "https://example.com:99999/"},
        {"url": "https://exämple.com/"},
        {"url": "https://example.com/a b"},
        {"url": "https://example.com/" + "x" * 2000},
        {"url": "javascript:alert(1)"},
        {"events": []},
        {"events": ["message.erased"]},
        {"events": "message.created"},
        {"name": ""},
        {"name": "x" * 101},
        {"name": "a\x00b"},
        {"inbox_id": 10**12},
        {"active": "yes"},
    ],
)
def test_bad_webhooks(agent: Agent, wrong: dict[str, Any]) -> None:
    body = {"name": "n", "url": "https://example.com/", "events": EVERYTHING, **wrong}
    before = agent.get("/webhooks").json()
    assert_problem(agent.post("/webhooks", body), 422, "invalid_request")
    assert agent.get("/webhooks").json() == before


def test_agents_who_are_no_admins_may_not(second_agent: Agent) -> None:
    assert_problem(second_agent.get("/webhooks"), 403, "forbidden")
    body = {"name": "n", "url": "https://example.com/", "events": EVERYTHING}
    assert_problem(second_agent.post("/webhooks", body), 403, "forbidden")
