"""Signing subscriptions, and events from the send to the socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import websockets

from tests.api.conftest import Agent, Person, Visitor, assert_problem
from tests.conftest import Deskline

MakeVisitor = Callable[..., Visitor]
SOCKET_ID = "123.456"


def agent_auth(agent: Agent, channel: str, socket_id: str = SOCKET_ID) -> httpx.Response:
    form = {"socket_id": socket_id, "channel_name": channel}
    return agent.http.post("/broadcasting/auth", data=form, headers=agent.csrf)


def visitor_auth(visitor: Visitor, channel: str, socket_id: str = SOCKET_ID) -> httpx.Response:
    form = {"socket_id": socket_id, "channel_name": channel}
    return visitor.http.post("/broadcasting/auth", data=form)


def test_staff_may_join_conversations_notes_inboxes_and_their_own_channel(
    agent: Agent, visitor: Visitor
) -> None:
    conversation_id = visitor.conversation()
    inbox_id = visitor.session["inbox"]["id"]
    key = visitor.session["realtime"]["key"]
    for channel in (
        f"private-conversation.{conversation_id}",
        f"private-staff.{conversation_id}",
        f"private-inbox.{inbox_id}",
        f"private-user.{agent.user['id']}",
    ):
        answer = agent_auth(agent, channel)
        assert answer.status_code == 200, channel
        given_key, _, signature = answer.json()["auth"].partition(":")
        assert given_key == key
        assert len(signature) == 64


def test_staff_may_not_join_what_is_not_there_or_not_theirs(
    agent: Agent, second_agent: Agent, visitor: Visitor
) -> None:
    for channel in (
        "private-conversation.999999999",
        "private-staff.999999999",
        "private-inbox.999999999",
        f"private-user.{second_agent.user['id']}",
        f"private-visitor.{visitor.id}",
        "private-conversation.",
        "private-conversation.1x",
        "private-conversation.01",
        "private-unknown.1",
        "presence-staff.1",
        "presence-unknown",
        "public",
    ):
        assert_problem(agent_auth(agent, channel), 403, "forbidden")
    own = f"private-user.{agent.user['id']}"
    assert_problem(agent_auth(agent, own, "nonsense"), 403, "forbidden")


def test_visitors_may_join_their_own_only(new_visitor: MakeVisitor, agent: Agent) -> None:
    mine, other = new_visitor(), new_visitor()
    conversation_id = mine.conversation()
    assert visitor_auth(mine, f"private-conversation.{conversation_id}").status_code == 200
    assert visitor_auth(mine, f"private-visitor.{mine.id}").status_code == 200
    for visitor, channel in (
        (other, f"private-conversation.{conversation_id}"),
        (other, f"private-visitor.{mine.id}"),
        (mine, f"private-staff.{conversation_id}"),
        (mine, f"private-inbox.{mine.session['inbox']['id']}"),
        (mine, f"private-user.{agent.user['id']}"),
    ):
        assert_problem(visitor_auth(visitor, channel), 403, "forbidden")


def test_staff_may_join_the_presence_channel_as_who_they_are(
    deskline: Deskline, agent: Agent, person: Person, visitor: Visitor
) -> None:
    answer = agent_auth(agent, "presence-staff")
    assert answer.status_code == 200
    member = json.loads(answer.json()["channel_data"])
    assert member["user_id"] == str(agent.user["id"])
    assert member["user_info"] == {
        "name": agent.user["name"],
        "avatar_url": agent.user["avatar_url"],
    }
    assert_problem(visitor_auth(visitor, "presence-staff"), 403, "forbidden")
    # a program is never present
    key = agent.post("/api-keys", {"name": "robot", "user_id": person.user["id"]}).json()
    try:
        form = {"socket_id": SOCKET_ID, "channel_name": "presence-staff"}
        bearer = {"Authorization": f"Bearer {key['key']}"}
        answer = httpx.post(f"{deskline.url}/broadcasting/auth", data=form, headers=bearer)
        assert_problem(answer, 403, "forbidden")
    finally:
        agent.delete(f"/api-keys/{key['id']}")


def test_a_long_avatar_does_not_keep_anybody_out(agent: Agent, person: Person) -> None:
    url = "https://example.com/" + "\u00fc" * 470
    name = "\u8b1d" * 100
    assert agent.patch(f"/users/{person.user['id']}", {"name": name, "avatar_url": url}).is_success
    member = json.loads(agent_auth(person, "presence-staff").json()["channel_data"])
    assert member["user_info"] == {"name": name, "avatar_url": None}


async def test_staff_are_told_who_comes_and_who_goes(
    deskline: Deskline, agent: Agent, person: Person, key: str
) -> None:
    first, second = await open_socket(deskline, key), await open_socket(deskline, key)
    await first.subscribe("presence-staff", agent_auth(agent, "presence-staff", first.socket_id))
    auth = agent_auth(person, "presence-staff", second.socket_id)
    data = {"channel": "presence-staff", **auth.json()}
    await second.connection.send(json.dumps({"event": "pusher:subscribe", "data": data}))
    there = (await second.receive("pusher_internal:subscription_succeeded"))["presence"]["hash"]
    assert there[str(agent.user["id"])]["name"] == agent.user["name"]
    user_id = str(person.user["id"])
    while (await first.receive("pusher_internal:member_added"))["user_id"] != user_id:
        pass
    await second.connection.close()
    while (await first.receive("pusher_internal:member_removed", 20))["user_id"] != user_id:
        pass
    await first.connection.close()


def test_without_session_token_or_csrf_nothing_is_signed(deskline: Deskline, agent: Agent) -> None:
    form = {"socket_id": SOCKET_ID, "channel_name": f"private-user.{agent.user['id']}"}
    answer = httpx.post(f"{deskline.url}/broadcasting/auth", data=form)
    assert_problem(answer, 403, "forbidden")
    forged = {"Authorization": "Bearer forged"}
    answer = httpx.post(f"{deskline.url}/broadcasting/auth", data=form, headers=forged)
    assert_problem(answer, 403, "forbidden")
    assert_problem(agent.http.post("/broadcasting/auth", data=form), 403, "csrf_failed")


class Socket:
    """A Pusher client of one connection."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.socket_id = ""

    async def receive(self, name: str, seconds: float = 10) -> dict[str, Any]:
        """The data of the next event ``name``."""
        async with asyncio.timeout(seconds):
            while True:
                message = json.loads(await self.connection.recv())
                if message["event"] == name:
                    data: dict[str, Any] = json.loads(message.get("data") or "{}")
                    return data

    async def subscribe(self, channel: str, auth: httpx.Response) -> None:
        data = {"channel": channel, **auth.json()}
        await self.connection.send(json.dumps({"event": "pusher:subscribe", "data": data}))
        await self.receive("pusher_internal:subscription_succeeded")


