"""The Pusher Channels protocol without sockets: what a client's message means and what to answer.

Public source: https://pusher.com/docs/channels/library_auth_reference/pusher-websockets-protocol/
and …/auth-signatures/. A :class:`Session` is fed the text of each message and gives back
:data:`Action` values; whoever owns the socket carries them out.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, TypeGuard

import orjson

from app.bus.events import CACHE_PREFIXES
from app.gateway.applications import Application, Applications

PROTOCOL_VERSIONS: Final = frozenset((5, 6, 7))  # 6 and 7 only added what older clients ignore
_PLAIN_VERSIONS: Final = frozenset(map(str, PROTOCOL_VERSIONS))
ACTIVITY_TIMEOUT_SECONDS: Final = 60
MAX_CHANNEL_NAME_CHARACTERS: Final = 164
_CHANNEL_NAME: Final = re.compile(rf"[A-Za-z0-9_\-=@,.;]{{1,{MAX_CHANNEL_NAME_CHARACTERS}}}")
_SOCKET_ID_PART: Final = 10**9
ACCESS_CHANGED: Final = "Your access has changed: reconnect"
MAX_EVENT_NAME_CHARACTERS: Final = 200
MAX_EVENT_DATA_BYTES: Final = 10 * 1024
MAX_USER_INFO_BYTES: Final = 1024
# The channel of one signed-in user; its name has characters that other channels may not have.
USER_CHANNEL_PREFIX: Final = "#server-to-user-"
_USER_ID: Final = re.compile(r"[^\x00-\x1f\x7f]{1,128}")


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
    UNAUTHORIZED = 4009  # also a pusher:error beside an open socket: a wrong signature
    OVER_CAPACITY = 4100
    RECONNECT = 4200
    NO_PONG = 4201
    INACTIVE = 4202
    CLIENT_EVENT_REJECTED = 4301


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
class Enter:
    """Register the socket in a presence channel as ``user_id`` with ``user_info`` (JSON)."""

    channel: str
    user_id: str
    user_info: bytes


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """Take the socket out of the channel."""

    channel: str


@dataclass(frozen=True, slots=True)
class Publish:
    """Give this message to the others in the channel, on all nodes."""

    channel: str
    message: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """Close the socket with a pusher:error of the same code."""

    code: Code
    message: str


Action = Send | Subscribe | Enter | Unsubscribe | Publish | Close


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
    return (
        rb'{"event":"pusher:connection_established","data":'
        rb'"{\"socket_id\":\"%b\",\"activity_timeout\":%d}"}'
        % (socket_id.encode(), activity_timeout_seconds)
    )


def subscription_succeeded(channel: str) -> bytes:
    """Tells the client that from now on it gets the channel's events."""
    return _message("pusher_internal:subscription_succeeded", "{}", channel)


def presence_succeeded(channel: str, members: Mapping[str, bytes]) -> bytes:
    """:func:`subscription_succeeded` with who is there: user id -> user_info (JSON)."""
    presence = {
        "count": len(members),
        "ids": list(members),
        "hash": {user_id: orjson.Fragment(info) for user_id, info in members.items()},
    }
    data = orjson.dumps({"presence": presence}).decode()
    return _message("pusher_internal:subscription_succeeded", data, channel)


def member_added(channel: str, user_id: str, user_info: bytes) -> bytes:
    """Tells the others in a presence channel that a user has come."""
    data = orjson.dumps({"user_id": user_id, "user_info": orjson.Fragment(user_info)}).decode()
    return _message("pusher_internal:member_added", data, channel)


def member_removed(channel: str, user_id: str) -> bytes:
    """Tells the others in a presence channel that a user has gone."""
    data = orjson.dumps({"user_id": user_id}).decode()
    return _message("pusher_internal:member_removed", data, channel)


def signin_success(user_data: str) -> bytes:
    """Tells the client that it has signed in as the user that ``user_data`` (JSON) describes."""
    return _message("pusher:signin_success", orjson.dumps({"user_data": user_data}).decode())


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


