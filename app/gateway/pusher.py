"""The Pusher Channels protocol without sockets: what a client's message means and what to answer.

Public source: https://pusher.com/docs/channels/library_auth_reference/pusher-websockets-protocol/
and …/auth-signatures/. A :class:`Session` is fed the text of each message and gives back
:data:`Action` values; whoever owns the socket carries them out.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import orjson

PROTOCOL_VERSIONS: Final = frozenset((5, 6, 7))  # 6 and 7 only added what older clients ignore
ACTIVITY_TIMEOUT_SECONDS: Final = 60
MAX_CHANNELS_PER_SOCKET: Final = 200
MAX_CHANNEL_NAME_CHARACTERS: Final = 164
_CHANNEL_NAME: Final = re.compile(rf"[A-Za-z0-9_\-=@,.;]{{1,{MAX_CHANNEL_NAME_CHARACTERS}}}")
_SOCKET_ID_PART: Final = 10**9


class Code(IntEnum):
    """The documented codes. 40xx: do not reconnect; 41xx: reconnect after a while; 42xx: at once.

    43xx are errors that leave the socket open.
    """

    TLS_ONLY = 4000
    NO_SUCH_APPLICATION = 4001
    APPLICATION_DISABLED = 4003
    OVER_QUOTA = 4004
    PATH_NOT_FOUND = 4005
    INVALID_VERSION = 4006
    UNSUPPORTED_VERSION = 4007
    NO_VERSION = 4008
    UNAUTHORIZED = 4009
    OVER_CAPACITY = 4100
    RECONNECT = 4200
    NO_PONG = 4201
    INACTIVE = 4202
    CLIENT_EVENT_REJECTED = 4301


@dataclass(frozen=True, slots=True)
class Application:
    """The one Channels application: its id in the HTTP API, public key and signing secret."""

    id: str
    key: str
    secret: bytes

    def __repr__(self) -> str:
        return f"Application(id={self.id!r})"


# --- what the socket's owner has to do -------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """Send this text message (UTF-8, not framed)."""

    message: bytes


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Register the socket, and when its events flow, send :func:`subscription_succeeded`."""

    channel: str


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Take the socket out of the channel."""

    channel: str


Action = Send | Subscribe | Unsubscribe


@dataclass(frozen=True, slots=True)
class Rejection:
    """A pusher:error after which the socket is closed with the same code."""

    code: Code
    message: str


# --- messages of the server ------------------------------------------------------------------


def _message(event: str, data: object, channel: str | None = None) -> bytes:
    fields: dict[str, object] = {"event": event}
    if channel is not None:
        fields["channel"] = channel
    fields["data"] = data
    return orjson.dumps(fields)


PING: Final = _message("pusher:ping", {})
PONG: Final = _message("pusher:pong", {})
# Deskline's own: events may have been missed, ask the HTTP API for what is new
RESYNC: Final = _message("deskline:resync", "{}")


def connection_established(socket_id: str, activity_timeout_seconds: int) -> bytes:
    """The first message of a connection; its data is a JSON string, as the protocol has it."""
    data = {"socket_id": socket_id, "activity_timeout": activity_timeout_seconds}
    return _message("pusher:connection_established", orjson.dumps(data).decode())


def subscription_succeeded(channel: str) -> bytes:
    """Tells the client that from now on it gets the channel's events."""
    return _message("pusher_internal:subscription_succeeded", "{}", channel)


def subscription_error(channel: str, kind: str, error: str, status: int) -> bytes:
    """Tells the client that it is not subscribed; pusher-js hands it to the channel."""
    data = {"type": kind, "error": error, "status": status}
    return _message("pusher:subscription_error", data, channel)


def cache_miss(channel: str) -> bytes:
    """Tells the subscriber of a cache channel that no event is cached."""
    return _message("pusher:cache_miss", "{}", channel)


def error(message: str, code: Code | None = None) -> bytes:
    """A pusher:error; codes below 4300 are only for what also ends or refuses something."""
    return _message("pusher:error", {"code": code, "message": message})


# --- connecting ------------------------------------------------------------------------------


def check_connect(application: Application, path: str, query: dict[str, str]) -> Rejection | None:
    """Whether a WebSocket for ``path`` (percent-decoded) and ``query`` may be used.

    Such a socket is accepted first and then gets the rejection as a pusher:error, because a
    browser shows a page nothing of an HTTP error.
    """
    prefix, _, key = path.rpartition("/")
    version = query.get("protocol", "")
    if prefix != "/app" or not key:
        return Rejection(Code.PATH_NOT_FOUND, "Path not found: connect to /app/KEY")
    if not hmac.compare_digest(key.encode(), application.key.encode()):
        return Rejection(Code.NO_SUCH_APPLICATION, "There is no application with this key")
    if not version:
        return Rejection(Code.NO_VERSION, "No protocol version supplied: add ?protocol=7")
    if not re.fullmatch(r"[0-9]{1,4}", version):
        return Rejection(Code.INVALID_VERSION, "Invalid version string: add ?protocol=7")
    if int(version) not in PROTOCOL_VERSIONS:
        return Rejection(Code.UNSUPPORTED_VERSION, "Unsupported protocol version: use 7")
    return None


