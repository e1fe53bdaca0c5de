"""Which sockets of this node are in which channel, and the fan-out to them.

A channel is known by its *topic*, the name of its Redis channel in bytes: what Redis sends is
looked up as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from typing import Final, Protocol

from app.gateway.applications import topic_prefix
from app.gateway.frames import text_frame

# Above so many deliveries in one go, the next ones are collected for FLUSH_INTERVAL_SECONDS
# and leave together; below, everything leaves at once.
BUSY_DELIVERIES: Final = 500
FLUSH_INTERVAL_SECONDS: Final = 0.005
MAX_COLLECTED_BYTES: Final = 256 * 1024
_DIGIT_ZERO: Final = ord("0")


def topic_of(application_id: str, channel: str) -> bytes:
    """The Redis channel of a Channels channel."""
    return topic_prefix(application_id) + channel.encode()


class Writer(Protocol):
    """The part of a transport that the fan-out uses."""

    def write(self, data: bytes) -> None:
        """Send or buffer."""


class Member(Protocol):
    """A socket, as its channels see it."""

    outgoing: list[bytes] | None

    @property
    def writer(self) -> Writer:
        """Its transport."""

    @property
    def socket_id(self) -> str:
        """The Pusher socket id."""

    def subscribed(self, channel: str) -> None:
        """The events of ``channel`` flow from now on."""


class Source(Protocol):
    """Where events come from: the Redis subscription."""

    def subscribe(self, topic: bytes) -> None:
        """Ask for the events of ``topic``; :meth:`Channels.confirm` follows when they flow."""

    def unsubscribe(self, topic: bytes) -> None:
        """Give up the events of ``topic``."""


class Channel:
    """The members of one channel. ``waiting`` are those not told yet that they are subscribed;
    it is None when the events flow."""

    __slots__ = ("members", "name", "waiting")

    def __init__(self, name: str) -> None:
        self.name = name
        self.members: set[Member] = set()
        self.waiting: list[Member] | None = []


class Channels:
    """The channels that have members on this node; nobody else is subscribed in Redis."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._channels: dict[bytes, Channel] = {}

    def __len__(self) -> int:
        return len(self._channels)

    def get(self, topic: bytes) -> Channel | None:
        """The channel of a topic, or None when nobody here is in it."""
        return self._channels.get(topic)

    @property
    def subscriptions(self) -> int:
        """How many sockets are in channels, counted once in each; walks over the channels."""
        return sum(len(channel.members) for channel in self._channels.values())

    def topics(self) -> list[bytes]:
        """The topics of all channels."""
        return list(self._channels)

    def join(self, prefix: bytes, name: str, member: Member) -> None:
        """Put ``member`` into the channel ``name`` of the application whose topics begin with
        ``prefix``; its ``subscribed`` is called when the events flow, perhaps now."""
        topic = prefix + name.encode()
        channel = self._channels.get(topic)
        if channel is None:
            channel = self._channels[topic] = Channel(name)
            self._source.subscribe(topic)
        channel.members.add(member)
        if channel.waiting is None:
            member.subscribed(name)
        else:
            channel.waiting.append(member)

    def leave(self, prefix: bytes, name: str, member: Member) -> None:
        """Take ``member`` out; the last one takes the channel with it."""
        topic = prefix + name.encode()
        channel = self._channels.get(topic)
        if channel is None:
            return
        channel.members.discard(member)
        if channel.waiting is not None and member in channel.waiting:
            channel.waiting.remove(member)
        if not channel.members:
            del self._channels[topic]
            self._source.unsubscribe(topic)

    def replace(self, prefix: bytes, name: str, member: Member, by: Member) -> None:
        """Let ``by`` have the place of ``member``, which has been told that it is subscribed."""
        channel = self._channels[prefix + name.encode()]
        channel.members.remove(member)
        channel.members.add(by)

    def confirm(self, topic: bytes) -> None:
        """Redis sends the events of ``topic`` from now on: tell those who wait for that."""
        channel = self._channels.get(topic)
        if channel is None or channel.waiting is None:
            return
        waiting, channel.waiting = channel.waiting, None
        for member in waiting:
            member.subscribed(channel.name)

    def interrupt(self, concerns: Callable[[bytes], bool] | None = None) -> None:
        """The events of all topics, or of ``concerns``, have stopped flowing: who joins from now
        on waits for :meth:`confirm`."""
        for topic, channel in self._channels.items():
            if channel.waiting is None and (concerns is None or concerns(topic)):
                channel.waiting = []


