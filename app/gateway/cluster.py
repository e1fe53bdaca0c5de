"""What the gateways tell and ask each other, over Redis.

Every node listens to one control channel of each application and to one of its own for answers.
Messages are JSON objects; ``do`` says what:

- ``reauthorize`` (``owner``): close the owner's sockets so that they come back, 4200;
- ``terminate`` (``user``): close the sockets of a signed-in user, 4009;
- ``count`` (``id``, ``reply``, and ``channels`` or ``prefix``): answer with what is here.

Counts are asked for when somebody wants them, so that no node keeps books about its sockets in
Redis, and a node that has died is in no count.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import orjson
from redis.asyncio import Redis

from app import log
from app.bus import events
from app.gateway.applications import topic_prefix
from app.gateway.connection import Connection, State
from app.gateway.pusher import ACCESS_CHANGED, Code, is_presence
from app.gateway.redis_reader import SILENCE_LIMIT_SECONDS

if TYPE_CHECKING:
    from app.gateway.applications import Application
    from app.gateway.node import Node
    from app.gateway.pusher import Session

# A node that does not answer in this time has died, or its loop stands still.
ANSWER_SECONDS: Final = 1.0
# How long a socket that was there before may not use an owner's signatures: longer than those are
# valid (pusher.py), with the clocks of two machines between.
CHANGE_REMEMBERED_SECONDS: Final = 1800
# What may have been missed before an interruption was noticed, and the clocks of two machines.
CATCH_UP_MARGIN_SECONDS: Final = 60
ASK_AGAIN_SECONDS: Final = 1.0
_CONTROL: Final = events.CONTROL_CHANNEL.encode()


class Unavailable(Exception):
    """This node is cut off from the others: what it could say would not be true."""


@dataclass(slots=True)
class Occupancy:
    """What is known of one channel: its subscriptions and, on presence channels, its users."""

    subscriptions: int = 0
    users: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class _Question:
    """A count that other nodes are answering."""

    answered: asyncio.Event
    by: set[str] = field(default_factory=set)
    wanted: int = 0
    found: dict[str, Occupancy] = field(default_factory=dict)

    def check(self) -> None:
        if self.wanted and len(self.by) >= self.wanted:
            self.answered.set()


class Cluster:
    """This node's part in the conversation of all nodes."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._id = secrets.token_hex(8)
        self._reply_topic = f"deskline:gateway:{self._id}".encode()
        self._questions: dict[str, _Question] = {}
        self._log = log.get("gateway.cluster")
        self._interrupted_at = 0.0
        # the changes of access: how many were heard, and of each owner the last one's number with
        # the tick at which it was heard
        self.changes = 0
        self.changed: dict[str, tuple[int, int]] = {}
        self.malformed = 0

    # --- what is heard

    def topics(self) -> list[bytes]:
        """The Redis channels that this node always listens to."""
        applications = self._node.applications.by_id.values()
        return [self._reply_topic, *(each.topic_prefix + _CONTROL for each in applications)]

    def receive(self, topic: bytes, message: bytes) -> None:
        """Take a message of a Redis channel that has no sockets here."""
        if topic != self._reply_topic and not topic.endswith(_CONTROL):
            return  # an event of a channel that was just left
        try:
            fields = orjson.loads(message)
            if topic == self._reply_topic:
                if "moment" in fields:
                    self._node.pulse.moment(float(fields["moment"]))
                else:
                    self._take_answer(fields)
                return
            application = topic.split(b":", 3)[2].decode()
            match fields["do"]:
                case "reauthorize":
                    self.reauthorize(application, str(fields["owner"]))
                case "terminate":
                    self._close_user(application, str(fields["user"]))
                case "count":
                    self._answer(application, fields)
                case _:
                    self.malformed += 1  # a newer release may say more than we know
        except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError) as error:
            self.malformed += 1
            self._log.warning("control message not understood", error=type(error).__name__)

    def reauthorize(self, application_id: str, owner: str) -> None:
        """Make the sockets of ``owner`` come back, so that every subscription is signed anew.

        A socket that is open but not known to be the owner's yet is refused when it uses a
        signature that was made before (:meth:`is_outdated`).
        """
        tick = self._node.tick
        for name, (_, heard) in list(self.changed.items()):
            if tick - heard > CHANGE_REMEMBERED_SECONDS:
                del self.changed[name]
        self.changed[f"{application_id} {owner}"] = self.changes, tick
        self.changes += 1
        for connection in self._sockets(application_id):
            if connection.session is not None and connection.session.belongs_to(owner):
                connection.close(Code.RECONNECT, ACCESS_CHANGED)

    def is_outdated(self, session: Session, born: int) -> bool:
        """Whether an owner's access has changed since ``born``, the number of changes that were
        heard when the socket was opened."""
        return any(
            self.changed.get(f"{session.application.id} {owner}", (-1, 0))[0] >= born
            for owner in session.owners.split("\n")
        )

    def interrupted(self) -> None:
        """Redis is away: control messages may be missed from now on."""
        self._interrupted_at = self._interrupted_at or self._node.clock()

    def restored(self) -> None:
        """Redis is back: ask for the control messages that were missed."""
        if not self._interrupted_at:
            return
        since = self._interrupted_at - SILENCE_LIMIT_SECONDS - CATCH_UP_MARGIN_SECONDS
        self._interrupted_at = 0.0
        for application_id in self._node.applications.by_id:
            self._ask_for_missed(application_id, since)

    def _ask_for_missed(self, application_id: str, since: float) -> None:
        key = events.control_key(application_id).encode()
        then = partial(self._take_missed, application_id, since)
        self._node.commands.send(b"ZRANGEBYSCORE", key, b"%f" % since, b"+inf", then=then)

    def _take_missed(self, application_id: str, since: float, reply: Any) -> None:
        if isinstance(reply, list):
            for message in reply:
                self.receive(topic_prefix(application_id) + _CONTROL, message)
        elif self._node.listening:
            self._log.warning("missed control messages not read", error=type(reply).__name__)
            asyncio.get_running_loop().call_later(
                ASK_AGAIN_SECONDS, self._ask_for_missed, application_id, since
            )

    def _close_user(self, application_id: str, user: str) -> None:
        for connection in self._sockets(application_id):
            if connection.session is not None and connection.session.user == user:
                connection.close(Code.UNAUTHORIZED, "The application has ended your connections")

    def _sockets(self, application_id: str) -> list[Connection]:
        return [
            connection
            for connection in self._node.connections
            if connection.state is State.OPEN
            and connection.session is not None
            and connection.session.application.id == application_id
        ]

    def _answer(self, application_id: str, question: dict[str, Any]) -> None:
        """Publish what is here of the channels that were asked about."""
        registry = self._node.channels
        application = self._node.applications.by_id.get(application_id)
        if application is None:
            return
        prefix = application.topic_prefix
        topics = (
            [prefix + name.encode() for name in question["channels"]]
            if "channels" in question
            else [
                topic
                for topic in registry.topics()
                if topic.startswith(prefix + question["prefix"].encode())
            ]
        )
        counts: dict[str, int] = {}
        users: dict[str, dict[str, Any]] = {}
        for topic in topics:
            channel = registry.get(topic)
            if channel is None:
                continue
            counts[channel.name] = len(channel.members)
            if is_presence(channel.name):
                users[channel.name] = dict.fromkeys(self._node.presence.users(topic))
        answer = {"id": question["id"], "node": self._id, "counts": counts, "users": users}
        self._node.commands.send(
            self._node.publish_command,
            question["reply"].encode(),
            b"\n" + orjson.dumps(answer),
        )

    def _take_answer(self, answer: dict[str, Any]) -> None:
        question = self._questions.get(answer["id"])
        if question is None or answer["node"] in question.by:
            return
        question.by.add(answer["node"])
        for name, count in answer["counts"].items():
            question.found.setdefault(name, Occupancy()).subscriptions += count
        for name, users in answer["users"].items():
            question.found.setdefault(name, Occupancy()).users |= users
        question.check()

    # --- what is said

    def say_to_ourselves(self, fields: dict[str, Any]) -> None:
        """Publish a message that only this node hears."""
        self._node.commands.send(
            self._node.publish_command, self._reply_topic, b"\n" + orjson.dumps(fields)
        )

    async def tell(self, redis: Redis, application: Application, message: dict[str, Any]) -> int:
        """Say something to all nodes, this one included; gives how many hear it.

        Raises RedisError, OSError or TimeoutError.
        """
        topic = application.topic_prefix + _CONTROL
        command: Any = redis.execute_command
        heard: int = await command(
            self._node.publish_command.decode(), topic, b"\n" + orjson.dumps(message)
        )
        return heard

    async def occupancy(
        self,
        redis: Redis,
        application: Application,
        *,
        channels: list[str] | None = None,
        prefix: str = "",
    ) -> dict[str, Occupancy]:
        """What all nodes have of ``channels``, or of those whose name begins with ``prefix``.

        Channels with nobody in them are left out. Raises :class:`Unavailable` when this node does
        not hear itself, and RedisError, OSError or TimeoutError.
        """
        question = _Question(asyncio.Event())
        name = secrets.token_hex(8)
        about = {"channels": channels} if channels is not None else {"prefix": prefix}
        self._questions[name] = question
        try:
            question.wanted = await self.tell(
                redis,
                application,
                {"do": "count", "id": name, "reply": self._reply_topic.decode(), **about},
            )
            question.check()
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    await question.answered.wait()
            except TimeoutError:
                if self._id not in question.by:
                    raise Unavailable from None
                # Redis still keeps the connection of a machine that is gone
                self._log.warning(
                    "nodes did not answer", wanted=question.wanted, answered=len(question.by)
                )
        finally:
            del self._questions[name]
        return question.found
