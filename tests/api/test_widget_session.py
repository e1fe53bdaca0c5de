"""Opening the widget's session: identities, merging, forms, tokens, and who is kept out."""

from __future__ import annotations

import hashlib
import hmac
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app import clock
from app.chat.permissions import VisitorIdentity
from app.chat.visitors import VisitorTokens
from app.config import parse_env_file
from tests.api.conftest import Agent, Visitor, assert_problem
from tests.conftest import Deskline

MakeVisitor = Callable[..., Visitor]
# a change is seen by the other web processes after at most this long
KNOWN_SECONDS = 10.0


@pytest.fixture
def inbox(agent: Agent) -> dict[str, Any]:
    return new_inbox(agent)


def new_inbox(agent: Agent, **more: Any) -> dict[str, Any]:
    answer = agent.post("/inboxes", {"name": f"Shop {uuid.uuid4().hex[:8]}", **more})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


class Signed:
    """An inbox with an identity secret, and what its site's server does with it."""

    def __init__(self, agent: Agent) -> None:
        self.inbox = new_inbox(agent)
        self.key = self.inbox["key"]
        answer = agent.post(f"/inboxes/{self.inbox['id']}/identity-secret")
        self.secret = answer.json()["identity_secret"]

    def sign(self, identifier: str) -> str:
        return hmac.new(self.secret.encode(), identifier.encode(), hashlib.sha256).hexdigest()

    def body(self, identifier: str, **identity: Any) -> dict[str, Any]:
        return {
            "inbox_key": self.key,
            "identity": {"identifier": identifier, **identity},
            "identity_hash": self.sign(identifier),
        }


@pytest.fixture(scope="module")
def signed(agent: Agent) -> Signed:
    return Signed(agent)


def person() -> str:
    return f"客戶-{uuid.uuid4().hex}"


# --- identities -------------------------------------------------------------------------------


def test_an_unsigned_identity_names_but_does_not_prove(
    agent: Agent, inbox: dict[str, Any], new_visitor: MakeVisitor
) -> None:
    identity = {
        "identifier": "42",
        "name": "陳小明 👋",
        "email": "chen@example.com",
        "phone": "+886 2 5555 0100",
        "attributes": {"plan": "gold", "orders": 3, "vip": True, "score": 1.5},
    }
    first = new_visitor(inbox_key=inbox["key"], identity=identity)
    second = new_visitor(inbox_key=inbox["key"], identity=identity)
    assert first.id != second.id
    assert first.session["visitor"]["name"] == "陳小明 👋"
    seen = agent.get(f"/visitors/{first.id}").json()
    assert (seen["identifier"], seen["email"]) == (None, "chen@example.com")
    assert seen["phone"] == "+886 2 5555 0100"
    assert seen["attributes"] == identity["attributes"]
    again = first.open(
        inbox["key"],
        visitor_token=first.session["visitor_token"],
        identity={"attributes": {"plan": None, "orders": 4}},
    )
    assert again["visitor"] == first.session["visitor"]
    seen = agent.get(f"/visitors/{first.id}").json()
    assert seen["attributes"] == {"orders": 4, "vip": True, "score": 1.5}


def test_a_signed_identity_is_the_same_visitor_everywhere(
    agent: Agent, signed: Signed, new_visitor: MakeVisitor
) -> None:
    who = person()
    phone = new_visitor(**signed.body(who, name="Ann"))
    laptop = new_visitor(**signed.body(who))
    assert laptop.id == phone.id
    conversation_id = phone.conversation("from my phone")
    resumed = laptop.open(**signed.body(who))
    assert resumed["conversation"]["id"] == conversation_id
    seen = agent.get(f"/visitors/{phone.id}").json()
    assert (seen["identifier"], seen["name"]) == (who, "Ann")


def test_a_wrong_signature_is_refused_and_makes_nobody(
    signed: Signed, deskline: Deskline, visitor: Visitor
) -> None:
    who = person()
    good = signed.body(who)
    for change in (
        {"identity_hash": signed.sign(person())},
        {"identity_hash": "0" * 64},
        {"identity_hash": "é"},
        {"identity_hash": ""},
        {"identity_hash": None},
        {"identity": {"name": "no identifier"}},
        {"identity": {"identifier": who + " "}} | {"identity_hash": signed.sign(who + "x")},
    ):
        answer = visitor.post("/session", {**good, **change})
        assert_problem(answer, 403, "identity_not_verified")
    upper = visitor.post("/session", {**good, "identity_hash": signed.sign(who).upper()})
    assert upper.status_code == 200