class Fanout:
    """Sends events to the members of their channels: framed once, one write per socket per batch.

    A batch is what one read from Redis brought. When a batch made many deliveries, the next
    ones are collected for a few milliseconds, because then a write per socket is what costs.
    """

    def __init__(
        self,
        channels: Channels,
        loop: asyncio.AbstractEventLoop,
        other: Callable[[bytes, bytes], None] | None = None,
        members: Callable[[bytes, bytes, bytes], bytes | None] | None = None,
    ) -> None:
        """``other`` gets topic and message of what has no sockets here; it must not raise.

        ``members`` gets topic, head and text of what changed in a presence channel and gives the
        message that tells it, or None when its clients know that already.
        """
        self._channels = channels
        self._loop = loop
        self._other = other
        self._members = members
        self._collected: list[tuple[bytes, bytes]] = []
        self._collected_bytes = 0
        self._busy_until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.events = 0
        self.deliveries = 0
        self.writes = 0
        self.bytes = 0
        self.malformed = 0

    def receive(self, batch: list[tuple[bytes, bytes]]) -> None:
        """Take (topic, ``socket_id or nothing`` LF ``message``) pairs, in their order."""
        if self._timer is None and self._loop.time() >= self._busy_until:
            self._deliver(batch)
            return
        self._collected += batch
        self._collected_bytes += sum(len(payload) for _, payload in batch)
        if self._collected_bytes >= MAX_COLLECTED_BYTES:
            self._flush()
        elif self._timer is None:
            self._timer = self._loop.call_at(self._busy_until, self._flush)

    def stop(self) -> None:
        """Send what is collected and forget the timer."""
        self._flush()

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch, self._collected, self._collected_bytes = self._collected, [], 0
        if batch:
            self._deliver(batch)

    def _deliver(self, batch: list[tuple[bytes, bytes]]) -> None:
        started = self._loop.time()
        runs = self._runs(batch)
        before = self.deliveries
        if len(runs) == 1:
            channel, excluded, data, count = runs[0]
            readers = _readers(channel, excluded)
            for member in readers:
                member.writer.write(data)
            self.deliveries += count * len(readers)
            self.writes += len(readers)
            self.bytes += len(data) * len(readers)
        elif runs:
            self._deliver_runs(runs)
        if self.deliveries - before >= BUSY_DELIVERIES:
            self._busy_until = started + FLUSH_INTERVAL_SECONDS

    def _runs(self, batch: Iterable[tuple[bytes, bytes]]) -> list[tuple[Channel, str, bytes, int]]:
        """Frames of neighbours with the same readers put together; the order stays."""
        runs: list[tuple[Channel, str, bytes, int]] = []
        parts: list[bytes] = []
        last: tuple[bytes, bytes] | None = None
        current: Channel | None = None
        for topic, payload in batch:
            excluded, newline, message = payload.partition(b"\n")
            if not newline:
                self.malformed += 1
                continue
            self.events += 1
            if excluded and excluded[0] < _DIGIT_ZERO:  # + or -, no socket id
                change = self._members(topic, excluded, message) if self._members else None
                if change is None:
                    continue
                excluded, message = b"", change
            if last != (topic, excluded):
                if current is not None and last is not None:
                    runs.append((current, last[1].decode("latin-1"), b"".join(parts), len(parts)))
                parts = []
                last = (topic, excluded)
                current = self._channels.get(topic)
            if current is not None:
                parts.append(text_frame(message))
            elif self._other is not None:
                self._other(topic, message)
        if current is not None and last is not None:
            runs.append((current, last[1].decode("latin-1"), b"".join(parts), len(parts)))
        return runs

    def _deliver_runs(self, runs: list[tuple[Channel, str, bytes, int]]) -> None:
        touched: list[Member] = []
        for channel, excluded, data, count in runs:
            readers = _readers(channel, excluded)
            self.deliveries += count * len(readers)
            self.bytes += len(data) * len(readers)
            for member in readers:
                outgoing = member.outgoing
                if outgoing is None:
                    member.outgoing = [data]
                    touched.append(member)
                else:
                    outgoing.append(data)
        self.writes += len(touched)
        for member in touched:
            outgoing, member.outgoing = member.outgoing, None
            if outgoing is not None:
                member.writer.write(outgoing[0] if len(outgoing) == 1 else b"".join(outgoing))


def _readers(channel: Channel, excluded: str) -> Collection[Member]:
    """The members but the one whose socket id is ``excluded`` (empty: nobody)."""
    if not excluded:
        return channel.members
    return [member for member in channel.members if member.socket_id != excluded]
