"""Every setting of Deskline, once: name, type, default, meaning.

Settings come from ``DESKLINE_*`` variables. :func:`load` turns them into a frozen
:class:`Settings` value for one process, or raises one :class:`ConfigError` that lists every
wrong setting by name together with what it should be.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
import shlex
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parseaddr
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

PREFIX: Final = "DESKLINE_"
PROCESSES: Final = ("web", "gateway", "worker", "migrate", "run")
SECRET_KEY_MIN_CHARACTERS: Final = 32
EMBEDDED_REDIS_URL: Final = "embedded://"

# what browsers show without running anything in it, documents, archives, sound and film
ATTACHMENT_TYPES: Final = (
    "image/png",
    "image/jpeg",
    "image/gif",
    "image/webp",
    "image/heic",
    "image/avif",
    "text/plain",
    "application/pdf",
    "application/rtf",
    "application/msword",
    "application/vnd.ms-excel",
    "application/vnd.ms-powerpoint",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "application/vnd.oasis.opendocument.text",
    "application/vnd.oasis.opendocument.spreadsheet",
    "application/vnd.oasis.opendocument.presentation",
    "application/zip",
    "audio/mpeg",
    "audio/ogg",
    "audio/mp4",
    "audio/x-wav",
    "video/mp4",
    "video/quicktime",
    "video/webm",
)
# files in which a browser that is led to them runs scripts of their author
NEVER_ATTACHED: Final = frozenset(
    {"text/html", "application/xhtml+xml", "image/svg+xml", "text/xml", "application/xml"}
)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class ConfigError(Exception):
    """Settings that a process cannot start with.

    ``problems`` holds one sentence per wrong setting, each starting with the setting's name.
    A sentence never contains the value of a secret setting.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Setting:
    """The description of one setting; ``default`` is text as it would stand in the environment."""

    name: str
    kind: str
    default: str | None
    meaning: str
    required_by: frozenset[str]
    secret: bool
    parse: Callable[[str], Any]

    @property
    def attribute(self) -> str:
        """The name of the attribute of :class:`Settings` that holds the parsed value."""
        return self.name.removeprefix(PREFIX).lower()


@dataclass(frozen=True, slots=True)
class SmtpServer:
    """Where mail is handed over; ``tls`` is implicit (smtps), required, optional or none.

    The first is TLS from the start (RFC 8314), the next two are STARTTLS (RFC 3207).
    """

    host: str
    port: int
    tls: str
    user: str = ""
    password: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Settings:
    """The parsed settings of one process.

    A setting which the process does not need and which is absent is an empty string.
    Secrets and the URLs that may carry a password are left out of ``repr()``.
    """

    process: str
    env: str
    node: str
    database_url: str = field(repr=False)
    database_replica_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    secret_key: str = field(repr=False)
    pusher_app_id: str
    pusher_key: str
    pusher_secret: str = field(repr=False)
    public_url: str
    ws_public_url: str
    web_host: str
    web_port: int
    gateway_host: str
    gateway_port: int
    gateway_control_port: int
    gateway_applications: str
    worker_host: str
    worker_port: int
    trusted_proxies: tuple[Network, ...]
    store_visitor_address: bool
    web_root: Path
    data_dir: Path
    log_level: str
    drain_seconds: int
    gateway_drain_per_second: int
    smtp_url: str = field(repr=False)
    mail_from: str
    rate_limits: str
    rate_limit_sends: int
    rate_limit_reads: int
    rate_limit_writes: int
    rate_limit_uploads: int
    rate_limit_logins: int
    rate_limit_sessions: int
    rate_limit_exports: int
    webhook_allow_private: bool
    attachment_max_bytes: int
    attachment_types: tuple[str, ...]
    attachment_scanner: tuple[str, ...]
    message_edit_seconds: int
    long_polls: int

    @property
    def cookie_secure(self) -> bool:
        """Whether browsers reach Deskline by https, so that cookies get the Secure attribute."""
        return self.public_url.startswith("https://")

    @property
    def ws_force_tls(self) -> bool:
        """Whether browsers must open the WebSocket with TLS."""
        return self.ws_public_url.startswith("wss://")

    @property
    def ws_host(self) -> str:
        """The host that browsers open the WebSocket to."""
        return urlsplit(self.ws_public_url).hostname or ""

    @property
    def ws_port(self) -> int:
        """The port that browsers open the WebSocket to."""
        return urlsplit(self.ws_public_url).port or (443 if self.ws_force_tls else 80)

    @property
    def smtp(self) -> SmtpServer | None:
        """The server that mail is handed to; None when none is set."""
        return smtp_server(self.smtp_url) if self.smtp_url else None

    @property
    def is_demo(self) -> bool:
        """Whether the demo shop page and the demo account are allowed."""
        return self.env == "demo"