async def open_socket(deskline: Deskline, key: str) -> Socket:
    address = f"{deskline.ws_url}/app/{key}?protocol=7&client=test&version=1"
    socket = Socket(await websockets.connect(address))
    established = await socket.receive("pusher:connection_established")
    socket.socket_id = established["socket_id"]
    return socket


@pytest.fixture
def key(visitor: Visitor) -> str:
    return str(visitor.session["realtime"]["key"])


async def test_events_reach_both_sides(
    deskline: Deskline, agent: Agent, visitor: Visitor, key: str
) -> None:
    conversation_id = visitor.conversation("hello")
    inbox = f"private-inbox.{visitor.session['inbox']['id']}"
    channel = f"private-conversation.{conversation_id}"
    staff, widget = await open_socket(deskline, key), await open_socket(deskline, key)
    await staff.subscribe(inbox, agent_auth(agent, inbox, staff.socket_id))
    await widget.subscribe(channel, visitor_auth(visitor, channel, widget.socket_id))

    answer = await asyncio.to_thread(agent.send, conversation_id, "good day")
    assert await widget.receive("message.created") == answer.json()
    while True:
        row = await staff.receive("conversation.updated")
        if row["id"] == conversation_id and row["last_seq"]["public"] == 2:
            break
    assert row["last_message"] == answer.json()
    assert not {"read_seq", "unread"} & set(row)

    await asyncio.to_thread(agent.post, f"/conversations/{conversation_id}/claim")
    form = await widget.receive("conversation.updated")
    assert form["assignee"]["id"] == agent.user["id"]
    assert not {"visitor", "inbox", "version", "read_seq", "unread"} & set(form)

    path = f"/conversations/{conversation_id}"
    mark = {
        "conversation_id": conversation_id,
        "reader_type": "visitor",
        "reader_id": visitor.id,
        "stream": "public",
    }
    await asyncio.to_thread(visitor.post, f"{path}/delivered", {"seq": 2})
    moved = await widget.receive("delivered.moved")
    assert moved == {**mark, "seq": 1, "delivered_seq": 2}
    await asyncio.to_thread(visitor.post, f"{path}/read", {"seq": 2})
    moved = await widget.receive("read.moved")
    assert moved == {**mark, "seq": 2, "delivered_seq": 2}
    for socket in (staff, widget):
        await socket.connection.close()


