"""Cache channels: whoever subscribes gets the channel's last event first.

Public source: https://pusher.com/docs/channels/using_channels/cache-channels/. The last event is
kept in Redis by whoever publishes (:func:`app.bus.events.publish`), so the fan-out has nothing to
do with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from app.gateway.channels import Writer
from app.gateway.frames import text_frame


class Subscriber(Protocol):
    """What a newcomer needs of its socket."""

    @property
    def writer(self) -> Writer:
        """Its transport."""

    @property
    def socket_id(self) -> str:
        """The Pusher socket id."""


class Newcomer:
    """Stands in a cache channel for a socket until the channel's last event was read.

    The order is: the events flow, Redis is asked for the last one, the client is told. The newest
    event that comes in between is kept here. It is the last one itself or a newer one, so that
    what Redis answers is then not sent: the client would take an old state for the present one.
    """

    __slots__ = ("_connection", "_kept", "_read", "_tell", "outgoing")

    def __init__(
        self,
        connection: Subscriber,
        read: Callable[[Callable[[Any], None]], None],
        tell: Callable[[bytes | None], None],
    ) -> None:
        """``read`` asks Redis and hands the reply to a function; ``tell`` is called once, with
        the frames to send first, or None when there is no last event."""
        self.outgoing: list[bytes] | None = None
        self._connection = connection
        self._read = read
        self._tell: Callable[[bytes | None], None] | None = tell
        self._kept = b""

    @property
    def writer(self) -> Newcomer:
        """Events come here instead of to the socket's transport."""
        return self

    @property
    def socket_id(self) -> str:
        """The socket's id, for events that leave it out."""
        return self._connection.socket_id

    def write(self, data: bytes) -> None:
        """Keep what came last; what came before it nobody has subscribed to."""
        self._kept = data

    def subscribed(self, _channel: str) -> None:
        """The events flow: what is read from now on is not older than the first of them."""
        self._read(self._answer)

    def cancel(self) -> None:
        """The socket has left: tell nobody."""
        self._tell = None

    def _answer(self, reply: Any) -> None:
        tell, self._tell = self._tell, None
        if tell is None:
            return
        if self._kept:
            tell(self._kept)
        else:
            # without an answer the client learns that it has to ask elsewhere
            tell(text_frame(reply) if isinstance(reply, bytes) else None)
