"""Channels and fan-out, with members that only note what is written to them."""

from __future__ import annotations

import asyncio
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.gateway import channels
from app.gateway.channels import Channels, Fanout, topic_of
from app.gateway.frames import text_frame


class Writer:
    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)


class Member:
    def __init__(self, socket_id: str) -> None:
        self.socket_id = socket_id
        self.outgoing: list[bytes] | None = None
        self.writer = Writer()
        self.told: list[str] = []

    def subscribed(self, channel: str) -> None:
        self.told.append(channel)


class Source:
    def __init__(self) -> None:
        self.calls: list[tuple[str, bytes]] = []

    def subscribe(self, topic: bytes) -> None:
        self.calls.append(("subscribe", topic))

    def unsubscribe(self, topic: bytes) -> None:
        self.calls.append(("unsubscribe", topic))


PREFIX = topic_of("app1", "")


def topic(name: str) -> bytes:
    return topic_of("app1", name)


# --- registry


def test_redis_is_asked_once_for_a_channel_and_told_when_it_is_empty() -> None:
    source = Source()
    registry = Channels(source)
    first, second = Member("1.1"), Member("2.2")
    registry.join(PREFIX, "a", first)
    registry.join(PREFIX, "a", second)
    assert source.calls == [("subscribe", b"deskline:ch:app1:a")]
    registry.leave(PREFIX, "a", first)
    assert len(source.calls) == 1
    registry.leave(PREFIX, "a", second)
    assert source.calls[1:] == [("unsubscribe", b"deskline:ch:app1:a")]
    assert len(registry) == 0
    registry.leave(PREFIX, "a", second)
    assert len(source.calls) == 2


def test_a_member_is_told_only_when_the_events_flow() -> None:
    registry = Channels(Source())
    first, second, gone = Member("1.1"), Member("2.2"), Member("3.3")
    registry.join(PREFIX, "a", first)
    registry.join(PREFIX, "a", gone)
    registry.leave(PREFIX, "a", gone)
    assert first.told == []
    registry.confirm(topic("a"))
    assert first.told == ["a"]
    registry.join(PREFIX, "a", second)
    assert second.told == ["a"]
    assert gone.told == []


def test_after_an_interruption_new_members_wait_for_the_next_confirmation() -> None:
    registry = Channels(Source())
    first, second = Member("1.1"), Member("2.2")
    registry.join(PREFIX, "a", first)
    registry.confirm(topic("a"))
    registry.interrupt()
    registry.join(PREFIX, "a", second)
    assert second.told == []
    registry.confirm(topic("a"))
    assert (first.told, second.told) == (["a"], ["a"])
    registry.confirm(topic("nobody"))


# --- fan-out


async def fanout_with(
    memberships: dict[str, list[Member]],
) -> Fanout:
    registry = Channels(Source())
    for name, members in memberships.items():
        for member in members:
            registry.join(PREFIX, name, member)
        registry.confirm(topic(name))
    return Fanout(registry, asyncio.get_running_loop())


async def test_the_bytes_after_the_first_line_are_framed_and_not_looked_at() -> None:
    member = Member("1.1")
    fanout = await fanout_with({"a": [member]})
    fanout.receive([(topic("a"), b"\nnot json \n at all"), (topic("other"), b"\nx")])
    assert member.writer.writes == [text_frame(b"not json \n at all")]
    assert (fanout.events, fanout.deliveries) == (2, 1)


async def test_the_excluded_socket_gets_nothing() -> None:
    first, second = Member("1.1"), Member("2.2")
    fanout = await fanout_with({"a": [first, second]})
    fanout.receive([(topic("a"), b"1.1\nx")])
    assert (first.writer.writes, second.writer.writes) == ([], [text_frame(b"x")])


async def test_a_payload_without_the_line_is_counted_and_dropped() -> None:
    member = Member("1.1")
    fanout = await fanout_with({"a": [member]})
    fanout.receive([(topic("a"), b"no line"), (topic("a"), b"\nok")])
    assert member.writer.writes == [text_frame(b"ok")]
    assert fanout.malformed == 1


event = st.tuples(
    st.sampled_from(["a", "b", "c", "nobody"]),
    st.sampled_from(["", "1.1", "2.2", "9.9"]),
    st.binary(max_size=3),
)


@given(st.lists(event, max_size=25))
def test_everybody_gets_exactly_their_events_in_order_in_one_write(
    events: list[tuple[str, str, bytes]],
) -> None:
    async def check() -> None:
        members = [Member("1.1"), Member("2.2"), Member("3.3")]
        inside = {"a": members, "b": members[:2], "c": members[2:]}
        fanout = await fanout_with(inside)
        fanout.receive(
            [(topic(name), excluded.encode() + b"\n" + data) for name, excluded, data in events]
        )
        expected = defaultdict(list)
        for name, excluded, data in events:
            for member in inside.get(name, []):
                if member.socket_id != excluded:
                    expected[member].append(text_frame(data))
        for member in members:
            frames = expected[member]
            assert b"".join(member.writer.writes) == b"".join(frames)
            assert len(member.writer.writes) == (1 if frames else 0)
            assert member.outgoing is None
        assert fanout.deliveries == sum(len(frames) for frames in expected.values())

    asyncio.run(check())


async def test_quiet_events_leave_at_once_and_busy_ones_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(channels, "BUSY_DELIVERIES", 2)
    first, second = Member("1.1"), Member("2.2")
    fanout = await fanout_with({"a": [first, second], "b": [first]})
    fanout.receive([(topic("b"), b"\nquiet")])
    fanout.receive([(topic("a"), b"\none")])
    assert len(first.writer.writes) == 2
    fanout.receive([(topic("a"), b"\ntwo")])
    fanout.receive([(topic("b"), b"\nthree")])
    assert len(first.writer.writes) == 2  # collected: the last batch was a big one
    await asyncio.sleep(channels.FLUSH_INTERVAL_SECONDS * 3)
    assert first.writer.writes[2:] == [text_frame(b"two") + text_frame(b"three")]
    assert second.writer.writes == [text_frame(b"one"), text_frame(b"two")]


async def test_collected_events_leave_early_when_they_grow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(channels, "BUSY_DELIVERIES", 1)
    monkeypatch.setattr(channels, "MAX_COLLECTED_BYTES", 10)
    member = Member("1.1")
    fanout = await fanout_with({"a": [member]})
    fanout.receive([(topic("a"), b"\n1")])
    fanout.receive([(topic("a"), b"\n2")])
    assert len(member.writer.writes) == 1
    fanout.receive([(topic("a"), b"\n" + b"3" * 20)])
    assert member.writer.writes[1:] == [text_frame(b"2") + text_frame(b"3" * 20)]
    fanout.receive([(topic("a"), b"\n4")])
    fanout.stop()
    assert member.writer.writes[2:] == [text_frame(b"4")]