def test_a_rotated_secret_refuses_what_the_old_one_signed(agent: Agent, visitor: Visitor) -> None:
    site = Signed(agent)
    body = site.body(person())
    assert visitor.post("/session", body).status_code == 200
    agent.post(f"/inboxes/{site.inbox['id']}/identity-secret")
    assert_problem(visitor.post("/session", body), 403, "identity_not_verified")


@pytest.mark.parametrize(
    ("identity", "field"),
    [
        ({"identifier": ""}, "identity.identifier"),
        ({"identifier": "x" * 201}, "identity.identifier"),
        ({"identifier": "a\u0000"}, "identity.identifier"),
        ({"name": " "}, "identity.name"),
        ({"email": "nobody"}, "identity.email"),
        ({"phone": "1"}, "identity.phone"),
        ({"attributes": {"": 1}}, "identity.attributes"),
        ({"attributes": {"x" * 65: 1}}, "identity.attributes"),
        ({"attributes": {"x": "y" * 501}}, "identity.attributes"),
        ({"attributes": {"x": {"deep": 1}}}, "identity.attributes"),
        ({"attributes": {"x": [1]}}, "identity.attributes"),
        ({"attributes": {"x": 2**60}}, "identity.attributes"),
        ({"attributes": {f"a{n}": 1 for n in range(51)}}, "identity.attributes"),
    ],
)
def test_a_wrong_identity_names_the_field(
    visitor: Visitor, deskline: Deskline, identity: dict[str, Any], field: str
) -> None:
    answer = visitor.post("/session", {"inbox_key": deskline.inbox_key, "identity": identity})
    problem = assert_problem(answer, 422, "invalid_request")
    assert problem["errors"][0]["field"].startswith(field)


# --- merging ----------------------------------------------------------------------------------


def test_what_an_anonymous_visitor_wrote_moves_to_the_one_it_turns_out_to_be(
    agent: Agent, signed: Signed, new_visitor: MakeVisitor
) -> None:
    who = person()
    known = new_visitor(**signed.body(who, name="Ann", attributes={"plan": "gold"}))
    old_id = known.conversation("an old question")
    anonymous = new_visitor(
        inbox_key=signed.key,
        page={"url": "https://shop.example/cart", "title": "Cart 🛒"},
    )
    client_id = str(uuid.uuid4())
    started = anonymous.start("before I logged in", client_id).json()
    conversation_id = started["conversation"]["id"]
    agent.send(conversation_id, "hello")
    assert anonymous.post(f"/conversations/{conversation_id}/read", {"seq": 2}).is_success
    version = agent.get(f"/conversations/{conversation_id}").json()["version"]

    token = anonymous.session["visitor_token"]
    opened = anonymous.open(**signed.body(who), visitor_token=token)
    assert opened["visitor"] == {"id": known.id, "name": "Ann"}
    assert opened["conversation"]["id"] == conversation_id
    assert opened["conversation"]["read_seq"] == 2

    seen = agent.get(f"/conversations/{conversation_id}").json()
    assert seen["visitor"]["id"] == known.id
    assert seen["version"] > version
    senders = [m["sender"]["id"] for m in agent.messages(conversation_id)["items"]]
    assert senders == [known.id, agent.user["id"]]
    profile = agent.get(f"/visitors/{known.id}").json()
    assert {item["id"] for item in profile["conversations"]} == {old_id, conversation_id}
    assert "https://shop.example/cart" in [page["url"] for page in profile["pages"]]
    assert agent.get(f"/visitors/{anonymous.id}").json()["id"] == known.id

    # the old token: every call sends the widget back to the session, which speaks for the new one
    path = f"/conversations/{conversation_id}"
    for answer in (
        anonymous.get(f"{path}/messages"),
        anonymous.send(conversation_id, "lost?"),
        anonymous.post(f"{path}/read", {"seq": 1}),
        anonymous.start("lost?"),
        anonymous.post("/page", {"url": "https://shop.example/"}),
        anonymous.post("/sync", {"known": {str(conversation_id): 1}}),
    ):
        assert_problem(answer, 401, "not_authenticated")
    resumed = anonymous.open(signed.key, visitor_token=token)
    assert resumed["visitor"]["id"] == known.id
    anonymous.http.headers["Authorization"] = f"Bearer {resumed['visitor_token']}"
    assert anonymous.send(conversation_id, "not lost").status_code == 201
    # what had been sent before is still a repeat, although somebody else is its sender now
    again = anonymous.start("before I logged in", client_id)
    assert again.status_code == 200
    assert again.json()["message"]["seq"] == 1


