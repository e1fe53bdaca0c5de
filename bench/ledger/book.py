"""The accounting: what was sent, acknowledged, shown and stored, and what is wrong with it.

Nothing here knows of sockets or clocks. The cast writes into a :class:`Book` while it talks;
afterwards :func:`Book.verdict` compares all of it with the rows that are stored.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

PUBLIC: Final = "public"
STAFF: Final = "staff"

# What a violation may be, in the order in which the table names them, with its meaning.
KINDS: Final = {
    "lost": "acknowledged, not stored",
    "doubled": "one client_id stored, acknowledged or shown as two messages, or one seq as two",
    "out_of_order": "an acknowledged, shown or stored seq that contradicts another",
    "holes": "a seq that is missing in a stream",
    "never_delivered": "stored, but a subscriber never saw it",
    "wrong": "another body than the one that was sent",
    "foreign": "a visitor saw a note, or anybody a message that is not theirs",
    "phantom": "shown to a subscriber, not stored",
    "refused": "a valid message was refused for good",
    "unacknowledged": "not acknowledged although it was sent again and again",
}

How = Literal["ack", "live", "hole", "subscribed", "resync", "poll"]


def digest(body: str) -> str:
    """What stands for a body: the first 16 hex digits of the SHA-256 of its UTF-8."""
    return hashlib.sha256(body.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Message:
    """A message as an answer, an event or the database tells it."""

    conversation_id: int
    stream: str
    seq: int
    client_id: str
    sender_type: str
    digest: str

    @property
    def name(self) -> str:
        """How a violation names it."""
        return f"conversation {self.conversation_id} {self.stream} seq {self.seq}"


@dataclass(slots=True)
class Sent:
    """A message that somebody sends. ``conversation_id`` is 0 until the first one is known."""

    client_id: str
    sender: str
    stream: str
    digest: str
    begun_at: float
    conversation_id: int = 0
    acknowledged: list[Message] = field(default_factory=list)
    acknowledged_at: float = 0.0
    refused: str = ""
    # its sender cut a connection on purpose: how long it took says nothing about the server
    hung_up: bool = False


@dataclass(frozen=True, slots=True)
class Sight:
    """When and how a subscriber saw a message for the first time."""

    at: float
    how: How


@dataclass(slots=True)
class Watch:
    """One stream of one conversation as one subscriber sees it."""

    subscriber: str
    conversation_id: int
    stream: str
    seen: dict[int, tuple[Message, Sight]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """How a violation names it."""
        return f"{self.subscriber} in conversation {self.conversation_id} {self.stream}"


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that must never happen."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result: violations, and how many messages were stored, shown live and so on."""

    violations: list[Violation]
    figures: dict[str, int]

    @property
    def counts(self) -> dict[str, int]:
        """How many violations of each kind, zeros included."""
        found = Counter(violation.kind for violation in self.violations)
        return {kind: found[kind] for kind in KINDS}

    @property
    def clean(self) -> bool:
        """No violation, and the run showed something at all."""
        return not self.violations and self.figures["acknowledged"] > 0 and self.figures["live"] > 0


