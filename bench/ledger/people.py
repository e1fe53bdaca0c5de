"""The cast: visitors and agents who talk, watch, reconnect, and write everything into the book.

They do what the pages do (web/shared): one socket each; a hole in seq makes them ask for what they
miss, a new socket and a ``deskline:resync`` for what is new everywhere; a slow poll is the safety
net.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final
from urllib.parse import urlencode

import orjson

from bench.ledger import channels
from bench.ledger.book import PUBLIC, STAFF, Book, How, Message, Sent, Watch, digest
from bench.ledger.channels import Socket, SocketFailed
from bench.ledger.target import Target
from bench.ledger.wire import Answer, Client, WireError

SEQ_MAX: Final = 2**31 - 1
PAGE_MESSAGES: Final = 200
HANG_UP_WITHIN_SECONDS: Final = 0.05
BACK_OFF_SECONDS: Final = (0.1, 0.2, 0.4, 0.8, 1.6, 2.0)
MAX_RETRY_AFTER_SECONDS: Final = 10.0
# As web/shared/poll.ts: while the socket is down, the poll is quicker.
OFFLINE_POLL_SECONDS: Final = 4.0
# As web/shared/connection.ts: a ping after this much silence, then a little patience.
SILENCE_SECONDS: Final = 30.0
PONG_SECONDS: Final = 6.0
SWEEP_SECONDS: Final = 2.0
HOLE_TRIES: Final = 6
SYNC_GATHERS_SECONDS: Final = 0.05
SYNC_CALLS: Final = 100
SUBSCRIBE_PATIENCE_SECONDS: Final = 3.0
# A browser has six connections to a server; what it fetches again and again waits for one of them.
FETCHES_AT_ONCE: Final = 4
# Answers that say: the same request may succeed a little later (RFC 9110 §15, RFC 6585 §4).
TRY_AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
USER_AGENT: Final = "Mozilla/5.0 (X11; Linux x86_64) DesklineLedger/1"
_IGNORED_EVENTS: Final = tuple(
    b'{"event":"%b"' % name
    for name in (
        b"conversation.updated",
        b"conversation.created",
        b"read.moved",
        b"message.updated",
        b"pusher:pong",
    )
)


class Refused(Exception):
    """The server said no for good; the text is the status and code."""


@dataclass(frozen=True, slots=True)
class Habits:
    """How the cast behaves. Shares are from 0 to 1; 0 for ``poll_seconds`` means no poll."""

    duplicate: float = 0.03
    abort: float = 0.03
    poll_seconds: float = 30.0


@dataclass(slots=True)
class Tally:
    """What happened on the way that is no violation by itself."""

    counts: Counter[str] = field(default_factory=Counter)
    # time.time() of the first acknowledgement of each message, with its seconds since the sending
    acknowledged: list[tuple[float, float]] = field(default_factory=list)
    # (time.time(), whose, what) of sockets: "closed CODE", "resync", and "back" when all channels
    # are confirmed again and what was missed has been fetched
    returns: list[tuple[float, str, str]] = field(default_factory=list)
    online: int = 0


@dataclass(slots=True)
class World:
    """What the cast shares. ``give_up_at`` (time.time()) ends all retries."""

    http: Client
    websocket: Target
    websocket_path: str
    origin: str
    book: Book
    tally: Tally
    habits: Habits
    random: Random
    give_up_at: float
    # handshakes and logins at once, so that the start is no stampede
    door: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(16))

    def new_client_id(self) -> str:
        """A UUID of version 4."""
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    async def pause(self, attempt: int, answer: Answer | None = None) -> None:
        """Wait before the next try: what Retry-After says, else a growing time with jitter."""
        seconds = BACK_OFF_SECONDS[min(attempt, len(BACK_OFF_SECONDS) - 1)]
        if answer is not None:
            told = answer.headers.get("retry-after", "")
            if told.isdecimal():
                seconds = max(seconds, min(float(told), MAX_RETRY_AFTER_SECONDS))
        await asyncio.sleep(seconds * self.random.uniform(0.7, 1.3))

    async def ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: Mapping[str, Any] | None = None,
        *,
        form: Mapping[str, str] | None = None,
    ) -> Answer:
        """A request that is tried until it is answered with a 2xx.

        Raises :class:`Refused` for an answer that will not change, and :class:`WireError` when
        time is up.
        """
        content_type = "application/x-www-form-urlencoded" if form else "application/json"
        sent = urlencode(form).encode() if form else orjson.dumps(body) if body else b""
        attempt = 0
        while True:
            answer: Answer | None = None
            problem = ""
            try:
                answer = await self.http.request(
                    method, path, headers=headers, body=sent, content_type=content_type
                )
                if answer.status < 300:
                    return answer
                problem = answer.problem
            except WireError as error:
                problem = str(error)
            self.tally.counts[f"{method} retried: {problem}"] += 1
            if answer is not None and answer.status not in TRY_AGAIN:
                raise Refused(problem)
            if time.time() >= self.give_up_at:
                raise WireError(f"time was up; the last try of {path}: {problem}")
            await self.pause(attempt, answer)
            attempt += 1


def message_of(wire: Mapping[str, Any]) -> Message:
    """A Message of the API as the book keeps it. Raises :class:`WireError` when it is none."""
    try:
        return Message(
            int(wire["conversation_id"]),
            str(wire["stream"]),
            int(wire["seq"]),
            str(wire["client_id"]),
            str(wire["sender_type"]),
            digest(wire["body"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WireError(f"not a message: {error!r}") from None


@dataclass(frozen=True, slots=True)
class Page:
    """A page of history. ``read_from`` is primary, replica, or empty when it was not told."""

    items: list[dict[str, Any]]
    has_more: bool
    read_from: str


def _page(answer: Answer) -> Page:
    document = answer.json()
    try:
        items, has_more = list(document["items"]), bool(document["has_more"])
    except (KeyError, TypeError) as error:
        raise WireError(f"not a page: {error!r}") from None
    return Page(items, has_more, answer.headers.get("x-deskline-read", ""))


class Reader:
    """One stream of one conversation on one screen, kept complete."""

    def __init__(self, person: Person, watch: Watch) -> None:
        self.watch = watch
        self.opened = False
        self.contiguous = 0
        self.highest = 0
        self._person = person
        self._wanted: How | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether it is asking for what it misses."""
        return self._task is not None and not self._task.done()

    def take(self, message: Message, how: How) -> None:
        """Show a message; a hole before it is filled at once."""
        world = self._person.world
        if not world.book.see(self.watch, message, at=time.time(), how=how):
            return
        self.highest = max(self.highest, message.seq)
        while self.contiguous + 1 in self.watch.seen:
            self.contiguous += 1
        if self.contiguous < self.highest and how in ("live", "ack"):
            world.tally.counts["holes noticed"] += 1
            self.catch_up("hole")

    def catch_up(self, how: How) -> None:
        """Ask for what comes after the last seq without a hole; calls while it runs are one."""
        if self.busy:
            # what only a stale copy may know is not enough for a renewed subscription
            if self._wanted is None or how != "hole":
                self._wanted = how
            return
        self._task = self._person.spawn(self._catch_up(how))

    async def _catch_up(self, how: How) -> None:
        for attempt in range(HOLE_TRIES):
            self._wanted = None
            try:
                await self._fetch(how)
            except (WireError, Refused) as error:
                self._person.world.tally.counts[f"catching up failed: {error}"] += 1
                return
            if self._wanted is not None:
                how = self._wanted
            elif self.contiguous >= self.highest:
                self._person.caught_up(self)
                return
            else:
                await asyncio.sleep(BACK_OFF_SECONDS[min(attempt, 5)])
        self._person.world.tally.counts["holes that stayed"] += 1

    async def _fetch(self, how: How) -> None:
        person, watch = self._person, self.watch
        person.world.tally.counts[f"catch-ups: {how}"] += 1
        while True:
            after = self.contiguous
            # Only a hole says what the server must know; else its freshest copy has to answer.
            known = self.highest if how == "hole" else SEQ_MAX
            query = {"after_seq": after, "known_seq": known, "limit": PAGE_MESSAGES}
            page = await person.history(watch.conversation_id, watch.stream, query)
            items = [message_of(item) for item in page.items]
            person.world.book.page(watch, after, [item.seq for item in items])
            for item, wire in zip(items, page.items, strict=True):
                person.check(item, wire)
                self.take(item, how)
            if not page.has_more or self.contiguous <= after:
                return