def test_an_anonymous_visitor_that_nobody_knows_becomes_the_known_one(
    agent: Agent, signed: Signed, new_visitor: MakeVisitor
) -> None:
    who = person()
    anonymous = new_visitor(inbox_key=signed.key)
    conversation_id = anonymous.conversation()
    token = anonymous.session["visitor_token"]
    opened = anonymous.open(**signed.body(who), visitor_token=token)
    assert opened["visitor"]["id"] == anonymous.id
    # its token goes on
    assert anonymous.send(conversation_id, "still me").status_code == 201
    assert agent.get(f"/visitors/{anonymous.id}").json()["identifier"] == who


def test_another_person_on_the_same_browser_gets_nothing_of_the_first(
    signed: Signed, new_visitor: MakeVisitor
) -> None:
    first = new_visitor(**signed.body(person()))
    conversation_id = first.conversation("private")
    token = first.session["visitor_token"]
    opened = first.open(**signed.body(person()), visitor_token=token)
    assert opened["visitor"]["id"] != first.id
    assert opened["conversation"] is None
    assert first.send(conversation_id, "the first is still there").status_code == 201


def test_tabs_that_identify_at_once_make_one_visitor(
    signed: Signed, new_visitor: MakeVisitor
) -> None:
    for _ in range(3):
        who = person()
        tabs = [new_visitor(inbox_key=signed.key) for _ in range(4)]
        conversations = [tab.conversation("hello") for tab in tabs]
        barrier = threading.Barrier(len(tabs))

        def identify(tab: Visitor, who: str = who, barrier: threading.Barrier = barrier) -> int:
            barrier.wait(10)
            token = tab.session["visitor_token"]
            return int(tab.open(**signed.body(who), visitor_token=token)["visitor"]["id"])

        with ThreadPoolExecutor(len(tabs)) as threads:
            ids = set(threads.map(identify, tabs))
        assert len(ids) == 1
        one = new_visitor(**signed.body(who))
        for conversation_id in conversations:
            assert one.get(f"/conversations/{conversation_id}/messages").status_code == 200


def test_messages_that_are_sent_during_a_merge_are_neither_lost_nor_doubled(
    agent: Agent, signed: Signed, new_visitor: MakeVisitor
) -> None:
    for _ in range(4):
        who = person()
        known = new_visitor(**signed.body(who))
        tabs = [new_visitor(inbox_key=signed.key) for _ in range(2)]
        anonymous = tabs[0]
        conversation_id = anonymous.conversation("0")
        barrier = threading.Barrier(3)

        def write(
            number: int,
            anonymous: Visitor = anonymous,
            conversation_id: int = conversation_id,
            barrier: threading.Barrier = barrier,
            key: str = signed.key,
        ) -> list[str]:
            token = anonymous.session["visitor_token"]
            sent = []
            barrier.wait(10)
            for count in range(12):
                client_id, body = str(uuid.uuid4()), f"{number}-{count}"
                while True:
                    answer = anonymous.http.post(
                        f"/api/v1/widget/conversations/{conversation_id}/messages",
                        json={"client_id": client_id, "body": body},
                        headers={"Authorization": f"Bearer {token}"},
                    )
                    if answer.status_code in (200, 201):
                        break
                    # what the widget does: open the session again, send again
                    assert answer.status_code == 401, answer.text
                    token = anonymous.open(key, visitor_token=token)["visitor_token"]
                sent.append(body)
            return sent

        def merge(
            anonymous: Visitor = anonymous,
            who: str = who,
            barrier: threading.Barrier = barrier,
        ) -> int:
            barrier.wait(10)
            time.sleep(0.02)
            token = anonymous.session["visitor_token"]
            return int(anonymous.open(**signed.body(who), visitor_token=token)["visitor"]["id"])

        with ThreadPoolExecutor(3) as threads:
            writers = [threads.submit(write, number) for number in (1, 2)]
            merged = threads.submit(merge)
            sent = [body for writer in writers for body in writer.result(60)]
            assert merged.result(60) == known.id
        items = agent.messages(conversation_id, known_seq=25, limit=100)["items"]
        assert [item["seq"] for item in items] == list(range(1, 26))
        assert sorted(item["body"] for item in items) == sorted(["0", *sent])
        assert {item["sender"]["id"] for item in items} == {known.id}


# --- tokens -----------------------------------------------------------------------------------


@contextmanager
def at(moment: datetime) -> Iterator[None]:
    before = clock.now_source
    clock.now_source = lambda: moment
    try:
        yield
    finally:
        clock.now_source = before


