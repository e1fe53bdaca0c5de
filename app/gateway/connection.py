"""One client's socket: an ``asyncio.Protocol`` around the frame reader and the Pusher session.

An idle socket has no task, no timer and no lock: the node's one sweep looks after all of them.
"""

from __future__ import annotations

import asyncio
from enum import IntEnum
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, cast

from app.gateway import frames, pusher
from app.gateway.pusher import ACCESS_CHANGED, Code

if TYPE_CHECKING:
    from app.gateway.node import Node

WRITE_BUFFER_BYTES: Final = 1024 * 1024

_PONG_FRAME: Final = frames.text_frame(pusher.PONG)
_PING_FRAME: Final = frames.text_frame(pusher.PING)


class State(IntEnum):
    """Where a socket is in its life."""

    HANDSHAKE = 0
    OPEN = 1
    CLOSING = 2  # our close frame is sent, the peer's or its end of the stream is awaited
    CLOSED = 3


class Connection(asyncio.Protocol):
    """A client's socket. ``seen`` is the node's tick (seconds) of its last sign of life, ``born``
    how many changes of access the node had heard of when it came, and ``place`` what it is counted
    under when its application limits sockets per address."""

    __slots__ = (
        "_head",
        "_node",
        "_reader",
        "born",
        "outgoing",
        "pinged",
        "place",
        "seen",
        "session",
        "state",
        "writer",
    )

    writer: asyncio.Transport

    def __init__(self, node: Node) -> None:
        self._node = node
        self._head: bytes | None = b""
        self._reader: frames.FrameReader | None = None
        self.session: pusher.Session | None = None
        self.outgoing: list[bytes] | None = None
        self.state = State.HANDSHAKE
        self.pinged = False
        self.born = node.cluster.changes
        self.place = ""
        self.seen = node.tick

    @property
    def socket_id(self) -> str:
        """The Pusher socket id; empty before the connection is established."""
        return self.session.socket_id if self.session is not None else ""

    @property
    def peer(self) -> str:
        """The address of the other end of the connection."""
        peer = self.writer.get_extra_info("peername")
        return str(peer[0]) if peer else ""

    # --- called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: the node counts the socket and its sweep watches it."""
        self.writer = cast(asyncio.Transport, transport)
        self.writer.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self._node.opened(self)

    def data_received(self, data: bytes) -> None:
        """Feed the handshake, later the frame reader."""
        if self.state is State.OPEN:
            self.seen = self._node.tick
            self.pinged = False
            self._read(data)
        elif self.state is State.HANDSHAKE:
            self._shake_hands((self._head or b"") + data)
        elif self._reader is not None and any(
            opcode == frames.OP_CLOSE for opcode, _ in self._reader.feed(data)
        ):
            self.writer.close()  # the peer has answered our close frame

    def eof_received(self) -> bool:
        """The peer has ended its side: nothing more can come, so close."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """End: leave all channels."""
        self._leave_all()
        self.state = State.CLOSED
        self._node.closed(self)

    def pause_writing(self) -> None:
        """More than the write buffer's limit is unsent: the reader is too slow, cut it off.

        It reconnects and asks the HTTP API for what it missed; keeping on would cost memory
        without end. Not at once, because a fan-out may be walking over the members just now.
        """
        self._node.slow_reader(self)

    # --- called by the node, its channels and its sweep

    def send(self, message: bytes) -> None:
        """Send one text message."""
        self.writer.write(frames.text_frame(message))

    def subscribed(self, channel: str) -> None:
        """The events of ``channel`` flow from now on: tell the client."""
        self.send(pusher.subscription_succeeded(channel))

    def presence_refused(self, channel: str) -> None:
        """A presence channel has all the members that it may have: tell the client."""
        if self.session is not None:
            self.session.forget(channel)
            self._node.presence.leave(
                self.session.application.topic_prefix, channel, self, at_once=True
            )
            limit = self.session.application.max_presence_members
            reason = f"This presence channel has its {limit} members already."
            self.send(pusher.subscription_error(channel, "LimitReached", reason, 429))

    def ping(self) -> None:
        """Ask for a sign of life."""
        self.pinged = True
        self.writer.write(_PING_FRAME)

    def close(self, code: int, reason: str, *, error: bool = True) -> None:
        """Close with a close frame; with ``error``, a pusher:error of the same code goes first."""
        if self.state is not State.OPEN:
            self.abort()
            return
        frame = frames.close_frame(code, reason)
        if error:
            frame = frames.text_frame(pusher.error(reason, Code(code))) + frame
        self._leave_all()
        self.writer.write(frame)
        self._wait_for_close()

    def abort(self) -> None:
        """Cut the connection without a word."""
        self.writer.abort()

    def cut_off(self) -> None:
        """Close a reader that is too slow: nothing more is added to what is unsent but the code.

        If it reads on within CLOSING_SECONDS it finds a close frame with 4200, reconnect, behind
        the rest. A peer that never reads cannot be told: its kernel buffer is full, a frame can
        only come after what is in ours, so it is aborted by the sweep.
        """
        self.close(Code.RECONNECT, "Too slow: reconnect and ask for what is missing", error=False)

    # --- inside

    def _wait_for_close(self) -> None:
        self.state = State.CLOSING
        self.seen = self._node.tick

    def _leave_all(self) -> None:
        if self.session is not None:
            names, self.session.channels = self.session.channels, ()
            self.session.presences = ()
            prefix = self.session.application.topic_prefix
            for name in names:
                self._node.leave(prefix, name, self)

    def _shake_hands(self, head: bytes) -> None:
        end = head.find(b"\r\n\r\n")
        if end < 0 and len(head) <= frames.MAX_HEAD_BYTES:
            self._head = head
            return
        self._head = None
        if end < 0 or end > frames.MAX_HEAD_BYTES:
            self._refuse(
                frames.Refusal(
                    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                    f"The request's head has more than {frames.MAX_HEAD_BYTES} bytes.",
                )
            )
            return
        request = frames.parse_request(head[:end])
        if isinstance(request, frames.Refusal):
            self._refuse(request)
            return
        answer = frames.check_upgrade(request)
        if isinstance(answer, frames.Refusal):
            self._refuse(answer)
            return
        if self._node.draining:
            self._refuse(
                frames.Refusal(
                    HTTPStatus.SERVICE_UNAVAILABLE,
                    "This gateway is about to stop: connect again to reach another one.",
                    (("Retry-After", "1"),),
                )
            )
            return
        application = self._node.admit(self, request)
        if isinstance(application, pusher.Rejection):
            self._reject(answer, application)
            return
        self._reader = frames.FrameReader(application.max_message_bytes)
        self.session = pusher.Session(application, self._node.make_socket_id())
        self.state = State.OPEN
        self.seen = self._node.tick
        self.writer.write(
            answer
            + frames.text_frame(
                pusher.connection_established(
                    self.session.socket_id, pusher.ACTIVITY_TIMEOUT_SECONDS
                )
            )
        )
        self._node.established(self, application)
        if len(head) > end + 4:
            self._read(head[end + 4 :])

    def _reject(self, answer: bytes, rejection: pusher.Rejection) -> None:
        """Upgrade, say why not, close."""
        self._reader = frames.FrameReader()
        self._node.rejected(rejection.code)
        self.writer.write(
            answer
            + frames.text_frame(pusher.error(rejection.message, rejection.code))
            + frames.close_frame(rejection.code, rejection.message)
        )
        self._wait_for_close()

    def _refuse(self, refusal: frames.Refusal) -> None:
        self._node.refused(refusal.status)
        self.writer.write(refusal.to_bytes())
        self._wait_for_close()
        self.writer.close()

    def _read(self, data: bytes) -> None:
        reader, session = self._reader, self.session
        if reader is None or session is None:
            return
        for opcode, payload in reader.feed(data):
            if opcode == frames.OP_TEXT:
                self._node.messages += 1
                for action in session.receive(payload, self._node.clock()):
                    self._act(session, action)
                if self.state is not State.OPEN:
                    return
            elif opcode == frames.OP_PING:
                self.writer.write(frames.build_frame(frames.OP_PONG, payload))
            elif opcode == frames.OP_CLOSE:
                self._answer_close(payload)
                return
            elif opcode == frames.OP_BINARY:
                self._fail(frames.Violation(frames.CLOSE_UNSUPPORTED, "only text messages"))
                return
        if reader.violation is not None:
            self._fail(reader.violation)

    def _act(self, session: pusher.Session, action: pusher.Action) -> None:
        node, prefix = self._node, session.application.topic_prefix
        match action:
            case pusher.Send(message):
                self.writer.write(
                    _PONG_FRAME if message is pusher.PONG else frames.text_frame(message)
                )
            case pusher.Subscribe() | pusher.Enter() if (
                node.cluster.changed and node.cluster.is_outdated(session, self.born)
            ):
                self.close(Code.RECONNECT, ACCESS_CHANGED)
            case pusher.Subscribe(channel) if pusher.remembers(channel):
                node.join_cache_channel(prefix, channel, self)
            case pusher.Subscribe(channel):
                node.channels.join(prefix, channel, self)
            case pusher.Enter(channel, user_id, user_info):
                node.presence.join(prefix, channel, user_id, user_info, self)
            case pusher.Unsubscribe(channel) if pusher.is_presence(channel):
                node.presence.leave(prefix, channel, self, at_once=True)
            case pusher.Unsubscribe(channel):
                node.leave(prefix, channel, self)
            case pusher.Publish(channel, message):
                node.publish(prefix, channel, session.socket_id, message)
            case pusher.Close(code, message):
                node.rejected(code)
                self.close(code, message)

    def _answer_close(self, payload: bytes) -> None:
        """RFC 6455 §5.5.1: echo the peer's code, then the server closes first (§7.1.1)."""
        code = int.from_bytes(payload[:2], "big") if payload else frames.CLOSE_NO_STATUS
        self._leave_all()
        self.writer.write(frames.close_frame(code))
        self._wait_for_close()
        self.writer.close()

    def _fail(self, violation: frames.Violation) -> None:
        """RFC 6455 §7.1.7: say why, then end our side; the rest of the stream is not read."""
        self._node.failed(violation)
        self._leave_all()
        self.writer.write(frames.close_frame(violation.code, violation.reason))
        self._wait_for_close()
        if self.writer.can_write_eof():
            self.writer.write_eof()