def check_connect(
    applications: Applications, path: str, query: Mapping[str, str], origin: str
) -> Application | Rejection:
    """The application that a WebSocket for ``path`` (percent-decoded) belongs to, or why not.

    ``origin`` is the page's (RFC 6454 §7), empty when the client told none. A socket with a
    rejection is accepted first and then gets the rejection as a pusher:error, because a browser
    shows a page nothing of an HTTP error.
    """
    prefix, _, key = path.rpartition("/")
    if prefix != "/app" or not key:
        return Rejection(Code.PATH_NOT_FOUND, "Path not found: connect to /app/KEY")
    application = applications.by_key.get(key)
    if application is None:
        return Rejection(Code.NO_SUCH_APPLICATION, "There is no application with this key")
    wrong_version = _check_version(query.get("protocol", ""))
    if wrong_version is not None:
        return wrong_version
    if not application.enabled:
        return Rejection(Code.APPLICATION_DISABLED, "This application is disabled")
    if not application.allows_origin(origin):
        return Rejection(Code.UNAUTHORIZED, "Origin not allowed")
    return application


def _check_version(version: str) -> Rejection | None:
    if not version:
        return Rejection(Code.NO_VERSION, "No protocol version supplied: add ?protocol=7")
    if version in _PLAIN_VERSIONS:
        return None
    if not re.fullmatch(r"[0-9]{1,4}", version):
        return Rejection(Code.INVALID_VERSION, "Invalid version string: add ?protocol=7")
    if int(version) not in PROTOCOL_VERSIONS:
        return Rejection(Code.UNSUPPORTED_VERSION, "Unsupported protocol version: use 7")
    return None


def random_below(read: Callable[[int], bytes] = os.urandom) -> Callable[[int], int]:
    """A function that gives a number from 0 to below its argument, which is at most 10⁹.

    Reads randomness in blocks: a system call for each number would be 7 % of a new connection.
    """

    def numbers() -> Iterator[int]:
        while True:
            yield from array("Q", read(4096))

    source = numbers()
    # the 64 bits are scaled, not cut, so that no number is likelier than another by over 10⁻¹⁰
    return lambda limit: next(source) * limit >> 64


def make_socket_id(random_below: Callable[[int], int]) -> str:
    """A socket id such as 123.456, unlike every other one on any node with near certainty."""
    return f"{random_below(_SOCKET_ID_PART)}.{random_below(_SOCKET_ID_PART)}"


# --- channels --------------------------------------------------------------------------------


def is_channel_name(name: str) -> bool:
    """Whether ``name`` has only the documented characters and at most 164 of them."""
    return _CHANNEL_NAME.fullmatch(name) is not None


def user_channel(user_id: str) -> str:
    """The channel that carries events for one signed-in user."""
    return USER_CHANNEL_PREFIX + user_id


def is_user_id(value: object) -> TypeGuard[str]:
    """Whether ``value`` may be the id of a user: 1 to 128 characters, none of them control."""
    return isinstance(value, str) and _USER_ID.fullmatch(value) is not None


def is_presence(channel: str) -> bool:
    """Whether the members of this channel are told of each other."""
    return channel.startswith("presence-")


def remembers(channel: str) -> bool:
    """Whether this is a cache channel, whose last event is sent to those who come later."""
    return channel.startswith(CACHE_PREFIXES)


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


def sign_user(application: Application, socket_id: str, user_data: str) -> str:
    """The ``auth`` value of a pusher:signin: ``key:hex`` (HMAC-SHA256, auth-signatures)."""
    text = f"{socket_id}::user::{user_data}"
    digest = hmac.new(application.secret, text.encode(), hashlib.sha256).hexdigest()
    return f"{application.key}:{digest}"


# --- one client ------------------------------------------------------------------------------