def test_an_old_token_opens_the_session_and_nothing_else(
    deskline: Deskline, visitor: Visitor
) -> None:
    if deskline.data_dir is None:
        pytest.skip("an old token can be made only with the server's secret key")
    secrets = parse_env_file((deskline.data_dir / "secrets.env").read_text())
    tokens = VisitorTokens(secrets["DESKLINE_SECRET_KEY"])
    conversation_id = visitor.conversation()
    inbox_id = visitor.session["inbox"]["id"]
    with at(datetime.now(UTC) - timedelta(hours=25)):
        old = tokens.make(VisitorIdentity(visitor.id, inbox_id))
    visitor.http.headers["Authorization"] = f"Bearer {old}"
    path = f"/conversations/{conversation_id}"
    assert_problem(visitor.get(f"{path}/messages"), 401, "not_authenticated")
    assert_problem(visitor.send(conversation_id, "x"), 401, "not_authenticated")
    assert_problem(visitor.start("x"), 401, "not_authenticated")
    resumed = visitor.open(deskline.inbox_key, visitor_token=old)
    assert resumed["visitor"]["id"] == visitor.id
    assert resumed["visitor_token"] != old
    visitor.http.headers["Authorization"] = f"Bearer {resumed['visitor_token']}"
    assert visitor.get(f"{path}/messages").status_code == 200
    with at(datetime.now(UTC) - timedelta(days=401)):
        ancient = tokens.make(VisitorIdentity(visitor.id, inbox_id))
    stranger = visitor.open(deskline.inbox_key, visitor_token=ancient)
    assert stranger["visitor"]["id"] != visitor.id


def test_a_token_is_bound_to_its_inbox(
    inbox: dict[str, Any], deskline: Deskline, visitor: Visitor
) -> None:
    visitor.conversation()
    elsewhere = visitor.open(inbox["key"], visitor_token=visitor.session["visitor_token"])
    assert elsewhere["visitor"]["id"] != visitor.id
    assert elsewhere["conversation"] is None


# --- the form ---------------------------------------------------------------------------------

PRE_CHAT = [
    {"name": "name", "label": {"en": "Name"}, "type": "text", "required": True},
    {"name": "email", "label": {"en": "E-mail"}, "type": "email", "required": True},
    {"name": "phone", "label": {"en": "Phone"}, "type": "phone"},
    {"name": "topic", "label": {"en": "Topic"}, "type": "select", "options": ["訂單", "Other"]},
]


def first(visitor: Visitor, form: Any = None, client_id: str | None = None) -> Any:
    body: dict[str, Any] = {"client_id": client_id or str(uuid.uuid4()), "body": "hello"}
    if form is not None:
        body["form"] = form
    return visitor.post("/conversations", body)


def test_the_first_message_brings_the_form(agent: Agent, new_visitor: MakeVisitor) -> None:
    inbox = new_inbox(agent, pre_chat=PRE_CHAT)
    visitor = new_visitor(inbox_key=inbox["key"])
    assert visitor.session["inbox"]["form_required"] is True

    for form, fields in (
        (None, ["form.name", "form.email"]),
        ({}, ["form.name", "form.email"]),
        ({"name": "Ann", "email": "nobody"}, ["form.email"]),
        ({"name": "Ann", "email": "a@b.example", "topic": "Else"}, ["form.topic"]),
        ({"name": "a\nb", "email": "a@b.example", "phone": "x"}, ["form.name", "form.phone"]),
    ):
        problem = assert_problem(first(visitor, form), 422, "invalid_request")
        assert [error["field"] for error in problem["errors"]] == fields
    assert agent.get(f"/visitors/{visitor.id}").json()["conversations"] == []

    form = {
        "name": " 陳小明 👋 ",
        "email": "chen@example.com",
        "phone": "+886 2 5555 0100",
        "topic": "訂單",
        "unasked": "dropped",
    }
    client_id = str(uuid.uuid4())
    started = first(visitor, form, client_id)
    assert started.status_code == 201, started.text
    assert started.json()["message"]["sender"]["name"] == "陳小明 👋"
    seen = agent.get(f"/visitors/{visitor.id}").json()
    assert (seen["name"], seen["email"]) == ("陳小明 👋", "chen@example.com")
    assert seen["phone"] == "+886 2 5555 0100"
    assert seen["conversations"][0]["form"] == {
        "name": "陳小明 👋",
        "email": "chen@example.com",
        "phone": "+886 2 5555 0100",
        "topic": "訂單",
    }
    # a repeat is a repeat, with the form or without
    for again in (first(visitor, form, client_id), first(visitor, None, client_id)):
        assert again.status_code == 200, again.text
        assert again.json()["message"] == started.json()["message"]
    # a second tab's first message goes into the open conversation and needs no form
    second = first(visitor)
    assert second.status_code == 201
    assert second.json()["conversation"]["id"] == started.json()["conversation"]["id"]
    resumed = visitor.open(inbox["key"], visitor_token=visitor.session["visitor_token"])
    assert resumed["inbox"]["form_required"] is False