class Book:
    """What happened, as it happens. Times are seconds of any one clock."""

    def __init__(self) -> None:
        self.sent: dict[str, Sent] = {}
        self.watches: dict[tuple[str, int, str], Watch] = {}
        self.found: list[Violation] = []

    # --- while the cast talks ----------------------------------------------------------------

    def send(
        self, client_id: str, *, sender: str, stream: str, body: str, at: float, conversation: int
    ) -> Sent:
        """Somebody is about to send a message, for the first time."""
        made = Sent(client_id, sender, stream, digest(body), at, conversation)
        self.sent[client_id] = made
        return made

    def acknowledge(self, client_id: str, answer: Message, at: float) -> None:
        """The sender was told that its message is stored."""
        sent = self.sent[client_id]
        if not sent.acknowledged:
            sent.acknowledged_at = at
        if answer.client_id != client_id:
            self._note(
                "wrong", f"{answer.name}: the answer to {client_id} is about {answer.client_id}"
            )
            return
        sent.acknowledged.append(answer)

    def refuse(self, client_id: str, reason: str) -> None:
        """The sender was told that its message will never be stored."""
        self.sent[client_id].refused = reason

    def watch(self, subscriber: str, conversation_id: int, stream: str) -> Watch:
        """A subscriber watches a stream from its beginning until the end of the run."""
        made = Watch(subscriber, conversation_id, stream)
        self.watches[subscriber, conversation_id, stream] = made
        return made

    def see(self, watch: Watch, message: Message, *, at: float, how: How) -> bool:
        """A subscriber is shown a message of the stream that it watches; whether it is new to it.

        A message of another conversation or stream is foreign and not counted as seen.
        """
        if (message.conversation_id, message.stream) != (watch.conversation_id, watch.stream):
            self._note("foreign", f"{watch.name} was shown {message.name}")
            return False
        known = watch.seen.get(message.seq)
        if known is None:
            watch.seen[message.seq] = (message, Sight(at, how))
            return True
        if known[0].client_id != message.client_id:
            self._note(
                "doubled",
                f"{watch.name} was shown seq {message.seq} as {known[0].client_id}"
                f" and as {message.client_id}",
            )
        elif known[0].digest != message.digest:
            self._note("wrong", f"{watch.name} was shown seq {message.seq} with two bodies")
        return False

    def foreign(self, text: str) -> None:
        """A subscriber was shown something that is not for it."""
        self._note("foreign", text)

    def page(self, watch: Watch, after_seq: int, seqs: Sequence[int]) -> None:
        """A page of history after ``after_seq`` was read: it must go on without a gap."""
        expected = list(range(after_seq + 1, after_seq + 1 + len(seqs)))
        if list(seqs) == expected:
            return
        kind = "out_of_order" if sorted(seqs) == expected else "holes"
        self._note(kind, f"{watch.name}: the history after seq {after_seq} is {_shortened(seqs)}")

    def _note(self, kind: str, text: str) -> None:
        self.found.append(Violation(kind, text))

    # --- afterwards --------------------------------------------------------------------------

    def conversations(self) -> set[int]:
        """Every conversation that was spoken in, or that an acknowledgement named."""
        answered = {a.conversation_id for sent in self.sent.values() for a in sent.acknowledged}
        return answered | {watch.conversation_id for watch in self.watches.values()}

    def unseen(self) -> int:
        """How many (subscriber, acknowledged message) pairs are still missing."""
        acknowledged: dict[tuple[int, str], set[int]] = defaultdict(set)
        for sent in self.sent.values():
            for answer in sent.acknowledged:
                acknowledged[answer.conversation_id, answer.stream].add(answer.seq)
        return sum(
            len(acknowledged[watch.conversation_id, watch.stream] - watch.seen.keys())
            for watch in self.watches.values()
        )

    def missing(self, rows: Iterable[Message]) -> int:
        """How many (subscriber, stored row) pairs a subscriber has not seen."""
        streams: dict[tuple[int, str], set[int]] = defaultdict(set)
        for row in rows:
            streams[row.conversation_id, row.stream].add(row.seq)
        return sum(
            len(streams[watch.conversation_id, watch.stream] - watch.seen.keys())
            for watch in self.watches.values()
        )

    def compare_sources(self, *, told: Iterable[Message], there: Iterable[Message]) -> None:
        """The staff's API must tell exactly the rows that the database holds."""
        told_rows, rows = set(told), set(there)
        for row in sorted(told_rows - rows, key=lambda each: each.name):
            self._note("phantom", f"{row.name}: the API tells it, the database has not got it")
        for row in sorted(rows - told_rows, key=lambda each: each.name):
            self._note("never_delivered", f"{row.name}: the API does not tell it to the staff")

    def verdict(self, rows: Iterable[Message], *, read_at: float = math.inf) -> Verdict:
        """Compare everything with what is stored in the conversations of the run.

        ``rows`` may come in any order; rows of other conversations are left out. ``read_at`` is
        when reading them began: what was shown later need not be among them.
        """
        ours = self.conversations()
        stored = [row for row in rows if row.conversation_id in ours]
        found = [
            *self.found,
            *self._stored_well(stored),
            *self._acknowledged_well(stored),
            *self._sent_well(),
            *self._shown_well(stored, read_at),
        ]
        return Verdict(found, self._figures(stored))

    def _stored_well(self, stored: list[Message]) -> Iterable[Violation]:
        """Streams count 1, 2, 3 …; a client_id has one row; bodies are those that were sent."""
        seqs: dict[tuple[int, str], list[int]] = defaultdict(list)
        rows_of: dict[str, list[Message]] = defaultdict(list)
        for row in stored:
            seqs[row.conversation_id, row.stream].append(row.seq)
            rows_of[row.client_id].append(row)
            sent = self.sent.get(row.client_id)
            if sent is not None and sent.digest != row.digest:
                yield Violation("wrong", f"{row.name} is stored with another body than was sent")
            if sent is not None and sent.stream != row.stream:
                yield Violation("wrong", f"{row.name} was sent to the {sent.stream} stream")
        for (conversation_id, stream), numbers in seqs.items():
            missing = sorted(set(range(1, max(numbers) + 1)) - set(numbers))
            for seq in missing:
                yield Violation("holes", f"conversation {conversation_id} {stream} has no {seq}")
            for seq, times in Counter(numbers).items():
                if times > 1:
                    yield Violation(
                        "doubled",
                        f"conversation {conversation_id} {stream} has {seq} {times} times",
                    )
        for client_id, rows in rows_of.items():
            # only what we sent: a system event may repeat its id in another conversation
            if client_id in self.sent and len(rows) > 1:
                places = ", ".join(row.name for row in rows)
                yield Violation("doubled", f"client_id {client_id} is stored as {places}")

    def _acknowledged_well(self, stored: list[Message]) -> Iterable[Violation]:
        """What was acknowledged is there, once, where the acknowledgement said."""
        there = {(row.conversation_id, row.stream, row.seq, row.client_id) for row in stored}
        by_id = {(row.conversation_id, row.client_id): row for row in stored}
        for sent in self.sent.values():
            places = {(a.conversation_id, a.stream, a.seq) for a in sent.acknowledged}
            if len(places) > 1:
                yield Violation(
                    "doubled", f"client_id {sent.client_id} was acknowledged as {sorted(places)}"
                )
            told: set[Message] = set(sent.acknowledged)
            for answer in told:
                if answer.digest != sent.digest:
                    yield Violation("wrong", f"{answer.name} was acknowledged with another body")
                place = (answer.conversation_id, answer.stream, answer.seq, answer.client_id)
                if place in there:
                    continue
                row = by_id.get((answer.conversation_id, answer.client_id))
                if row is None:
                    yield Violation(
                        "lost", f"{answer.name} ({sent.client_id} of {sent.sender}) is not stored"
                    )
                else:
                    yield Violation(
                        "out_of_order",
                        f"{answer.name} was acknowledged, but is stored as {row.stream} {row.seq}",
                    )

    def _sent_well(self) -> Iterable[Violation]:
        """A sender waits for its acknowledgement, so what it sends next has a higher seq."""
        last: dict[tuple[str, int, str], Message] = {}
        for sent in sorted(self.sent.values(), key=lambda each: each.begun_at):
            if sent.refused:
                yield Violation("refused", f"{sent.client_id} of {sent.sender}: {sent.refused}")
            elif not sent.acknowledged:
                yield Violation(
                    "unacknowledged",
                    f"{sent.client_id} of {sent.sender} in conversation {sent.conversation_id}",
                )
            for answer in sent.acknowledged[:1]:
                key = (sent.sender, answer.conversation_id, answer.stream)
                before = last.get(key)
                if before is not None and before.seq >= answer.seq:
                    yield Violation(
                        "out_of_order",
                        f"{answer.name} of {sent.sender} was sent after seq {before.seq}"
                        " had been acknowledged",
                    )
                last[key] = answer

    def _shown_well(self, stored: list[Message], read_at: float) -> Iterable[Violation]:
        """Every subscriber saw every row of what it watches, as it is stored, and nothing else."""
        streams: dict[tuple[int, str], dict[int, Message]] = defaultdict(dict)
        place_of: dict[tuple[int, str], Message] = {}
        for row in stored:
            streams[row.conversation_id, row.stream][row.seq] = row
            place_of[row.conversation_id, row.client_id] = row
        for watch in self.watches.values():
            rows = streams[watch.conversation_id, watch.stream]
            for seq in sorted(rows.keys() - watch.seen.keys()):
                yield Violation("never_delivered", f"{watch.name} never saw seq {seq}")
            shown_as: dict[str, int] = {}
            for seq, (message, sight) in sorted(watch.seen.items()):
                if seq in rows or sight.at <= read_at:
                    yield from self._one_sight(watch, message, rows.get(seq), place_of)
                earlier = shown_as.setdefault(message.client_id, seq)
                if earlier != seq:
                    yield Violation(
                        "doubled",
                        f"{watch.name} was shown {message.client_id} as seq {earlier} and {seq}",
                    )

    def _one_sight(
        self,
        watch: Watch,
        message: Message,
        row: Message | None,
        place_of: dict[tuple[int, str], Message],
    ) -> Iterable[Violation]:
        sent = self.sent.get(message.client_id)
        if sent is None:
            if message.sender_type != "system":
                yield Violation(
                    "foreign", f"{watch.name} was shown seq {message.seq} that none of us sent"
                )
        elif sent.digest != message.digest:
            yield Violation("wrong", f"{watch.name} was shown seq {message.seq} with another body")
        if row is not None and row.client_id == message.client_id:
            return
        place = place_of.get((watch.conversation_id, message.client_id))
        if place is None:
            yield Violation(
                "phantom",
                f"{watch.name} was shown seq {message.seq} ({message.client_id}), not stored",
            )
        else:
            yield Violation(
                "out_of_order",
                f"{watch.name} was shown {message.client_id} as seq {message.seq},"
                f" stored as {place.stream} {place.seq}",
            )

    def _figures(self, stored: list[Message]) -> dict[str, int]:
        ways = Counter(
            sight.how for watch in self.watches.values() for _, sight in watch.seen.values()
        )
        return {
            "sent": len(self.sent),
            "acknowledged": sum(bool(sent.acknowledged) for sent in self.sent.values()),
            "stored": len(stored),
            "stored_by_system": sum(row.sender_type == "system" for row in stored),
            "subscribed_streams": len(self.watches),
            "shown": sum(ways.values()),
            "live": ways["live"],
            "own_acknowledgement": ways["ack"],
            "by_catching_up": ways["hole"] + ways["subscribed"] + ways["resync"],
            "only_by_poll": ways["poll"],
        }


def _shortened(seqs: Sequence[int]) -> str:
    shown = ", ".join(str(seq) for seq in seqs[:12])
    return f"{shown} …" if len(seqs) > 12 else shown