class Person:
    """A visitor or an agent: a socket, the streams on its screen, and what it is allowed to see."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.headers: dict[str, str] = {}
        self.readers: dict[str, Reader] = {}
        self.online = False
        self.came_online = asyncio.Event()
        self._other_channels: set[str] = set()
        self._unconfirmed: set[str] = set()
        self._returning = False
        self._socket: Socket | None = None
        self._socket_id = ""
        self._fetching = asyncio.Semaphore(FETCHES_AT_ONCE)
        self._sync_task: asyncio.Task[None] | None = None
        self._sync_wanted: How | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._poll_at = 0.0

    # --- to be told by the subclasses

    # where everything that is watched is caught up with in one call
    sync_path = ""

    async def history(self, conversation_id: int, stream: str, query: dict[str, int]) -> Page:
        """A page of history."""
        raise NotImplementedError

    def known(self) -> dict[str, Any]:
        """What is on the screen, as the call for catching up takes it."""
        raise NotImplementedError

    def check(self, message: Message, wire: Mapping[str, Any]) -> None:
        """Look whether the message may be shown to this person at all."""

    # --- life

    def spawn(self, work: Any) -> asyncio.Task[Any]:
        """Run a coroutine until this person leaves; what fails in it is counted, not swallowed."""
        task: asyncio.Task[Any] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.world.tally.counts[f"broken: {error!r}"] += 1

    def go_online(self) -> None:
        """Open the socket, and keep it open."""
        self._poll_at = time.time() + self.world.habits.poll_seconds
        self.spawn(self._stay_connected())
        self.spawn(self._sweep())

    async def leave(self) -> None:
        """Cut the socket and stop."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._socket is not None:
            self._socket.drop()
        self._set_online(False)

    @property
    def busy(self) -> bool:
        """Whether something is being fetched."""
        return self._is_busy()

    def _is_busy(self, but: Reader | None = None) -> bool:
        syncing = self._sync_task is not None and not self._sync_task.done()
        return syncing or any(each.busy for each in self.readers.values() if each is not but)

    def caught_up(self, reader: Reader) -> None:
        """``reader`` ends: it misses nothing more. It may have been the last one."""
        if not self._is_busy(but=reader):
            self._note_back()

    async def fetch(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        form: Mapping[str, str] | None = None,
    ) -> Answer:
        """As :meth:`World.ask`, but only a few at once: the others wait."""
        async with self._fetching:
            return await self.world.ask(method, path, self.headers, body, form=form)

    # --- catching up with everything

    def sync(self, how: How) -> None:
        """Ask for what is new in all that is watched; calls while it runs are one more run."""
        if not self.readers:
            return
        if self._sync_task is not None and not self._sync_task.done():
            self._sync_wanted = how
            return
        self._sync_task = self.spawn(self._sync(how))

    async def _sync(self, how: How) -> None:
        # a new socket's channels are confirmed one after another
        await asyncio.sleep(SYNC_GATHERS_SECONDS)
        for _ in range(SYNC_CALLS):
            self._sync_wanted = None
            self.world.tally.counts[f"catch-ups: {how}"] += 1
            try:
                more = await self._sync_once(how)
            except (WireError, Refused, KeyError, TypeError) as error:
                self.world.tally.counts[f"catching up failed: {error}"] += 1
                return
            if not more:
                if self._sync_wanted is None:
                    self._note_back()
                    return
                how = self._sync_wanted
        self.world.tally.counts["catch-ups without an end"] += 1

    async def _sync_once(self, how: How) -> bool:
        readers = {
            (reader.watch.conversation_id, reader.watch.stream): reader
            for reader in self.readers.values()
        }
        asked = {place: reader.contiguous for place, reader in readers.items()}
        answer = await self.fetch("POST", self.sync_path, {"known": self.known()})
        document = answer.json()
        told: dict[tuple[int, str], list[Message]] = {}
        for wire in document["messages"]:
            message = message_of(wire)
            self.check(message, wire)
            told.setdefault((message.conversation_id, message.stream), []).append(message)
        for place, messages in told.items():
            reader = readers.get(place)
            if reader is None:
                self.world.book.foreign(f"{self.name} was told {messages[0].name} unasked")
                continue
            self.world.book.page(reader.watch, asked[place], [each.seq for each in messages])
            for message in messages:
                reader.take(message, how)
        self.world.tally.counts["conversations gone"] += len(document["gone"])
        return bool(document["more"])

    def watch_channel(self, channel: str, conversation_id: int, stream: str) -> Reader:
        """Show a stream of a conversation, live from its channel."""
        watch = self.world.book.watch(self.name, conversation_id, stream)
        reader = self.readers[channel] = Reader(self, watch)
        self._subscribe(channel)
        return reader

    def listen(self, channel: str) -> None:
        """Listen to a channel that carries no messages."""
        self._other_channels.add(channel)
        self._subscribe(channel)

    def _note(self, what: str) -> None:
        self.world.tally.returns.append((time.time(), self.name, what))

    def _note_back(self) -> None:
        """Whatever took this person away is over, when all channels are confirmed."""
        if self._returning and self.online and not self._unconfirmed:
            self._returning = False
            self._note("back")

    def _set_online(self, online: bool) -> None:
        if online != self.online:
            self.online = online
            self.world.tally.online += 1 if online else -1
            if online:
                self.came_online.set()

    # --- the socket

    async def _stay_connected(self) -> None:
        attempt = 0
        while True:
            code = 1006
            try:
                async with self.world.door:
                    self._socket = await channels.connect(
                        self.world.websocket,
                        self.world.websocket_path,
                        self.world.origin,
                        self._on_message,
                    )
                code = await self._socket.lost
                if self.online:
                    attempt = 0
                self.world.tally.counts[f"sockets closed: {code}"] += 1
                self._returning = True
                self._note(f"closed {code}")
            except SocketFailed as failure:
                self.world.tally.counts[f"sockets not opened: {failure}"] += 1
            finally:
                self._set_online(False)
                self._socket_id = ""
            if not 4200 <= code < 4300:  # those say: come back at once
                await self.world.pause(min(attempt, 5))
                attempt += 1

    async def _sweep(self) -> None:
        """Pings on a silent socket, subscriptions that got no answer, and the slow poll."""
        loop = asyncio.get_running_loop()
        pinged_at = 0.0
        while True:
            await asyncio.sleep(SWEEP_SECONDS * self.world.random.uniform(0.8, 1.2))
            if self.online and self._socket is not None:
                silent = loop.time() - self._socket.heard_at
                if silent > SILENCE_SECONDS + PONG_SECONDS and pinged_at > self._socket.heard_at:
                    self.world.tally.counts["sockets given up in silence"] += 1
                    self._socket.drop()
                elif silent > SILENCE_SECONDS:
                    pinged_at = loop.time()
                    self._socket.send("pusher:ping", {})
            if self.world.habits.poll_seconds:
                self._poll_when_due()

    def _poll_when_due(self) -> None:
        now = time.time()
        poll_seconds = self.world.habits.poll_seconds
        if not self.online:
            self._poll_at = min(self._poll_at, now + OFFLINE_POLL_SECONDS)
        if now >= self._poll_at:
            self._poll_at = now + (
                poll_seconds if self.online else min(poll_seconds, OFFLINE_POLL_SECONDS)
            ) * self.world.random.uniform(0.85, 1.15)
            self.sync("poll")

    def _subscribe(self, channel: str) -> None:
        if self._socket_id:
            self.spawn(self._authorize(channel, self._socket_id))

    async def _authorize(self, channel: str, socket_id: str) -> None:
        while socket_id == self._socket_id:
            try:
                answer = await self.fetch(
                    "POST",
                    "/broadcasting/auth",
                    form={"socket_id": socket_id, "channel_name": channel},
                )
                signed = answer.json()
            except (WireError, Refused) as error:
                self.world.tally.counts[f"subscribing failed: {error}"] += 1
                await asyncio.sleep(SUBSCRIBE_PATIENCE_SECONDS)
                continue
            if socket_id == self._socket_id and self._socket is not None:
                self._socket.send("pusher:subscribe", {"channel": channel, **signed})
            return

    def _on_message(self, text: bytes) -> None:
        self.world.tally.counts["events"] += 1
        if text.startswith(_IGNORED_EVENTS):
            return
        try:
            told = orjson.loads(text)
            event, channel = told["event"], told.get("channel", "")
            match event:
                case "message.created":
                    self._message_created(channel, orjson.loads(told["data"]))
                case "pusher:connection_established":
                    self._socket_id = orjson.loads(told["data"])["socket_id"]
                    self._set_online(True)
                    self._unconfirmed = {*self.readers, *self._other_channels}
                    for name in tuple(self._unconfirmed):
                        self._subscribe(name)
                case "pusher_internal:subscription_succeeded":
                    self._unconfirmed.discard(channel)
                    if (reader := self.readers.get(channel)) is not None:
                        if reader.opened:
                            self.sync("subscribed")
                        else:  # a page that opens a conversation loads its history
                            reader.opened = True
                            reader.catch_up("subscribed")
                    if not self.busy:  # else it is not over yet
                        self._note_back()
                case "deskline:resync":
                    self.world.tally.counts["resyncs"] += 1
                    self._returning = True
                    self._note("resync")
                    self.sync("resync")
                case _:
                    self._housekeeping(event, told)
        except (orjson.JSONDecodeError, KeyError, TypeError, WireError) as error:
            self.world.tally.counts[f"not an event: {error!r}"[:120]] += 1

    def _housekeeping(self, event: str, told: Mapping[str, Any]) -> None:
        """What the protocol itself says; other events are nothing to us."""
        if self._socket is None:
            return
        if event == "pusher:ping":
            self._socket.send("pusher:pong", {})
        elif event in ("pusher:error", "pusher:subscription_error"):
            self.world.tally.counts[f"{event}: {told.get('data')}"[:120]] += 1
            if event == "pusher:subscription_error":
                self._socket.drop()  # a new socket asks for everything again

    def _message_created(self, channel: str, wire: dict[str, Any]) -> None:
        message = message_of(wire)
        self.check(message, wire)
        reader = self.readers.get(channel)
        if reader is None:
            self.world.book.foreign(f"{self.name} was shown {message.name} on {channel}")
        else:
            reader.take(message, "live")

    # --- talking

    async def say(self, path: str, body: str, *, stream: str, conversation: int) -> Message | None:
        """Send one message until it is acknowledged; gives it, or None when it never was."""
        world = self.world
        client_id = world.new_client_id()
        sent = world.book.send(
            client_id,
            sender=self.name,
            stream=stream,
            body=body,
            at=time.time(),
            conversation=conversation,
        )
        content: dict[str, Any] = {"client_id": client_id, "body": body}
        if stream == STAFF:
            content["kind"] = "note"
        request = orjson.dumps(content)
        chance = world.random.random()
        twice = chance < world.habits.duplicate
        hang_up = not twice and chance < world.habits.duplicate + world.habits.abort
        attempt = 0
        while not sent.acknowledged and not sent.refused:
            tries = [self._try(sent, path, request, hang_up=hang_up)]
            if twice:
                world.tally.counts["sent twice"] += 1
                tries.append(self._try(sent, path, request, hang_up=False))
            if hang_up:
                world.tally.counts["hung up on purpose"] += 1
                sent.hung_up = True
            twice = hang_up = False
            answers = await asyncio.gather(*tries)
            if sent.acknowledged or sent.refused or time.time() >= world.give_up_at:
                break
            await world.pause(attempt, next(filter(None, answers), None))
            attempt += 1
        if not sent.acknowledged:
            return None
        return sent.acknowledged[0]

    async def _try(self, sent: Sent, path: str, request: bytes, *, hang_up: bool) -> Answer | None:
        """One POST. Gives the answer when it says that another try may help."""
        world = self.world
        try:
            answer = await world.http.request(
                "POST",
                path,
                headers=self.headers,
                body=request,
                hang_up_after_seconds=world.random.uniform(0, HANG_UP_WITHIN_SECONDS)
                if hang_up
                else None,
            )
            if answer.status in (200, 201):
                document = answer.json()
                told = message_of(document.get("message", document))
                first = not sent.acknowledged
                now = time.time()
                sent.conversation_id = sent.conversation_id or told.conversation_id
                world.book.acknowledge(sent.client_id, told, now)
                if first:
                    world.tally.acknowledged.append((now, now - sent.begun_at))
                world.tally.counts["repeats answered 200"] += answer.status == 200
                return None
        except WireError as error:
            if not hang_up:
                world.tally.counts[f"send retried: {error}"] += 1
            return None
        world.tally.counts[f"send retried: {answer.problem}"] += 1
        if answer.status in TRY_AGAIN:
            return answer
        world.book.refuse(sent.client_id, answer.problem)
        return None