class Session:
    """One connected client: its socket id and the names of the channels that it is in.

    ``user`` is who has signed in. ``owners`` are those for whom the back end has signed
    subscriptions (``owner`` in the signed channel data), one to a line: whoever loses access is
    found by that, whatever its client does. Both are empty until they are known.
    """

    # No set, no dict, no list: most sockets are in a few channels and an empty set has 216 bytes.
    __slots__ = (
        "_allowance",
        "application",
        "channels",
        "owners",
        "presences",
        "socket_id",
        "user",
    )

    def __init__(self, application: Application, socket_id: str) -> None:
        self.application = application
        self.socket_id = socket_id
        self.channels: tuple[str, ...] = ()
        # (channel, id of the user there) of the presence channels
        self.presences: tuple[tuple[str, str], ...] = ()
        self.user = ""
        self.owners = ""
        self._allowance = 0.0

    @property
    def authorized(self) -> bool:
        """Whether the back end has vouched for this client: by a sign-in or a signed channel."""
        return bool(self.user) or any(needs_signature(name) for name in self.channels)

    def belongs_to(self, owner: str) -> bool:
        """Whether the back end has signed a subscription for ``owner``."""
        return bool(self.owners) and owner in self.owners.split("\n")

    def user_id_in(self, channel: str) -> str:
        """Who this socket is in a presence channel; empty when it is not in it."""
        return next((user_id for name, user_id in self.presences if name == channel), "")

    def receive(self, text: bytes, now: float = 0.0) -> tuple[Action, ...]:
        """What to do about one text message of the client; ``now`` is Unix time in seconds."""
        try:
            message = orjson.loads(text)
        except orjson.JSONDecodeError:
            message = None
        event = message.get("event") if isinstance(message, dict) else None
        if not isinstance(event, str):
            return (Send(error('The message is not a JSON object with an "event".')),)
        match event:
            case "pusher:ping":
                return (Send(PONG),)
            case "pusher:pong":
                return ()
            case "pusher:subscribe":
                actions = self._subscribe(_data_of(message), now)
            case "pusher:unsubscribe":
                actions = self._unsubscribe(_data_of(message))
            case "pusher:signin":
                actions = self._sign_in(_data_of(message))
            case _ if event.startswith("client-"):
                actions = self._client_event(event, message, now)
            case _:
                reason = "This event is not supported: a client sends pusher:* or client-* events."
                actions = (Send(error(reason)),)
        return actions

    # --- channels

    def _subscribe(self, data: dict[str, Any], now: float) -> tuple[Action, ...]:
        channel = data.get("channel")
        if not isinstance(channel, str) or not (
            is_channel_name(channel) or channel.startswith(USER_CHANNEL_PREFIX)
        ):
            name = channel[:MAX_CHANNEL_NAME_CHARACTERS] if isinstance(channel, str) else ""
            reason = (
                f"A channel name has 1 to {MAX_CHANNEL_NAME_CHARACTERS} letters, digits or _-=@,.;"
            )
            return (Send(subscription_error(name, "InvalidChannel", reason, 400)),)
        if channel in self.channels:
            return (Send(error(f"Existing subscription to channel {channel}")),)
        refusal = self._subscription_refusal(channel, data, now)
        if refusal:
            return refusal
        if is_presence(channel):
            return self._enter(channel, _object(data.get("channel_data")))
        self.channels = (*self.channels, channel)
        return (Subscribe(channel),)

    def _enter(self, channel: str, member: dict[str, Any]) -> tuple[Action, ...]:
        """Join a presence channel as whom the signed channel data describe."""
        user_id, user_info = member.get("user_id"), orjson.dumps(member.get("user_info") or {})
        if isinstance(user_id, int) and not isinstance(user_id, bool):
            user_id = str(user_id)  # ids of a database are mostly numbers
        if not is_user_id(user_id):
            reason = "channel_data needs a user_id of 1 to 128 characters."
            return (Send(subscription_error(channel, "InvalidMember", reason, 400)),)
        if len(user_info) > MAX_USER_INFO_BYTES:
            reason = f"The user_info of channel_data has at most {MAX_USER_INFO_BYTES} bytes."
            return (Send(subscription_error(channel, "InvalidMember", reason, 413)),)
        self.channels = (*self.channels, channel)
        self.presences = (*self.presences, (channel, user_id))
        return (Enter(channel, user_id, user_info),)

    def topics(self) -> list[bytes]:
        """The Redis channels of the channels that the socket is in."""
        return [self.application.topic_prefix + name.encode() for name in self.channels]

    def forget(self, channel: str) -> None:
        """The socket is no longer in ``channel``."""
        self.channels = tuple(name for name in self.channels if name != channel)
        if self.presences:
            self.presences = tuple(each for each in self.presences if each[0] != channel)

    def _subscription_refusal(
        self, channel: str, data: dict[str, Any], now: float
    ) -> tuple[Action, ...]:
        """Why this socket may not join a channel; empty when it may."""
        limit = self.application.max_channels_per_socket
        if len(self.channels) >= limit:
            reason = f"One socket may be in {limit} channels: leave some first."
            return (Send(subscription_error(channel, "LimitReached", reason, 429)),)
        if needs_signature(channel):
            if not self._is_signed(channel, data):
                reason = "The signature is missing or not valid for this socket_id and channel."
                return _unauthorized(channel, reason)
            if "channel_data" in data and not self._learn_owner(data["channel_data"], now):
                return _unauthorized(channel, "The signature is too old.")
        elif channel[0] == "#" and channel != user_channel(self.user):
            return _unauthorized(channel, "Sign in as this user first.")
        return ()

    def _is_signed(self, channel: str, data: dict[str, Any]) -> bool:
        auth, channel_data = data.get("auth"), data.get("channel_data")
        if not isinstance(auth, str) or not (channel_data is None or isinstance(channel_data, str)):
            return False
        expected = sign_channel(self.application, self.socket_id, channel, channel_data)
        return hmac.compare_digest(auth.encode(), expected.encode())

    def _learn_owner(self, channel_data: str | None, now: float) -> bool:
        """Note whom the back end has signed a subscription for, if its channel data says so.

        False when it also says ``until`` when (Unix time) the signature is valid and that is over.
        """
        fields = _object(channel_data)
        owner, until = fields.get("owner"), fields.get("until")
        if isinstance(until, int) and until < now:
            return False
        if is_user_id(owner) and not self.belongs_to(owner):
            self.owners = f"{self.owners}\n{owner}" if self.owners else owner
        return True

    def _unsubscribe(self, data: dict[str, Any]) -> tuple[Action, ...]:
        channel = data.get("channel")
        if channel not in self.channels:
            return ()
        self.forget(channel)
        return (Unsubscribe(channel),)

    # --- users

    def _sign_in(self, data: dict[str, Any]) -> tuple[Action, ...]:
        auth, user_data = data.get("auth"), data.get("user_data")
        if not isinstance(auth, str) or not isinstance(user_data, str):
            return (Close(Code.UNAUTHORIZED, "A sign-in needs auth and user_data"),)
        expected = sign_user(self.application, self.socket_id, user_data)
        if not hmac.compare_digest(auth.encode(), expected.encode()):
            return (Close(Code.UNAUTHORIZED, "The signature of the sign-in is not valid"),)
        user_id = _object(user_data).get("id")
        if not is_user_id(user_id):
            return (Close(Code.UNAUTHORIZED, "user_data needs an id of 1 to 128 characters"),)
        if self.user not in ("", user_id):
            return (Send(error("This socket has signed in as another user: reconnect first.")),)
        self.user = user_id
        return (Send(signin_success(user_data)),)

    # --- client events

    def _client_event(self, event: str, message: dict[str, Any], now: float) -> tuple[Action, ...]:
        channel, data = message.get("channel"), orjson.dumps(message.get("data"))
        code = None
        if not self.application.client_events:
            refusal = "Client events are not enabled for this application."
        elif not isinstance(channel, str) or not needs_signature(channel):
            refusal = "Client events are for private and presence channels only."
        elif channel.startswith("private-encrypted-"):
            refusal = "Client events are not possible on encrypted channels."
        elif channel not in self.channels:
            code = Code.UNAUTHORIZED
            refusal = "Subscribe to the channel of a client event before sending it."
        elif len(event) > MAX_EVENT_NAME_CHARACTERS:
            refusal = f"The name of an event has at most {MAX_EVENT_NAME_CHARACTERS} characters."
        elif len(data) > MAX_EVENT_DATA_BYTES:
            refusal = f"The data of a client event has at most {MAX_EVENT_DATA_BYTES} bytes."
        elif not self._may_send(now):
            code = Code.CLIENT_EVENT_REJECTED
            limit = self.application.client_events_per_second
            refusal = f"More than {limit} client events in a second: this one was dropped."
        else:
            fields = {"event": event, "channel": channel, "data": orjson.Fragment(data)}
            user_id = self.user_id_in(channel)
            if user_id:
                fields["user_id"] = user_id
            return (Publish(channel, orjson.dumps(fields)),)
        return (Send(error(refusal, code)),)

    def _may_send(self, now: float) -> bool:
        """Whether another client event is within the rate, which allows a second's worth at once.

        The generic cell rate algorithm (ITU-T I.371, annex A): one number per socket.
        """
        interval = 1 / self.application.client_events_per_second
        if self._allowance - now > 2.0:
            self._allowance = now  # somebody has set the clock back
        expected = max(self._allowance, now) + interval
        if expected - now > 1.0 + interval / 2:
            return False
        self._allowance = expected
        return True


def _unauthorized(channel: str, reason: str) -> tuple[Action, ...]:
    return (
        Send(subscription_error(channel, "AuthError", reason, 401)),
        Send(error(f"Not authorized for {channel}: {reason}", Code.UNAUTHORIZED)),
    )


def _data_of(message: dict[str, Any]) -> dict[str, Any]:
    """The data of a client's message; some clients send it as a JSON string."""
    data = message.get("data")
    if isinstance(data, str):
        return _object(data)
    return data if isinstance(data, dict) else {}


def _object(text: str | None) -> dict[str, Any]:
    """A JSON object; empty when ``text`` is none."""
    try:
        value = orjson.loads(text or "")
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
