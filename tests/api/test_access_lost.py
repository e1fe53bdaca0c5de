"""Whoever loses access loses it on open WebSockets too, whatever the client does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import websockets

from tests.api.conftest import PASSWORD, Agent, NewAccount, Visitor, assert_problem
from tests.api.test_realtime import Socket, agent_auth, open_socket, visitor_auth
from tests.conftest import Deskline

MakeVisitor = Callable[..., Visitor]
# the worker publishes what belongs to a transaction about once a second
SECONDS = 20


async def closed_with(socket: Socket) -> int | None:
    """Read until the gateway closes the socket; gives the close code."""
    try:
        async with asyncio.timeout(SECONDS):
            while True:
                await socket.connection.recv()
    except websockets.ConnectionClosed:
        code: int | None = socket.connection.close_code
        return code


async def staff_socket(deskline: Deskline, key: str, agent: Agent, channel: str) -> Socket:
    """A socket in ``channel`` only: it is found without the account's own channel."""
    socket = await open_socket(deskline, key)
    answer = await asyncio.to_thread(agent_auth, agent, channel, socket.socket_id)
    await socket.subscribe(channel, answer)
    return socket


@pytest.fixture
def key(visitor: Visitor) -> str:
    return str(visitor.session["realtime"]["key"])


@pytest.fixture
def inbox_id(visitor: Visitor) -> int:
    return int(visitor.session["inbox"]["id"])


def deactivate(admin: Agent, account: Agent, _inbox_id: int) -> httpx.Response:
    return admin.patch(f"/users/{account.user['id']}", {"active": False})


def take_the_inbox(admin: Agent, account: Agent, _inbox_id: int) -> httpx.Response:
    return admin.patch(f"/users/{account.user['id']}", {"all_inboxes": False, "inbox_ids": []})


def end_sessions(admin: Agent, account: Agent, _inbox_id: int) -> httpx.Response:
    return admin.delete(f"/users/{account.user['id']}/sessions")


def log_out(_admin: Agent, account: Agent, _inbox_id: int) -> httpx.Response:
    return account.post("/auth/logout")


@pytest.mark.parametrize("lose", [deactivate, take_the_inbox, end_sessions, log_out])
async def test_an_agents_sockets_close_and_what_was_lost_is_refused(
    deskline: Deskline,
    agent: Agent,
    new_account: NewAccount,
    key: str,
    inbox_id: int,
    *,
    lose: Callable[[Agent, Agent, int], httpx.Response],
) -> None:
    account = await asyncio.to_thread(new_account)
    channel = f"private-inbox.{inbox_id}"
    lost = await staff_socket(deskline, key, account, channel)
    kept = await staff_socket(deskline, key, agent, channel)
    # signed before, used after: the signature is worth nothing on a socket that was open
    sleeper = await open_socket(deskline, key)
    early = await asyncio.to_thread(agent_auth, account, channel, sleeper.socket_id)
    answer = await asyncio.to_thread(lose, agent, account, inbox_id)
    assert answer.status_code in (200, 204), answer.text
    # 4200: pusher-js comes back at once and has its channels signed again
    assert await closed_with(lost) == 4200
    data = {"channel": channel, **early.json()}
    await sleeper.connection.send(json.dumps({"event": "pusher:subscribe", "data": data}))
    assert await closed_with(sleeper) == 4200
    again = await open_socket(deskline, key)
    refused = await asyncio.to_thread(agent_auth, account, channel, again.socket_id)
    assert refused.status_code in (401, 403), refused.text
    await kept.connection.send(json.dumps({"event": "pusher:ping", "data": {}}))
    await kept.receive("pusher:pong")
    for socket in (kept, again):
        await socket.connection.close()


async def test_a_member_that_is_taken_out_of_an_inbox(
    deskline: Deskline, agent: Agent, new_account: NewAccount, key: str
) -> None:
    made = await asyncio.to_thread(agent.post, "/inboxes", {"name": "Members only"})
    assert made.status_code == 201, made.text
    inbox_id = made.json()["id"]
    account = await asyncio.to_thread(new_account, all_inboxes=False, inbox_ids=[inbox_id])
    channel = f"private-inbox.{inbox_id}"
    socket = await staff_socket(deskline, key, account, channel)
    answer = await asyncio.to_thread(agent.put, f"/inboxes/{inbox_id}/members", {"user_ids": []})
    assert answer.status_code == 200, answer.text
    assert await closed_with(socket) == 4200
    refused = await asyncio.to_thread(agent_auth, account, channel)
    assert_problem(refused, 403, "forbidden")


async def test_the_session_that_stays_comes_back(
    deskline: Deskline, new_account: NewAccount, key: str, inbox_id: int
) -> None:
    account = await asyncio.to_thread(new_account)
    channel = f"private-inbox.{inbox_id}"
    other = Agent(Deskline(deskline.url, deskline.ws_url, password=PASSWORD), account.email)
    socket = await staff_socket(deskline, key, account, channel)
    answer = await asyncio.to_thread(account.delete, "/me/sessions")
    assert answer.status_code == 204
    assert await closed_with(socket) == 4200
    assert_problem(await asyncio.to_thread(agent_auth, other, channel), 403, "forbidden")
    socket = await staff_socket(deskline, key, account, channel)
    await socket.connection.close()
    other.http.close()


async def test_a_visitor_that_is_blocked(
    deskline: Deskline, agent: Agent, new_visitor: MakeVisitor
) -> None:
    visitor = await asyncio.to_thread(new_visitor)
    conversation_id = await asyncio.to_thread(visitor.conversation)
    key = visitor.session["realtime"]["key"]
    channel = f"private-conversation.{conversation_id}"
    socket = await open_socket(deskline, key)
    await socket.subscribe(
        channel, await asyncio.to_thread(visitor_auth, visitor, channel, socket.socket_id)
    )
    answer = await asyncio.to_thread(agent.post, f"/visitors/{visitor.id}/block")
    assert answer.status_code == 200, answer.text
    assert await closed_with(socket) == 4200
    for name in (channel, f"private-visitor.{visitor.id}"):
        assert_problem(await asyncio.to_thread(visitor_auth, visitor, name), 403, "forbidden")
    answer = await asyncio.to_thread(agent.post, f"/visitors/{visitor.id}/unblock")
    assert answer.status_code == 200
    assert (await asyncio.to_thread(visitor_auth, visitor, channel)).status_code == 200


async def test_typing_reaches_the_other_side_only(
    deskline: Deskline, agent: Agent, new_visitor: MakeVisitor
) -> None:
    visitor = await asyncio.to_thread(new_visitor)
    conversation_id = await asyncio.to_thread(visitor.conversation)
    key = visitor.session["realtime"]["key"]
    channel = f"private-conversation.{conversation_id}"
    staff = await staff_socket(deskline, key, agent, channel)
    widget = await open_socket(deskline, key)
    await widget.subscribe(
        channel, await asyncio.to_thread(visitor_auth, visitor, channel, widget.socket_id)
    )
    typing: dict[str, Any] = {"event": "client-typing", "channel": channel, "data": {"on": True}}
    await widget.connection.send(json.dumps(typing))
    async with asyncio.timeout(SECONDS):
        while True:
            message = json.loads(await staff.connection.recv())
            if message["event"] == "client-typing":
                break
    assert message == typing
    await widget.connection.send(json.dumps({"event": "pusher:ping", "data": {}}))
    async with asyncio.timeout(SECONDS):
        while True:
            event = json.loads(await widget.connection.recv())["event"]
            assert event != "client-typing"
            if event == "pusher:pong":
                break
    for socket in (staff, widget):
        await socket.connection.close()
