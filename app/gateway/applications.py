"""The Channels applications of a gateway: who may connect, with which limits.

The settings name one application, Deskline's own. Further ones come from a JSON file, whose path
is a setting (``DESKLINE_GATEWAY_APPLICATIONS``)::

    {
      "default": {"max_connections_per_address": 200},
      "applications": [
        {"id": "shop", "key": "shop-key", "secret": "…", "allowed_origins": ["*.shop.example"]}
      ]
    }

``default`` holds limits for Deskline's own application. A wrong field is one sentence of a
:class:`app.config.ConfigError`, without the value of a secret.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from app.config import ConfigError, Settings

SETTING: Final = "DESKLINE_GATEWAY_APPLICATIONS"
MAX_FILE_BYTES: Final = 1024 * 1024
MAX_APPLICATIONS: Final = 1000
MAX_ORIGINS: Final = 100
# Others must neither read the secrets nor change who may connect.
FORBIDDEN_MODE: Final = stat.S_IWGRP | stat.S_IXGRP | stat.S_IRWXO
_LABEL: Final = re.compile(r"[A-Za-z0-9_\-]{1,64}")
_SECRET: Final = re.compile(r"\S{16,256}")
_ORIGIN: Final = re.compile(
    r"\*|(?P<scheme>https?://)?(?P<any>\*\.)?(?P<host>[a-z0-9]([a-z0-9.\-]{0,251}[a-z0-9])?|\[[0-9a-f:]{2,39}\])"
    r"(?P<port>:[0-9]{1,5})?"
)


@dataclass(frozen=True, slots=True)
class Application:
    """One Channels application. Limits count what is on one gateway process; 0 is no limit.

    ``allowed_origins`` are patterns of the pages that may connect, ``authorize_seconds`` is the
    time within which a socket must have signed in or be in a signed channel.
    """

    id: str
    key: str
    secret: bytes
    enabled: bool = True
    tls_only: bool = False
    allowed_origins: tuple[str, ...] = ()
    max_connections: int = 0
    max_connections_per_address: int = 0
    max_channels_per_socket: int = 200
    max_presence_members: int = 100
    max_message_bytes: int = 100_000
    client_events: bool = False
    client_events_per_second: int = 10
    authorize_seconds: int = 0
    topic_prefix: bytes = field(init=False, compare=False)
    origins: re.Pattern[str] | None = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "topic_prefix", topic_prefix(self.id))
        object.__setattr__(self, "origins", _origin_pattern(self.allowed_origins))

    def __repr__(self) -> str:
        return f"Application(id={self.id!r})"

    def allows_origin(self, origin: str) -> bool:
        """Whether a page of ``origin`` (RFC 6454 §7; empty when none is told) may connect."""
        return self.origins is None or self.origins.fullmatch(origin.lower()) is not None


class Applications:
    """The applications, by key for those who connect and by id for the HTTP API."""

    def __init__(self, applications: Iterable[Application]) -> None:
        self.by_id = {application.id: application for application in applications}
        self.by_key = {application.key: application for application in self.by_id.values()}


def topic_prefix(application_id: str) -> bytes:
    """What the Redis channels of an application begin with."""
    return f"deskline:ch:{application_id}:".encode()


def load(settings: Settings) -> Applications:
    """Deskline's own application and those of the file, if one is set.

    Blocking. Raises :class:`ConfigError` with every problem of the file at once.
    """
    own: dict[str, Any] = {
        "id": settings.pusher_app_id,
        "key": settings.pusher_key,
        "secret": settings.pusher_secret.encode(),
        # typing indicators are client events
        "client_events": True,
    }
    if not settings.gateway_applications:
        return Applications([Application(**own)])
    content = _read(Path(settings.gateway_applications))
    problems: list[str] = []
    limits = _fields(content.get("default", {}), "default", _LIMITS, {}, problems)
    made = [Application(**{**own, **limits})]
    listed = content.get("applications", [])
    if not isinstance(listed, list) or len(listed) > MAX_APPLICATIONS:
        problems.append(f"{SETTING}: applications: should be a list of at most {MAX_APPLICATIONS}")
        listed = []
    for name in sorted(set(content) - {"default", "applications"}):
        problems.append(f"{SETTING}: {name}: there is no such field; remove it")
    for number, entry in enumerate(listed):
        place = f"applications[{number}]"
        values = _fields(entry, place, {**_IDENTITY, **_LIMITS}, _IDENTITY, problems)
        if len(values.keys() & _IDENTITY) < len(_IDENTITY):
            continue
        for name in ("id", "key"):
            if values[name] in (getattr(other, name) for other in made):
                problems.append(f"{SETTING}: {place}.{name}: another application has it")
        made.append(Application(**values))
    if problems:
        raise ConfigError(problems)
    return Applications(made)


def _read(path: Path) -> dict[str, Any]:
    """The file's object. Raises :class:`ConfigError`."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode) and mode & FORBIDDEN_MODE:
            raise ConfigError(
                [
                    f"{SETTING}: {path} should have the mode 0640 or less "
                    f"(it has {stat.S_IMODE(mode):04o}), because it holds secrets"
                ]
            )
        with path.open("rb") as stream:
            text = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            [f"{SETTING}: {path} cannot be read ({error.strerror}): check path and owner"]
        ) from None
    try:
        content = orjson.loads(text) if len(text) <= MAX_FILE_BYTES else None
    except orjson.JSONDecodeError as error:
        # the message has the place, never the text
        where = f" (line {error.lineno}, column {error.colno})"
        raise ConfigError([f"{SETTING}: {path} is no valid JSON{where}"]) from None
    if not isinstance(content, dict):
        raise ConfigError(
            [
                f"{SETTING}: {path} should hold one JSON object with the fields default and "
                f"applications, in at most {MAX_FILE_BYTES} bytes"
            ]
        )
    return content