class Visitor(Person):
    """Somebody on the shop's page."""

    conversation_id = 0
    inbox_id = 0
    sync_path = "/api/v1/widget/sync"

    def known(self) -> dict[str, Any]:
        """The last seq without a hole of the own conversation."""
        return {
            str(reader.watch.conversation_id): reader.contiguous for reader in self.readers.values()
        }

    async def open(self, inbox_key: str) -> dict[str, Any]:
        """Open the widget's session; gives its document. Raises Refused or WireError."""
        answer = await self.world.ask(
            "POST",
            "/api/v1/widget/session",
            {"User-Agent": USER_AGENT, "Origin": self.world.origin},
            {"inbox_key": inbox_key, "page": {"url": "http://shop.test/ledger", "title": "Shop"}},
        )
        session: dict[str, Any] = answer.json()
        self.headers = {
            "User-Agent": USER_AGENT,
            "Origin": self.world.origin,
            "Authorization": f"Bearer {session['visitor_token']}",
        }
        self.inbox_id = int(session["inbox"]["id"])
        self.listen(f"private-visitor.{session['visitor']['id']}")
        return session

    async def begin(self, body: str) -> bool:
        """Write the first message, which opens the conversation; whether that worked."""
        told = await self.say("/api/v1/widget/conversations", body, stream=PUBLIC, conversation=0)
        if told is None:
            return False
        self.conversation_id = told.conversation_id
        self.watch_channel(
            f"private-conversation.{told.conversation_id}", told.conversation_id, PUBLIC
        ).take(told, "ack")
        return True

    async def write(self, body: str) -> None:
        """Write a message."""
        told = await self.say(
            f"/api/v1/widget/conversations/{self.conversation_id}/messages",
            body,
            stream=PUBLIC,
            conversation=self.conversation_id,
        )
        if told is not None:
            self.readers[f"private-conversation.{self.conversation_id}"].take(told, "ack")

    async def history(self, conversation_id: int, stream: str, query: dict[str, int]) -> Page:
        """A page of the own conversation."""
        answer = await self.fetch(
            "GET", f"/api/v1/widget/conversations/{conversation_id}/messages?{urlencode(query)}"
        )
        return _page(answer)

    def check(self, message: Message, wire: Mapping[str, Any]) -> None:
        """A visitor must never be shown a note, nor a word of another conversation."""
        if message.stream != PUBLIC or wire.get("kind") == "note":
            self.world.book.foreign(f"{self.name}, a visitor, was shown a note: {message.name}")