# --- parsers: text -> value, or ValueError that says what the setting should be -------------


def _text(value: str) -> str:
    return value


def _choice(*allowed: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value not in allowed:
            raise ValueError(f"should be one of: {', '.join(allowed)}")
        return value

    return parse


def _switch(value: str) -> bool:
    if value not in ("true", "false"):
        raise ValueError("should be true or false")
    return value == "true"


def _yes_or_no(value: str) -> bool:
    if value not in ("true", "false"):
        raise ValueError("should be true or false")
    return value == "true"


def _matching(pattern: str, meaning: str) -> Callable[[str], str]:
    compiled = re.compile(pattern)

    def parse(value: str) -> str:
        if not compiled.fullmatch(value):
            raise ValueError(f"should be {meaning}")
        return value

    return parse


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", value) or not low <= int(value) <= high:
            raise ValueError(f"should be a whole number from {low} to {high}")
        return int(value)

    return parse


def _split(value: str, meaning: str) -> tuple[str, str | None, int | None, str]:
    """Split a URL into scheme, host, port, path; ValueError (without the URL) when it is none."""
    try:
        parts = urlsplit(value)
        return parts.scheme, parts.hostname, parts.port, parts.path
    except ValueError:
        # from None: the original message may quote the URL, which may hold a password
        raise ValueError(f"should be {meaning}") from None


def _database_url(value: str) -> str:
    meaning = (
        "mysql+pymysql://USER:PASSWORD@HOST:3306/DATABASE "
        "(special characters of the password percent-encoded) or sqlite:////absolute/path"
    )
    scheme, host, _, path = _split(value, meaning)
    if scheme == "sqlite":
        if not value.startswith("sqlite:////") or len(value) <= len("sqlite:////"):
            raise ValueError(f"should be {meaning}")
    elif scheme != "mysql+pymysql" or not host or len(path) < 2:
        raise ValueError(f"should be {meaning}")
    return value


def _redis_url(value: str) -> str:
    meaning = (
        "redis://USER:PASSWORD@HOST:6379/0, rediss://… for TLS, redis+cluster://… for a node of a "
        "Redis Cluster, or embedded:// in the mode `run`"
    )
    if value == EMBEDDED_REDIS_URL:
        return value
    scheme, host, _, path = _split(value, meaning)
    known = scheme.removesuffix("+cluster") in ("redis", "rediss")
    if not known or not host or not re.fullmatch(r"(/[0-9]*)?", path):
        raise ValueError(f"should be {meaning}")
    return value


def smtp_server(url: str) -> SmtpServer:
    """Take an SMTP URL apart. Raises ValueError, without the URL, when it is none."""
    meaning = (
        "smtp://USER:PASSWORD@HOST:587 (with ?starttls=optional or ?starttls=none when the "
        "server has no TLS) or smtps://USER:PASSWORD@HOST:465 "
        "(special characters of the password percent-encoded)"
    )
    scheme, host, port, path = _split(url, meaning)
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    tls = "implicit" if scheme == "smtps" else query.pop("starttls", "required")
    known = ("implicit",) if scheme == "smtps" else ("required", "optional", "none")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    wrong = scheme not in ("smtp", "smtps") or not host or path not in ("", "/")
    if wrong or query or parts.fragment or tls not in known or bool(user) != bool(password):
        raise ValueError(f"should be {meaning}")
    return SmtpServer(host or "", port or (465 if tls == "implicit" else 587), tls, user, password)


def _smtp_url(value: str) -> str:
    smtp_server(value)
    return value


def _mail_from(value: str) -> str:
    _, address = parseaddr(value)
    if (
        not re.fullmatch(r"[^@\s<>]{1,64}@[A-Za-z0-9.\-]{1,189}", address)
        or not value.isprintable()
    ):
        raise ValueError(
            'should be an address, as support@example.com or "Shop <help@example.com>"'
        )
    return value


def _origin(*schemes: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        meaning = " or ".join(f"{scheme}://HOST[:PORT]" for scheme in schemes)
        meaning += " without a path"
        scheme, host, _, path = _split(value, meaning)
        if scheme not in schemes or not host or path not in ("", "/") or "?" in value:
            raise ValueError(f"should be {meaning}")
        return value.rstrip("/")

    return parse


def _absolute_path(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError("should be the absolute path of a file")
    return value


def _host(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.:\-]{1,253}", value):
        raise ValueError("should be an address or a host name to listen on, as 127.0.0.1")
    return value


def _networks(value: str) -> tuple[Network, ...]:
    networks = []
    for item in filter(None, (part.strip() for part in value.split(","))):
        try:
            networks.append(ipaddress.ip_network(item, strict=False))
        except ValueError:
            raise ValueError(
                "should be a comma-separated list of addresses or networks, "
                f"as 10.0.0.5,192.168.1.0/24; {item!r} is neither"
            ) from None
    return tuple(networks)


def _media_types(value: str) -> tuple[str, ...]:
    types = tuple(filter(None, (part.strip().lower() for part in value.split(","))))
    for each in types:
        if not re.fullmatch(r"[a-z]+/[a-z0-9.+\-]+", each):
            raise ValueError(
                "should be a comma-separated list of media types, "
                f"as image/png,application/pdf; {each!r} is none"
            )
        if each in NEVER_ATTACHED:
            raise ValueError(f"should not hold {each}: browsers run scripts in such files")
    return types


def _command(value: str) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(value))
    except ValueError as error:
        raise ValueError(f"should be a program and its options: {error}") from None
    if not words or not words[0].startswith("/"):
        raise ValueError("should be a program by its absolute path, and its options")
    return words


def _secret_key(value: str) -> str:
    if len(value) < SECRET_KEY_MIN_CHARACTERS:
        raise ValueError(
            f"should have at least {SECRET_KEY_MIN_CHARACTERS} characters; "
            "make one with: python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"
        )
    return value


# --- the table -------------------------------------------------------------------------------


def _setting(
    name: str,
    kind: str,
    default: str | None,
    meaning: str,
    parse: Callable[[str], Any],
    *,
    required_by: tuple[str, ...] = (),
    secret: bool = False,
) -> Setting:
    return Setting(PREFIX + name, kind, default, meaning, frozenset(required_by), secret, parse)


def _rate(name: str, default: str, what: str) -> Setting:
    return _setting(
        f"RATE_LIMIT_{name}",
        "requests a minute",
        default,
        f"{what} from one address (IPv6: one /64 network); more is answered 429; 0: no limit",
        _integer(0, 100_000_000),
    )


_LABEL = r"[A-Za-z0-9_\-]{1,64}"
_LABEL_MEANING = "1 to 64 letters, digits, - or _"

SETTINGS: Final[tuple[Setting, ...]] = (
    _setting(
        "ENV",
        "production | demo",
        "production",
        "demo allows the demo shop page at /, the demo account and the demo inbox",
        _choice("production", "demo"),
    ),
    _setting(
        "NODE",
        "name",
        None,
        "this node's name in logs and in the X-Deskline-Node header (default: the host's name)",
        _matching(r"[A-Za-z0-9_.\-]{1,128}", "1 to 128 letters, digits, '.', '-' or '_'"),
    ),
    _setting(
        "DATABASE_URL",
        "URL",
        None,
        "the primary database: mysql+pymysql://… or sqlite:////absolute/path",
        _database_url,
        required_by=("web", "worker", "migrate", "run"),
        secret=True,
    ),
    _setting(
        "DATABASE_REPLICA_URL",
        "URL",
        "",
        "the replica that history is read from; empty: all reads go to the primary",
        _database_url,
        secret=True,
    ),
    _setting(
        "REDIS_URL",
        "URL",
        None,
        "Redis for publishing and locks: redis://…, redis+cluster://… for a node of a Redis "
        "Cluster (embedded:// only in the mode `run`)",
        _redis_url,
        required_by=("web", "gateway", "worker", "run"),
        secret=True,
    ),
    _setting(
        "SECRET_KEY",
        "text",
        None,
        "signs visitor tokens and CSRF tokens; the same on every web node",
        _secret_key,
        required_by=("web", "run"),
        secret=True,
    ),
    _setting(
        "PUSHER_APP_ID",
        "name",
        None,
        "the id of Deskline's own Channels application",
        _matching(_LABEL, _LABEL_MEANING),
        required_by=("web", "gateway", "worker", "run"),
    ),
    _setting(
        "PUSHER_KEY",
        "name",
        None,
        "the public key of Deskline's own Channels application; browsers connect with it",
        _matching(_LABEL, _LABEL_MEANING),
        required_by=("web", "gateway", "run"),
    ),
    _setting(
        "PUSHER_SECRET",
        "text",
        None,
        "signs channel subscriptions and the gateway's HTTP API",
        _matching(r"\S{16,256}", "at least 16 characters without spaces"),
        required_by=("web", "gateway", "run"),
        secret=True,
    ),
    _setting(
        "PUBLIC_URL",
        "URL",
        None,
        "what browsers use, as https://chat.example.com; https makes cookies Secure",
        _origin("http", "https"),
        required_by=("web", "run"),
    ),
    _setting(
        "WS_PUBLIC_URL",
        "URL",
        None,
        "where browsers open the WebSocket, as ws://localhost:8080 (default: PUBLIC_URL's host)",
        _origin("ws", "wss"),
    ),
    _setting("WEB_HOST", "address", "127.0.0.1", "the address that web listens on", _host),
    _setting("WEB_PORT", "port", "8000", "the port that web listens on", _integer(1, 65535)),
    _setting(
        "GATEWAY_HOST", "address", "127.0.0.1", "the address that the gateway listens on", _host
    ),
    _setting(
        "GATEWAY_PORT", "port", "8080", "the gateway's port for WebSockets", _integer(1, 65535)
    ),
    _setting(
        "GATEWAY_CONTROL_PORT",
        "port",
        "8081",
        "the gateway's port for health, metrics and its HTTP API",
        _integer(1, 65535),
    ),
    _setting(
        "GATEWAY_APPLICATIONS",
        "file",
        "",
        "a JSON file (mode 0640) with further Channels applications and the limits of Deskline's "
        "own; empty: only its own, without limits",
        _absolute_path,
    ),
    _setting(
        "GATEWAY_DRAIN_PER_SECOND",
        "number",
        "0",
        "how many sockets a stopping gateway asks to reconnect in a second; 0: 100, or as many as "
        "it takes to have asked all in 70 % of DRAIN_SECONDS",
        _integer(0, 100_000),
    ),
    _setting(
        "WORKER_HOST", "address", "127.0.0.1", "the address of the worker's health port", _host
    ),
    _setting(
        "WORKER_PORT",
        "port",
        "8082",
        "the worker's port for health and metrics",
        _integer(1, 65535),
    ),
    _setting(
        "TRUSTED_PROXIES",
        "list of networks",
        "",
        "addresses and networks whose X-Forwarded-For is believed",
        _networks,
    ),
    _setting(
        "STORE_VISITOR_ADDRESS",
        "true | false",
        "true",
        "whether visitors' network addresses are kept and shown to the staff",
        _yes_or_no,
    ),
    _setting(
        "WEB_ROOT",
        "folder",
        "./web/dist",
        "the built web files (a web node behind Nginx may lack them)",
        Path,
    ),
    _setting(
        "DATA_DIR",
        "folder",
        "./data",
        "embedded mode only: the SQLite file and the generated secrets",
        Path,
    ),
    _setting(
        "LOG_LEVEL",
        "debug | info | warning | error",
        "info",
        "the least severe line logged",
        _choice("debug", "info", "warning", "error"),
    ),
    _setting(
        "DRAIN_SECONDS",
        "seconds",
        "20",
        "how long a stopping process may take to finish what it began",
        _integer(0, 3600),
    ),
    _setting(
        "SMTP_URL",
        "URL",
        "",
        "the server that the worker hands mail to: smtp://USER:PASSWORD@HOST:587 (STARTTLS) or "
        "smtps://… ; empty: mail waits",
        _smtp_url,
        secret=True,
    ),
    _setting(
        "MAIL_FROM",
        "address",
        "",
        "whom mail is from, as support@example.com; web and worker need it for invitations, "
        "forgotten passwords and transcripts",
        _mail_from,
    ),
    _setting(
        "RATE_LIMITS",
        "enforce | observe",
        "enforce",
        "observe only counts what would be refused (metric deskline_rate_limited_total)",
        _choice("enforce", "observe"),
    ),
    _rate("SENDS", "30000", "messages sent"),
    _rate("READS", "120000", "reading calls"),
    _rate("WRITES", "60000", "changing calls other than messages, as read marks"),
    _rate("UPLOADS", "3000", "uploads of files"),
    _rate("LOGINS", "1200", "logins and other calls that check a password"),
    _rate("SESSIONS", "6000", "openings of the widget"),
    _rate("EXPORTS", "1200", "exports, reports and transcripts"),
    _setting(
        "WEBHOOK_ALLOW_PRIVATE",
        "true | false",
        "false",
        "whether webhooks may call loopback, private and link-local addresses",
        _switch,
    ),
    _setting(
        "ATTACHMENT_MAX_BYTES",
        "bytes",
        "10485760",
        "the largest file that may be sent; Nginx's limit for uploads has to be a little above it",
        _integer(1, 24 * 1024 * 1024),
    ),
    _setting(
        "ATTACHMENT_TYPES",
        "list of media types",
        ",".join(ATTACHMENT_TYPES),
        "the files that may be sent, by what they are found to be and not by what they are called",
        _media_types,
    ),
    _setting(
        "ATTACHMENT_SCANNER",
        "command",
        "",
        "the virus scanner, as /usr/bin/clamdscan --no-summary -: it gets the file on its standard "
        "input and ends with 0 (clean) or 1 (infected)",
        _command,
    ),
    _setting(
        "MESSAGE_EDIT_SECONDS",
        "seconds",
        "900",
        "how long after sending the sender may edit or delete a message; 0: never",
        _integer(0, 366 * 24 * 3600),
    ),
    _setting(
        "LONG_POLLS",
        "number",
        "1000",
        "how many requests of a web process may wait for messages at the same time",
        _integer(0, 100_000),
    ),
)

# what is absent counts as an empty list
_LISTS: Final = (_networks, _media_types, _command)
_BY_NAME: Final = {setting.name: setting for setting in SETTINGS}


def unknown_names(names: list[str]) -> list[str]:
    """One sentence for each ``DESKLINE_*`` name in ``names`` that is no setting."""
    problems = []
    for name in sorted(names):
        if name.startswith(PREFIX) and name not in _BY_NAME:
            near = difflib.get_close_matches(name, _BY_NAME, n=1)
            hint = f"; did you mean {near[0]}?" if near else "; remove it"
            problems.append(f"{name}: there is no such setting{hint}")
    return problems


def load(process: str, env: Mapping[str, str]) -> Settings:
    """Parse the settings that ``process`` (one of :data:`PROCESSES`) starts with.

    Raises :class:`ConfigError` with every problem at once. An empty variable counts as absent.
    """
    if process not in PROCESSES:
        raise ValueError(f"unknown process {process!r}; should be one of: {', '.join(PROCESSES)}")
    problems: list[str] = []
    values: dict[str, Any] = {}
    for setting in SETTINGS:
        raw = env.get(setting.name, "").strip() or setting.default or ""
        if not raw:
            values[setting.attribute] = () if setting.parse in _LISTS else ""
            if process in setting.required_by:
                problems.append(f"{setting.name}: is missing: {setting.meaning}")
            continue
        try:
            values[setting.attribute] = setting.parse(raw)
        except ValueError as error:
            shown = "" if setting.secret else f" (it is {raw!r})"
            problems.append(f"{setting.name}: {error}{shown}")
    if not problems:
        problems += _check_together(process, values)
    if problems:
        raise ConfigError(problems)
    values["node"] = values["node"] or _default_node()
    if not values["ws_public_url"] and values["public_url"]:
        values["ws_public_url"] = "ws" + values["public_url"].removeprefix("http")
    return Settings(process=process, **values)


def _default_node() -> str:
    return re.sub(r"[^A-Za-z0-9_.\-]", "-", socket.gethostname())[:128] or "node"


def _check_together(process: str, values: Mapping[str, Any]) -> list[str]:
    """Problems that only show when settings are seen together."""
    problems = []
    if process != "run" and values["redis_url"] == EMBEDDED_REDIS_URL:
        problems.append(
            "DESKLINE_REDIS_URL: embedded:// works only with `python -m app run`; "
            "should be redis://USER:PASSWORD@HOST:6379/0"
        )
    primary, replica = values["database_url"], values["database_replica_url"]
    if primary and replica and urlsplit(primary).scheme != urlsplit(replica).scheme:
        problems.append(
            "DESKLINE_DATABASE_REPLICA_URL: should be the same kind of database as "
            "DESKLINE_DATABASE_URL"
        )
    public, websocket = values["public_url"], values["ws_public_url"]
    if public.startswith("https://") and websocket.startswith("ws://"):
        problems.append(
            "DESKLINE_WS_PUBLIC_URL: should be wss://… because DESKLINE_PUBLIC_URL is https and "
            "browsers refuse plain WebSockets on https pages"
        )
    if values["smtp_url"] and not values["mail_from"]:
        problems.append(
            "DESKLINE_MAIL_FROM: is missing: DESKLINE_SMTP_URL is set, and mail needs a sender, "
            "as support@example.com"
        )
    if process in ("worker", "run") and values["mail_from"] and not values["smtp_url"]:
        problems.append(
            "DESKLINE_SMTP_URL: is missing: DESKLINE_MAIL_FROM is set, and the worker needs a "
            "server to hand mail to, as smtp://USER:PASSWORD@HOST:587"
        )
    same = values["gateway_port"] == values["gateway_control_port"]
    if process == "gateway" and same:
        problems.append("DESKLINE_GATEWAY_CONTROL_PORT: should differ from DESKLINE_GATEWAY_PORT")
    return problems


# --- files of settings -----------------------------------------------------------------------


def parse_env_file(text: str) -> dict[str, str]:
    """Parse the text of an environment file as systemd reads it.

    The syntax is that of ``EnvironmentFile=`` in systemd.exec(5): one assignment a line, lines
    that start with ``#`` or ``;`` are comments, values may stand in single or double quotes, a
    backslash at the end of a line continues it, and nothing is expanded. Lines without ``=`` are
    skipped, as systemd does.
    """
    result: dict[str, str] = {}
    position, length = 0, len(text)
    while position < length:
        end = text.find("\n", position)
        end = length if end < 0 else end
        line = text[position:end]
        if line.lstrip()[:1] in ("", "#", ";") or "=" not in line:
            position = end + 1
            continue
        name, _, _ = line.partition("=")
        value, position = _parse_env_value(text, position + len(name) + 1)
        name = name.strip()
        if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            result[name] = value
    return result


def _parse_env_value(text: str, position: int) -> tuple[str, int]:
    """Read one value from ``position``; gives it and the position after its line's end."""
    out: list[str] = []
    keep = 0  # how many characters of out must survive the trimming of trailing blanks
    quote = ""
    length = len(text)
    while position < length and text[position] in " \t":
        position += 1
    while position < length:
        char = text[position]
        position += 1
        if not quote and char == "\n":
            break
        if quote != "'" and char == "\\" and position < length:
            escaped = text[position]
            position += 1
            if escaped == "\n":
                continue
            if quote == '"' and escaped not in '"\\`$':
                out.append("\\")
            out.append(escaped)
            keep = len(out)
        elif char == quote:
            quote = ""
            keep = len(out)
        elif not quote and char in "'\"":
            quote = char
        else:
            out.append(char)
            if quote or char not in " \t\r":
                keep = len(out)
    return "".join(out[:keep]), position