# --- fields: a value of the file -> a value of Application, or ValueError that says what it is ---


def _label(value: object) -> str:
    if not isinstance(value, str) or not _LABEL.fullmatch(value):
        raise ValueError("1 to 64 letters, digits, - or _")
    return value


def _secret(value: object) -> bytes:
    if not isinstance(value, str) or not _SECRET.fullmatch(value):
        raise ValueError("text of 16 to 256 characters without spaces")
    return value.encode()


def _switch(value: object) -> bool:
    if value is not True and value is not False:
        raise ValueError("true or false")
    return value


def _number(low: int, high: int) -> Callable[[object], int]:
    def parse(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return value

    return parse


def _origins(value: object) -> tuple[str, ...]:
    if (
        not isinstance(value, list)
        or len(value) > MAX_ORIGINS
        or not all(isinstance(item, str) and _ORIGIN.fullmatch(item.lower()) for item in value)
    ):
        raise ValueError(
            f"a list of at most {MAX_ORIGINS} origins, as shop.example, *.shop.example or "
            "https://shop.example:8443"
        )
    return tuple(item.lower() for item in value)


_IDENTITY: Final[Mapping[str, Callable[[object], Any]]] = {
    "id": _label,
    "key": _label,
    "secret": _secret,
}
_LIMITS: Final[Mapping[str, Callable[[object], Any]]] = {
    "enabled": _switch,
    "tls_only": _switch,
    "allowed_origins": _origins,
    "max_connections": _number(0, 10_000_000),
    "max_connections_per_address": _number(0, 10_000_000),
    "max_channels_per_socket": _number(1, 10_000),
    "max_presence_members": _number(1, 10_000),
    "max_message_bytes": _number(1_000, 1_000_000),
    "client_events": _switch,
    "client_events_per_second": _number(1, 1_000),
    "authorize_seconds": _number(0, 300),
}


def _fields(
    entry: object,
    place: str,
    known: Mapping[str, Callable[[object], Any]],
    required: Iterable[str],
    problems: list[str],
) -> dict[str, Any]:
    """The right values of an object of the file; each wrong field adds a sentence."""
    if not isinstance(entry, dict):
        problems.append(f"{SETTING}: {place}: should be a JSON object")
        return {}
    values: dict[str, Any] = {}
    for name, value in entry.items():
        if name not in known:
            problems.append(f"{SETTING}: {place}.{name}: there is no such field; remove it")
            continue
        try:
            values[name] = known[name](value)
        except ValueError as error:
            shown = "" if name == "secret" else f" (it is {orjson.dumps(value).decode()[:80]})"
            problems.append(f"{SETTING}: {place}.{name}: should be {error}{shown}")
    problems += [f"{SETTING}: {place}.{name}: is missing" for name in required if name not in entry]
    return values


def _origin_pattern(patterns: tuple[str, ...]) -> re.Pattern[str] | None:
    """One expression for all patterns; None when every origin may connect.

    A pattern without a scheme means any scheme and, unless it names one, any port; ``*.`` stands
    for one label or more.
    """
    if not patterns or "*" in patterns:
        return None
    parts = []
    for pattern in patterns:
        match = _ORIGIN.fullmatch(pattern)
        if match is None:
            raise ValueError(f"{pattern!r} is no pattern of an origin")
        scheme = re.escape(match["scheme"]) if match["scheme"] else r"[a-z][a-z0-9+.\-]*://"
        labels = r"(?:[a-z0-9_\-]+\.)+" if match["any"] else ""
        any_port = "" if match["scheme"] else r"(?::[0-9]+)?"
        port = re.escape(match["port"]) if match["port"] else any_port
        parts.append(scheme + labels + re.escape(match["host"]) + port)
    return re.compile("|".join(parts))
