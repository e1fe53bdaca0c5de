"""A browser's part in a conversation, without the browser: what pusher-js and the pages do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import websockets
from testinfra.host import Host

RECONNECT_SECONDS = 0.2
ANSWER_SECONDS = 10.0

# What the machines have anyway; curl they have not.
_FETCH = """
import http.client, json, sys, urllib.parse
url = urllib.parse.urlsplit(sys.argv[1])
connection = http.client.HTTPConnection(url.netloc, timeout=5)
connection.request("GET", url.path)
answer = connection.getresponse()
print(json.dumps([answer.status, dict(answer.getheaders()), answer.read().decode()]))
"""


def fetch(host: Host, url: str) -> tuple[int, dict[str, str], str]:
    """GET URL on the machine HOST itself: status, headers, body."""
    status, headers, body = json.loads(host.check_output("python3 -c %s %s", _FETCH, url))
    return status, headers, body


class Listener:
    """Watches the public stream of one conversation as a member of the staff.

    It reconnects whenever its socket ends and then asks for what came after the last message that
    it knows, as the dashboard does. ``seqs`` is what it has seen, in the order of arrival.
    """

    def __init__(self, http: httpx.AsyncClient, csrf: dict[str, str], conversation_id: int) -> None:
        self._http = http
        self._csrf = csrf
        self._conversation_id = conversation_id
        self._channel = f"private-conversation.{conversation_id}"
        self.seqs: list[int] = []
        self.connections = 0
        self.live = 0
        self.subscribed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Listener:
        self._task = asyncio.create_task(self._watch())
        await asyncio.wait_for(self.subscribed.wait(), ANSWER_SECONDS)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def until(self, condition: Callable[[Listener], bool], what: str) -> None:
        """Wait until ``condition`` holds; fails with ``what`` and the state when it does not."""
        for _ in range(300):
            if condition(self):
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"{what}; seen: {self.seqs}, connections: {self.connections}")

    async def _watch(self) -> None:
        me = (await self._http.get("/api/v1/me")).json()["realtime"]
        url = f"ws://{me['wsHost']}:{me['wsPort']}/app/{me['key']}?protocol=7&client=test&version=1"
        while True:
            with suppress(OSError, websockets.WebSocketException):
                async with websockets.connect(url, open_timeout=ANSWER_SECONDS) as socket:
                    await self._listen(socket)
            self.subscribed.clear()
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _listen(self, socket: websockets.ClientConnection) -> None:
        async for raw in socket:
            message: dict[str, Any] = json.loads(raw)
            match message["event"]:
                case "pusher:connection_established":
                    socket_id = json.loads(message["data"])["socket_id"]
                    signed = await self._http.post(
                        "/broadcasting/auth",
                        data={"socket_id": socket_id, "channel_name": self._channel},
                        headers=self._csrf,
                    )
                    assert signed.status_code == 200, signed.text
                    wanted = {"channel": self._channel, **signed.json()}
                    await socket.send(json.dumps({"event": "pusher:subscribe", "data": wanted}))
                case "pusher_internal:subscription_succeeded":
                    self.connections += 1
                    await self._catch_up()
                    self.subscribed.set()
                case "pusher:ping":
                    await socket.send(json.dumps({"event": "pusher:pong", "data": {}}))
                case "deskline:resync":
                    await self._catch_up()
                case "message.created":
                    self.live += 1
                    self._saw(json.loads(message["data"])["seq"])

    async def _catch_up(self) -> None:
        answer = await self._http.get(
            f"/api/v1/conversations/{self._conversation_id}/messages",
            params={"after_seq": max(self.seqs, default=0), "limit": 200},
        )
        assert answer.status_code == 200, answer.text
        for item in answer.json()["items"]:
            self._saw(item["seq"])

    def _saw(self, seq: int) -> None:
        if seq not in self.seqs:
            self.seqs.append(seq)