async def test_notes_go_to_the_staff_channel_only(
    deskline: Deskline, agent: Agent, visitor: Visitor, key: str
) -> None:
    conversation_id = visitor.conversation("hello")
    public, notes = (
        f"private-conversation.{conversation_id}",
        f"private-staff.{conversation_id}",
    )
    staff, widget = await open_socket(deskline, key), await open_socket(deskline, key)
    await staff.subscribe(notes, agent_auth(agent, notes, staff.socket_id))
    await widget.subscribe(public, visitor_auth(visitor, public, widget.socket_id))
    note = await asyncio.to_thread(agent.send, conversation_id, "between us", kind="note")
    answer = await asyncio.to_thread(agent.send, conversation_id, "to the visitor")
    assert await staff.receive("message.created") == note.json()
    # the visitor's next event is the answer: nothing came before it
    assert await widget.receive("message.created") == answer.json()
    for socket in (staff, widget):
        await socket.connection.close()


async def test_a_new_conversation_is_announced(
    deskline: Deskline, agent: Agent, visitor: Visitor, key: str
) -> None:
    inbox = f"private-inbox.{visitor.session['inbox']['id']}"
    own = f"private-visitor.{visitor.id}"
    staff, other_tab = await open_socket(deskline, key), await open_socket(deskline, key)
    await staff.subscribe(inbox, agent_auth(agent, inbox, staff.socket_id))
    await other_tab.subscribe(own, visitor_auth(visitor, own, other_tab.socket_id))
    started = await asyncio.to_thread(visitor.start, "first")
    conversation_id = started.json()["conversation"]["id"]
    row = await staff.receive("conversation.created")
    assert row["id"] == conversation_id
    assert row["last_message"] == started.json()["message"]
    assert (await other_tab.receive("conversation.created"))["id"] == conversation_id
    for socket in (staff, other_tab):
        await socket.connection.close()


async def test_a_change_of_state_is_told_to_both_sides(
    deskline: Deskline, agent: Agent, visitor: Visitor, key: str
) -> None:
    conversation_id = visitor.conversation("hello")
    public, notes = (
        f"private-conversation.{conversation_id}",
        f"private-staff.{conversation_id}",
    )
    staff, widget = await open_socket(deskline, key), await open_socket(deskline, key)
    await staff.subscribe(notes, agent_auth(agent, notes, staff.socket_id))
    await widget.subscribe(public, visitor_auth(visitor, public, widget.socket_id))
    path = f"/conversations/{conversation_id}"
    await asyncio.to_thread(agent.post, f"{path}/resolve")
    event = await staff.receive("message.created")
    assert (event["kind"], event["event"]["type"]) == ("event", "resolved")
    assert event["event"]["by"]["name"] == agent.user["name"]
    assert (await widget.receive("conversation.updated"))["status"] == "resolved"

    await asyncio.to_thread(visitor.send, conversation_id, "one more thing")
    assert (await staff.receive("message.created"))["event"]["type"] == "reopened"

    # what only concerns the staff does not reach the visitor: its next event is the message
    await asyncio.to_thread(agent.patch, path, {"priority": "urgent"})
    assert (await staff.receive("message.created"))["event"]["type"] == "priority_changed"
    sent = await asyncio.to_thread(agent.send, conversation_id, "here")
    message = await widget.receive("message.created")
    while message["seq"] < sent.json()["seq"]:
        message = await widget.receive("message.created")
    assert message == sent.json()
    for socket in (staff, widget):
        await socket.connection.close()