class Agent(Person):
    """A member of the staff with an own session."""

    sync_path = "/api/v1/sync"

    def known(self) -> dict[str, Any]:
        """The last seqs without a hole, both streams of each conversation."""
        seqs: dict[str, Any] = {}
        for reader in self.readers.values():
            watch = reader.watch
            seqs.setdefault(str(watch.conversation_id), {})[watch.stream] = reader.contiguous
        return seqs

    async def log_in(self, email: str, password: str) -> dict[str, Any]:
        """Log in; gives the document of GET /api/v1/me. Raises Refused or WireError."""
        answer = await self.world.ask(
            "POST",
            "/api/v1/auth/login",
            {"User-Agent": USER_AGENT},
            {"email": email, "password": password},
        )
        cookie = answer.headers.get("set-cookie", "").partition(";")[0]
        self.headers = {
            "User-Agent": USER_AGENT,
            "Cookie": cookie,
            "X-CSRF-Token": str(answer.json()["csrf_token"]),
        }
        me: dict[str, Any] = (await self.world.ask("GET", "/api/v1/me", self.headers)).json()
        return me

    async def claim(self, conversation_id: int) -> None:
        """Take the conversation; that somebody else has it is fine."""
        try:
            await self.world.ask(
                "POST", f"/api/v1/conversations/{conversation_id}/claim", self.headers
            )
        except Refused as error:
            if not str(error).startswith("409"):
                raise

    def open_conversation(self, conversation_id: int) -> None:
        """Have the conversation and its notes on the screen from now on."""
        for channel, stream in (("conversation", PUBLIC), ("staff", STAFF)):
            self.watch_channel(f"private-{channel}.{conversation_id}", conversation_id, stream)

    async def write(self, conversation_id: int, body: str, *, note: bool) -> None:
        """Answer the visitor, or leave a note."""
        told = await self.say(
            f"/api/v1/conversations/{conversation_id}/messages",
            body,
            stream=STAFF if note else PUBLIC,
            conversation=conversation_id,
        )
        if told is not None:
            channel = f"private-{'staff' if note else 'conversation'}.{conversation_id}"
            self.readers[channel].take(told, "ack")

    async def history(self, conversation_id: int, stream: str, query: dict[str, int]) -> Page:
        """A page of one stream."""
        answer = await self.fetch(
            "GET",
            f"/api/v1/conversations/{conversation_id}/messages?"
            f"{urlencode({'stream': stream, **query})}",
        )
        return _page(answer)
