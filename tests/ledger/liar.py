"""A proxy in front of a real Deskline that lies, each time in one way.

It passes HTTP requests and WebSocket frames on, and lets a :class:`Lie` change what comes back.
The ledger is pointed at it, and must notice.
"""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from bench.ledger.channels import OP_TEXT, FrameReader
from bench.ledger.target import find
from bench.ledger.wire import Client, WireError

MESSAGES = re.compile(r"/api/v1/(widget/)?conversations/(\d+)/messages")
UUID = re.compile(rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

Document = dict[str, Any]


class Lie:
    """Changes nothing."""

    def request(self, method: str, path: str, body: bytes) -> bytes:
        """What is really asked."""
        return body

    def instead(self, method: str, path: str, body: bytes) -> Document | None:
        """A document that is answered with 201 without asking the server."""
        return None

    def answer(self, method: str, path: str, document: Document) -> Document:
        """What is answered."""
        return document

    def event(self, event: Document) -> Iterable[Document]:
        """What a socket gets for one event; ``data`` is parsed in message.created."""
        return [event]

    def back(self, raw: bytes) -> bytes:
        """Whatever goes back to the client, as bytes."""
        return raw


class Loses(Lie):
    """Acknowledges every fifth message and throws it away."""

    def __init__(self) -> None:
        self._count = 0

    def instead(self, method: str, path: str, body: bytes) -> Document | None:
        place = MESSAGES.match(path)
        if method != "POST" or place is None:
            return None
        self._count += 1
        if self._count % 5:
            return None
        asked = json.loads(body)
        note = asked.get("kind") == "note"
        return {
            "conversation_id": int(place[2]),
            "stream": "staff" if note else "public",
            "seq": 900 + self._count,
            "client_id": asked["client_id"],
            "sender_type": "visitor" if place[1] else "agent",
            "kind": "note" if note else "text",
            "body": asked["body"],
        }


class Doubles(Lie):
    """A server that does not know client_id: whatever is sent again is stored again."""

    def __init__(self) -> None:
        self._real: dict[bytes, bytes] = {}

    def request(self, method: str, path: str, body: bytes) -> bytes:
        if method != "POST" or MESSAGES.match(path) is None:
            return body
        asked = json.loads(body)
        made = str(uuid.uuid4())
        self._real[made.encode()] = asked["client_id"].encode()
        return json.dumps(asked | {"client_id": made}).encode()

    def back(self, raw: bytes) -> bytes:
        return UUID.sub(lambda found: self._real.get(found[0], found[0]), raw)


class Reorders(Lie):
    """Tells the sockets other numbers: 2 is shown as 3, 3 as 2, and so on."""

    def event(self, event: Document) -> Iterable[Document]:
        if event["event"] == "message.created" and (seq := event["data"]["seq"]) > 1:
            event["data"]["seq"] = seq + 1 if seq % 2 == 0 else seq - 1
        return [event]


class Drops(Lie):
    """Loses every event of the public streams after the third message, without a sign."""

    def event(self, event: Document) -> Iterable[Document]:
        told = event["event"] == "message.created" and event["data"]["stream"] == "public"
        return [] if told and event["data"]["seq"] > 3 else [event]


class ShowsNotes(Lie):
    """Sends notes also to those who listen to the public stream."""

    def __init__(self) -> None:
        self._notes: dict[int, Document] = {}

    def event(self, event: Document) -> Iterable[Document]:
        if event["event"] != "message.created":
            return [event]
        data = event["data"]
        if data["stream"] == "staff":
            self._notes[data["conversation_id"]] = data
            return [event]
        note = self._notes.get(data["conversation_id"])
        return [event] if note is None else [event, event | {"data": note}]


class Mixes(Lie):
    """Shows everybody the messages of another conversation on the channel that they listen to."""

    def __init__(self) -> None:
        self._other: Document | None = None

    def event(self, event: Document) -> Iterable[Document]:
        if event["event"] != "message.created" or event["data"]["stream"] != "public":
            return [event]
        other, self._other = self._other, event["data"]
        if other is None or other["conversation_id"] == event["data"]["conversation_id"]:
            return [event]
        return [event, event | {"data": other}]


class Garbles(Lie):
    """Changes a letter of what is shown."""

    def event(self, event: Document) -> Iterable[Document]:
        if event["event"] == "message.created":
            event["data"]["body"] += "."
        return [event]


class Skips(Lie):
    """Hides the second message from every history."""

    def answer(self, method: str, path: str, document: Document) -> Document:
        if method == "GET" and MESSAGES.match(path):
            document["items"] = [item for item in document["items"] if item["seq"] != 2]
        return document


class Liar:
    """The proxy. Use it as an asynchronous context manager; ``url`` is its address."""

    def __init__(self, lie: Lie, url: str, ws_url: str) -> None:
        self.url = ""
        self._lie = lie
        self._origin = url
        self._client = Client(find(url, mine=False))
        self._gateway = find(ws_url, mine=False)
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Liar:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self._port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._client.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            with suppress(asyncio.IncompleteReadError, OSError, WireError):
                while await self._one_request(reader, writer):
                    pass
        finally:
            writer.close()

    async def _one_request(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        method, path, _ = lines[0].split(" ", 2)
        headers = {
            name: value.strip() for name, _, value in (line.partition(":") for line in lines[1:-2])
        }
        if headers.get("Upgrade") == "websocket":
            await self._socket(head, reader, writer)
            return False
        body = await reader.readexactly(int(headers.pop("Content-Length", "0")))
        headers.pop("Host")
        if "Origin" in headers:  # the widget's page comes from the server itself
            headers["Origin"] = self._origin
        content_type = headers.pop("Content-Type", "application/json")
        answered = self._lie.instead(method, path, body)
        if answered is not None:
            self._respond(writer, 201, answered, {})
            return True
        answer = await self._client.request(
            method,
            path,
            headers=headers,
            body=self._lie.request(method, path, body),
            content_type=content_type,
        )
        document = json.loads(answer.body)
        if answer.status < 300:
            document = self._lie.answer(method, path, document)
            if "realtime" in document:
                document["realtime"] |= {"wsHost": "127.0.0.1", "wsPort": self._port}
        kept = {
            name: answer.headers[name]
            for name in ("set-cookie", "retry-after", "x-deskline-read")
            if name in answer.headers
        }
        self._respond(writer, answer.status, document, kept)
        return True

    def _respond(
        self, writer: asyncio.StreamWriter, status: int, document: Document, kept: dict[str, str]
    ) -> None:
        raw = self._lie.back(json.dumps(document).encode())
        extra = "".join(f"{name}: {value}\r\n" for name, value in kept.items())
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(raw)}\r\n{extra}\r\n"
        writer.write(head.encode("latin-1") + raw)

    async def _socket(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        theirs, ours = await asyncio.open_connection(self._gateway.address, self._gateway.port)
        up = asyncio.create_task(self._up(reader, ours))
        try:
            ours.write(head)
            writer.write(await theirs.readuntil(b"\r\n\r\n"))
            frames = FrameReader()
            while data := await theirs.read(65536):
                for opcode, payload in frames.feed(data):
                    if opcode == OP_TEXT:
                        for text in self._events(payload):
                            writer.write(_frame(opcode, text))
                    else:
                        writer.write(_frame(opcode, payload))
                await writer.drain()
        finally:
            up.cancel()
            ours.close()

    async def _up(self, reader: asyncio.StreamReader, ours: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            ours.write(data)
        ours.close()

    def _events(self, text: bytes) -> Iterable[bytes]:
        event = json.loads(text)
        parsed = event["event"] == "message.created"
        if parsed:
            event["data"] = json.loads(event["data"])
        for told in self._lie.event(event):
            shown = told | {"data": json.dumps(told["data"])} if parsed else told
            yield self._lie.back(json.dumps(shown, separators=(",", ":")).encode())


def _frame(opcode: int, payload: bytes) -> bytes:
    size = len(payload)
    head = bytes((0x80 | opcode, size)) if size < 126 else b""
    if size >= 126:
        head = bytes((0x80 | opcode, 126)) + size.to_bytes(2)
    return head + payload