def make_socket_id(random_below: Callable[[int], int]) -> str:
    """A socket id such as 123.456, unlike every other one on any node with near certainty."""
    return f"{random_below(_SOCKET_ID_PART)}.{random_below(_SOCKET_ID_PART)}"


# --- channels --------------------------------------------------------------------------------


def is_channel_name(name: str) -> bool:
    """Whether ``name`` has only the documented characters and at most 164 of them."""
    return _CHANNEL_NAME.fullmatch(name) is not None


def needs_signature(channel: str) -> bool:
    """Whether a subscription must carry a signature."""
    return channel.startswith(("private-", "presence-"))


def sign_channel(
    application: Application, socket_id: str, channel: str, channel_data: str | None = None
) -> str:
    """The ``auth`` value of a subscription: ``key:hex`` (HMAC-SHA256, auth-signatures)."""
    text = f"{socket_id}:{channel}" + ("" if channel_data is None else f":{channel_data}")
    digest = hmac.new(application.secret, text.encode(), hashlib.sha256).hexdigest()
    return f"{application.key}:{digest}"


# --- one client ------------------------------------------------------------------------------


class Session:
    """One connected client: its socket id and the names of the channels that it is in."""

    __slots__ = ("application", "channels", "socket_id")

    def __init__(self, application: Application, socket_id: str) -> None:
        self.application = application
        self.socket_id = socket_id
        # A tuple: most sockets are in a few channels, and a set would take 216 bytes at once.
        self.channels: tuple[str, ...] = ()

    def receive(self, text: bytes) -> tuple[Action, ...]:
        """What to do about one text message of the client."""
        try:
            message = orjson.loads(text)
        except orjson.JSONDecodeError:
            message = None
        event = message.get("event") if isinstance(message, dict) else None
        if not isinstance(event, str):
            return (Send(error('The message is not a JSON object with an "event".')),)
        if event == "pusher:ping":
            return (Send(PONG),)
        if event == "pusher:pong":
            return ()
        if event == "pusher:subscribe":
            return self._subscribe(_data_of(message))
        if event == "pusher:unsubscribe":
            return self._unsubscribe(_data_of(message))
        return (Send(error(_unsupported(event))),)

    def _subscribe(self, data: dict[str, Any]) -> tuple[Action, ...]:
        channel = data.get("channel")
        if not isinstance(channel, str) or not is_channel_name(channel):
            name = channel[:MAX_CHANNEL_NAME_CHARACTERS] if isinstance(channel, str) else ""
            return (
                Send(
                    subscription_error(
                        name,
                        "InvalidChannel",
                        f"A channel name has 1 to {MAX_CHANNEL_NAME_CHARACTERS} letters, digits "
                        "or _-=@,.;",
                        400,
                    )
                ),
            )
        if channel in self.channels:
            return (Send(error(f"Existing subscription to channel {channel}")),)
        if channel.startswith("presence-"):
            reason = "Presence channels are not served here."
            return (Send(subscription_error(channel, "UnsupportedChannel", reason, 501)),)
        if len(self.channels) >= MAX_CHANNELS_PER_SOCKET:
            reason = f"One socket may be in {MAX_CHANNELS_PER_SOCKET} channels: leave some first."
            return (Send(subscription_error(channel, "LimitReached", reason, 429)),)
        if needs_signature(channel) and not self._is_signed(channel, data):
            reason = "The signature is missing or not valid for this socket_id and channel."
            return (
                Send(subscription_error(channel, "AuthError", reason, 401)),
                Send(error(f"Not authorized for {channel}: {reason}", Code.UNAUTHORIZED)),
            )
        self.channels = (*self.channels, channel)
        return (Subscribe(channel),)

    def _is_signed(self, channel: str, data: dict[str, Any]) -> bool:
        auth, channel_data = data.get("auth"), data.get("channel_data")
        if not isinstance(auth, str) or not (channel_data is None or isinstance(channel_data, str)):
            return False
        expected = sign_channel(self.application, self.socket_id, channel, channel_data)
        return hmac.compare_digest(auth.encode(), expected.encode())

    def _unsubscribe(self, data: dict[str, Any]) -> tuple[Action, ...]:
        channel = data.get("channel")
        if channel not in self.channels:
            return ()
        self.channels = tuple(name for name in self.channels if name != channel)
        return (Unsubscribe(channel),)


def _data_of(message: dict[str, Any]) -> dict[str, Any]:
    """The data of a client's message; some clients send it as a JSON string."""
    data = message.get("data")
    if isinstance(data, str):
        try:
            data = orjson.loads(data)
        except orjson.JSONDecodeError:
            return {}
    return data if isinstance(data, dict) else {}


def _unsupported(event: str) -> str:
    if event.startswith("client-"):
        return "Client events are not enabled for this application."
    return "This event is not supported: a client sends pusher:* events or client-* events."