def test_a_form_does_not_rename_who_is_signed(agent: Agent, new_visitor: MakeVisitor) -> None:
    site = Signed(agent)
    agent.patch(f"/inboxes/{site.inbox['id']}", {"pre_chat": PRE_CHAT})
    visitor = new_visitor(**site.body(person(), name="Ann", email="ann@example.com"))
    answer = first(visitor, {"name": "Mallory", "email": "mallory@example.com"})
    assert answer.status_code == 201
    seen = agent.get(f"/visitors/{visitor.id}").json()
    assert (seen["name"], seen["email"]) == ("Ann", "ann@example.com")
    assert seen["conversations"][0]["form"]["name"] == "Mallory"


@pytest.mark.parametrize(
    "form", [[], "x", {"a": 1}, {"a": None}, {"a" * 41: "x"}, {"a": "x" * 2001}]
)
def test_a_form_that_is_none(visitor: Visitor, form: Any) -> None:
    assert_problem(first(visitor, form), 422, "invalid_request")


def test_an_archived_inbox_takes_no_new_conversation(
    agent: Agent, deskline: Deskline, inbox: dict[str, Any], new_visitor: MakeVisitor
) -> None:
    inside, outside = (new_visitor(inbox_key=inbox["key"]) for _ in range(2))
    conversation_id = inside.conversation()
    agent.post(f"/inboxes/{inbox['id']}/archive")
    until_every_node_knows(deskline)
    wait_for(lambda: first(outside).status_code == 410)
    assert_problem(first(outside), 410, "inbox_archived")
    assert inside.send(conversation_id, "to the end").status_code == 201
    assert first(inside).status_code == 201


def until_every_node_knows(deskline: Deskline) -> None:
    """The node that was asked knows at once, the others of a cluster a few seconds later."""
    if deskline.data_dir is None:
        time.sleep(KNOWN_SECONDS)


def wait_for(true: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + KNOWN_SECONDS
    while not true():
        assert time.monotonic() < give_up_at
        time.sleep(0.2)


# --- who is kept out --------------------------------------------------------------------------


def test_a_blocked_visitor_neither_opens_nor_writes(
    agent: Agent, second_agent: Agent, deskline: Deskline, visitor: Visitor
) -> None:
    conversation_id = visitor.conversation()
    blocked = second_agent.post(f"/visitors/{visitor.id}/block").json()
    assert blocked["blocked_at"] is not None
    assert second_agent.post(f"/visitors/{visitor.id}/block").json() == blocked
    assert_problem(visitor.send(conversation_id, "x"), 403, "visitor_blocked")
    assert_problem(visitor.start("x"), 403, "visitor_blocked")
    body = {
        "inbox_key": deskline.inbox_key,
        "visitor_token": visitor.session["visitor_token"],
    }
    assert_problem(visitor.post("/session", body), 403, "visitor_blocked")
    assert agent.post(f"/visitors/{visitor.id}/unblock").json()["blocked_at"] is None
    assert visitor.send(conversation_id, "thanks").status_code == 201
    assert visitor.post("/session", body).status_code == 200


def test_a_blocked_network_neither_opens_nor_writes(
    agent: Agent, deskline: Deskline, visitor: Visitor
) -> None:
    conversation_id = visitor.conversation()
    address = agent.get(f"/visitors/{visitor.id}").json()["address"]
    made = agent.post("/blocked-networks", {"network": address, "reason": "測試 🧪"})
    assert made.status_code == 201, made.text
    try:
        until_every_node_knows(deskline)
        wait_for(lambda: visitor.start("x").status_code == 403)
        assert_problem(visitor.send(conversation_id, "x"), 403, "visitor_blocked")
        body = {"inbox_key": deskline.inbox_key}
        wait_for(lambda: visitor.post("/session", body).status_code == 403)
        assert_problem(visitor.post("/session", body), 403, "visitor_blocked")
        # the staff are not visitors
        assert agent.get("/me").status_code == 200
    finally:
        assert agent.delete(f"/blocked-networks/{made.json()['id']}").status_code == 204
    until_every_node_knows(deskline)
    wait_for(lambda: visitor.send(conversation_id, "again").status_code == 201)
