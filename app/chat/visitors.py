"""Visitors: people who write from the widget, with a signed token that is bound to the inbox.

A visitor is anonymous until the site says who it is. When it is somebody that the inbox knows, what
the anonymous visitor wrote moves to that one, and its token speaks for that one from then on.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any, Final
from urllib.parse import urlsplit

from itsdangerous import BadData, TimestampSigner, URLSafeTimedSerializer
from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from app import clock
from app.chat import attributes, inboxes
from app.chat.doors import visitor_blocked
from app.chat.errors import NotFound, Refused
from app.chat.permissions import VisitorIdentity
from app.db import schema
from app.db.engines import Database

# how long a token is good for calls; then the widget opens its session again, with the same token
ACCESS_SECONDS: Final = 24 * 3600
# how long a token is good for opening the session again
RESUME_SECONDS: Final = 400 * 24 * 3600
# the clocks of two web nodes differ
CLOCK_SKEW_SECONDS: Final = 300
URL_MAX_CHARACTERS: Final = 2000
TITLE_MAX_CHARACTERS: Final = 300
PAGES_KEPT: Final = 50
_OPENING_ATTEMPTS: Final = 5

_visitors, _pages = schema.visitors, schema.visitor_pages
_c, _m = schema.conversations, schema.messages
_marks, _attachments = schema.read_marks, schema.attachments

_CONTROL: Final = re.compile(r"[\u0000-\u001f\u007f-\u009f]")
_BROWSERS: Final = (
    # the order matters: most of them also claim to be Chrome and Safari
    ("Edge", re.compile(r"Edg(?:e|A|iOS)?/(\d+)")),
    ("Opera", re.compile(r"OPR/(\d+)")),
    ("Samsung Internet", re.compile(r"SamsungBrowser/(\d+)")),
    ("Firefox", re.compile(r"(?:Firefox|FxiOS)/(\d+)")),
    ("Chrome", re.compile(r"(?:Chrome|CriOS)/(\d+)")),
    ("Safari", re.compile(r"Version/(\d+)[\d.]* (?:Mobile/\S+ )?Safari/")),
)
_SYSTEMS: Final = (
    ("Android", "Android"),
    ("iPhone", "iOS"),
    ("iPad", "iPadOS"),
    ("Windows", "Windows"),
    ("Mac OS X", "macOS"),
    ("CrOS", "ChromeOS"),
    ("Linux", "Linux"),
)


@dataclass(frozen=True, slots=True)
class Page:
    """Where the visitor is: the shop's page with the widget on it."""

    url: str | None = None
    title: str | None = None
    referrer: str | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    """Who the visitor is, as the site says; ``signature`` is the site's HMAC of the identifier."""

    identifier: str | None = None
    name: str | None = None
    email: str | None = None
    phone: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    signature: str | None = None


@dataclass(frozen=True, slots=True)
class Arrival:
    """A widget that opens its session; ``known`` is whom its token speaks for."""

    inbox_key: str
    known: VisitorIdentity | None
    page: Page
    language: str | None
    user_agent: str
    # None: not to be kept
    address: str | None
    identity: Identity | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """An open session: the visitor, its inbox's row, the conversations that moved to it just now.

    ``known`` says whether the visitor was here before, ``changed`` whether the staff see another
    name or address of it from now on.
    """

    visitor: VisitorIdentity
    name: str
    inbox: Any
    known: bool
    changed: bool
    moved: Sequence[int] = ()


class _ClockSigner(TimestampSigner):
    def get_timestamp(self) -> int:
        return int(clock.now().replace(tzinfo=UTC).timestamp())


class VisitorTokens:
    """Makes and reads visitor tokens: who speaks, in which inbox, since when, signed.

    One token serves twice. For calls it is good for a day: nobody asks the database whose it is, so
    a day is how long a visitor that was erased or merged may go on being somebody. For opening the
    session again, where the database is asked, it is good for more than a year.
    """

    def __init__(self, secret_key: str) -> None:
        self._serializer = URLSafeTimedSerializer(
            secret_key, salt="deskline.visitor", signer=_ClockSigner
        )

    def make(self, identity: VisitorIdentity) -> str:
        """A token for the visitor that begins to age now."""
        token = self._serializer.dumps([identity.id, identity.inbox_id])
        return token if isinstance(token, str) else token.decode()

    def read(self, token: str) -> VisitorIdentity | None:
        """The visitor that a call's token speaks for; None: forged, damaged or too old."""
        return self._read(token, ACCESS_SECONDS)

    def read_to_resume(self, token: str) -> VisitorIdentity | None:
        """The visitor that a token opens the session for; None: forged, damaged or too old."""
        return self._read(token, RESUME_SECONDS)

    def _read(self, token: str, lifetime_seconds: int) -> VisitorIdentity | None:
        try:
            (visitor_id, inbox_id), made_at = self._serializer.loads(token, return_timestamp=True)
            identity = VisitorIdentity(int(visitor_id), int(inbox_id))
        except (BadData, ValueError, TypeError):
            return None
        age_seconds = (clock.now().replace(tzinfo=UTC) - made_at).total_seconds()
        return identity if -CLOCK_SKEW_SECONDS <= age_seconds <= lifetime_seconds else None


def browser_name(user_agent: str) -> str | None:
    """A short name as "Firefox 133, Linux" for a User-Agent header, for people to read."""
    browser = next(
        (f"{name} {match[1]}" for name, rule in _BROWSERS if (match := rule.search(user_agent))),
        None,
    )
    system = next((name for sign, name in _SYSTEMS if sign in user_agent), None)
    return ", ".join(part for part in (browser, system) if part) or None


def web_url(url: str | None) -> str | None:
    """``url`` when it is an http(s) address that staff may click on, shortened; else None."""
    if not url:
        return None
    try:
        scheme = urlsplit(url).scheme
    except ValueError:
        return None
    if scheme not in ("http", "https") or _CONTROL.search(url):
        return None
    return url[:URL_MAX_CHARACTERS]


def one_line(text: str | None, length: int) -> str | None:
    """``text`` without control characters, shortened: an odd title keeps nobody from writing."""
    if not text:
        return None
    return _CONTROL.sub("", text)[:length] or None


def open_session(database: Database, arrival: Arrival) -> Opened:
    """Resume the visitor that the token speaks for, or make a new one; merge when it is identified.

    Raises :class:`app.chat.errors.UnknownInbox`, or :class:`Refused` when the inbox is archived,
    the identity is not signed, or the visitor is blocked. Blocking.
    """
    for attempt in range(1, _OPENING_ATTEMPTS + 1):
        try:
            with database.write() as connection:
                return _open(connection, arrival)
        except (_Overtaken, IntegrityError):
            # another tab has identified or merged the same visitor in between: look again
            if attempt == _OPENING_ATTEMPTS:
                raise
    raise AssertionError("unreachable")


class _Overtaken(Exception):
    """What was read before the locks is no longer so."""


def _open(connection: Connection, arrival: Arrival) -> Opened:
    inbox = inboxes.by_key(connection, arrival.inbox_key)
    identity = arrival.identity or Identity()
    identifier = _verified_identifier(inbox, arrival.identity)
    current = None
    if arrival.known is not None and arrival.known.inbox_id == inbox.id:
        current = _speaks_for(connection, arrival.known.id)
    owner = None
    if identifier is not None:
        owner = connection.execute(
            select(_visitors).where(
                _visitors.c.inbox_id == inbox.id, _visitors.c.identifier == identifier
            )
        ).one_or_none()
    if any(row is not None and row.blocked_at is not None for row in (current, owner)):
        raise visitor_blocked()
    moved: list[int] = []
    target = current
    if owner is not None:
        target = owner
        if current is not None and current.identifier is None:
            moved = _merge(connection, current, owner)
    elif identifier is not None and current is not None:
        # None: somebody else has logged in on the same browser
        target = _lock_anonymous(connection, current.id) if current.identifier is None else None
    known = target is not None
    if target is None:
        target = _insert(connection, inbox.id, arrival)
    name, changed = _update(connection, target, arrival, identity, identifier)
    return Opened(VisitorIdentity(target.id, inbox.id), name, inbox, known, changed, moved)


def _verified_identifier(inbox: Any, identity: Identity | None) -> str | None:
    """Who the visitor surely is. Raises :class:`Refused` when the signature is missing or wrong."""
    if identity is None or inbox.identity_secret is None:
        # without a secret an identity may tell a name, but not who somebody is
        return None
    if identity.identifier is None or identity.signature is None:
        raise Refused(
            "identity_not_verified",
            "Send identity.identifier and identity_hash, the hex HMAC-SHA256 of the identifier "
            "with the inbox's identity secret.",
        )
    expected = inboxes.identity_hash(inbox.identity_secret, identity.identifier)
    if not hmac.compare_digest(expected.encode(), identity.signature.lower().encode()):
        raise Refused(
            "identity_not_verified",
            "identity_hash should be the hex HMAC-SHA256 of identity.identifier with the inbox's "
            "identity secret: make it on the site's server.",
        )
    return identity.identifier


def _speaks_for(connection: Connection, visitor_id: int) -> Any | None:
    """The row of a visitor, or of the one that it was merged into; None when it was erased."""
    while True:
        row = connection.execute(
            select(_visitors).where(_visitors.c.id == visitor_id)
        ).one_or_none()
        if row is None or row.merged_into_id is None:
            return row
        # only anonymous visitors are merged, into identified ones: there is no circle
        visitor_id = row.merged_into_id


def _insert(connection: Connection, inbox_id: int, arrival: Arrival) -> Any:
    now = clock.now()
    result = connection.execute(
        insert(_visitors).values(
            inbox_id=inbox_id,
            name=f"Visitor {int.from_bytes(clock.token(4).encode()[:4]) % 9000 + 1000}",
            referrer=web_url(arrival.page.referrer),
            first_seen_at=now,
            last_seen_at=now,
        )
    )
    key = result.inserted_primary_key
    assert key is not None  # noqa: S101  every dialect used here gives the new id
    return connection.execute(select(_visitors).where(_visitors.c.id == key[0])).one()


def _lock_anonymous(connection: Connection, visitor_id: int) -> Any:
    row = connection.execute(
        select(_visitors).where(_visitors.c.id == visitor_id).with_for_update()
    ).one_or_none()
    if row is None or row.merged_into_id is not None or row.identifier is not None:
        raise _Overtaken
    return row


def _update(
    connection: Connection,
    row: Any,
    arrival: Arrival,
    identity: Identity,
    identifier: str | None,
) -> tuple[str, bool]:
    """Keep what is known of the visitor now; gives its name, and whether the staff see a change."""
    told = {
        "name": identity.name,
        "email": identity.email,
        "phone": identity.phone,
        "identifier": identifier,
    }
    values: dict[str, Any] = {
        "language": one_line(arrival.language, 35),
        "browser": browser_name(arrival.user_agent),
        "last_seen_at": clock.now(),
        "address": arrival.address,
        **{name: value for name, value in told.items() if value is not None},
    }
    shown = {"name": row.name, "email": row.email}
    if identity.attributes:
        # read again under the lock: two tabs may bring different ones at once
        stored = connection.execute(
            select(_visitors.c.attributes).where(_visitors.c.id == row.id).with_for_update()
        ).scalar()
        values["attributes"] = attributes.merged(stored, identity.attributes)
    values |= _page_values(connection, row.id, row.page_url, arrival.page)
    connection.execute(update(_visitors).where(_visitors.c.id == row.id).values(**values))
    changed = any(values.get(column, known) != known for column, known in shown.items())
    return str(values.get("name", row.name)), changed


def _page_values(
    connection: Connection, visitor_id: int, before: str | None, page: Page
) -> dict[str, Any]:
    """The visitor's columns of its page; a new one is noted among those visited."""
    url, title = web_url(page.url), one_line(page.title, TITLE_MAX_CHARACTERS)
    if url is None:
        return {}
    if url != before:
        connection.execute(
            insert(_pages).values(visitor_id=visitor_id, url=url, title=title, seen_at=clock.now())
        )
        oldest = connection.execute(
            select(_pages.c.id)
            .where(_pages.c.visitor_id == visitor_id)
            .order_by(_pages.c.id.desc())
            .offset(PAGES_KEPT)
            .limit(1)
        ).scalar()
        if oldest is not None:
            connection.execute(
                delete(_pages).where(_pages.c.visitor_id == visitor_id, _pages.c.id <= oldest)
            )
    return {"page_url": url, "page_title": title}


def note_page(database: Database, visitor: VisitorIdentity, page: Page) -> None:
    """The visitor went to another page. Raises :class:`NotFound` when it is no more. Blocking."""
    with database.write() as connection:
        row = connection.execute(
            select(_visitors.c.page_url)
            .where(_visitors.c.id == visitor.id, _visitors.c.merged_into_id.is_(None))
            .with_for_update()
        ).one_or_none()
        if row is None:
            raise NotFound
        values = _page_values(connection, visitor.id, row.page_url, page)
        connection.execute(
            update(_visitors)
            .where(_visitors.c.id == visitor.id)
            .values(**values, last_seen_at=clock.now())
        )


def is_gone(database: Database, visitor: VisitorIdentity) -> bool:
    """Whether a token's visitor was merged into another one, or erased. Blocking."""
    with database.view() as connection:
        here = connection.execute(
            select(_visitors.c.id).where(
                _visitors.c.id == visitor.id, _visitors.c.merged_into_id.is_(None)
            )
        ).first()
    return here is None


def needs_no_form(database: Database, visitor: VisitorIdentity, client_id: str) -> bool:
    """Whether a first message goes into a conversation that is there: an open one, or its own
    when it is sent again. Blocking."""
    with database.read() as connection:
        open_one = connection.execute(
            select(_c.c.id).where(_c.c.visitor_id == visitor.id, _c.c.status != "resolved").limit(1)
        ).first()
        if open_one is not None:
            return True
        repeated = connection.execute(
            select(_m.c.seq)
            .join(_c, _c.c.id == _m.c.conversation_id)
            .where(_c.c.visitor_id == visitor.id, _m.c.client_id == client_id)
            .limit(1)
        ).first()
    return repeated is not None


def tell_of(database: Database, visitor: VisitorIdentity, values: Mapping[str, str]) -> None:
    """Keep the name, e-mail and phone of a form; what a signed identity said stays. Blocking."""
    with database.write() as connection:
        connection.execute(
            update(_visitors)
            .where(_visitors.c.id == visitor.id, _visitors.c.identifier.is_(None))
            .values(**values)
        )


def _merge(connection: Connection, source: Any, target: Any) -> list[int]:
    """Move what the anonymous ``source`` wrote to ``target``; gives the conversations' ids.

    The rows are locked in the writer's order, the visitors by id, then the conversations by id. A
    message that was stored before moves along; one that comes after finds its visitor merged, is
    refused, and comes again with the new token. Raises :class:`_Overtaken`.
    """
    pair = sorted((source.id, target.id))
    locked = {
        row.id: row
        for row in connection.execute(
            select(_visitors)
            .where(_visitors.c.id.in_(pair))
            .order_by(_visitors.c.id)
            .with_for_update()
        )
    }
    source, target = locked.get(source.id), locked.get(target.id)
    if (
        source is None
        or target is None
        or source.merged_into_id is not None
        or source.identifier is not None
        or target.identifier is None
        # blocked in between, as one that is being erased
        or any(row.blocked_at is not None for row in (source, target))
    ):
        raise _Overtaken
    ids = list(
        connection.execute(
            select(_c.c.id).where(_c.c.visitor_id == source.id).order_by(_c.c.id).with_for_update()
        ).scalars()
    )
    if ids:
        connection.execute(
            update(_c)
            .where(_c.c.id.in_(ids))
            .values(visitor_id=target.id, version=_c.c.version + 1)
        )
        connection.execute(
            update(_m)
            .where(
                _m.c.conversation_id.in_(ids),
                _m.c.sender_type == "visitor",
                _m.c.sender_id == source.id,
            )
            .values(sender_id=target.id)
        )
        connection.execute(
            update(_marks)
            .where(
                _marks.c.conversation_id.in_(ids),
                _marks.c.reader_type == "visitor",
                _marks.c.reader_id == source.id,
            )
            .values(reader_id=target.id)
        )
        connection.execute(
            update(_attachments)
            .where(
                _attachments.c.conversation_id.in_(ids),
                _attachments.c.uploader_type == "visitor",
                _attachments.c.uploader_id == source.id,
            )
            .values(uploader_id=target.id)
        )
    connection.execute(
        update(_pages).where(_pages.c.visitor_id == source.id).values(visitor_id=target.id)
    )
    known = attributes.read(source.attributes) | attributes.read(target.attributes)
    connection.execute(
        update(_visitors)
        .where(_visitors.c.id == target.id)
        .values(
            email=target.email or source.email,
            phone=target.phone or source.phone,
            attributes=_fitting(target.attributes, known),
            first_seen_at=min(source.first_seen_at, target.first_seen_at),
        )
    )
    connection.execute(
        update(_visitors)
        .where(_visitors.c.id == source.id)
        .values(merged_into_id=target.id, email=None, phone=None, attributes=None, address=None)
    )
    return ids


def _fitting(stored: str | None, known: Mapping[str, Any]) -> str | None:
    """Both visitors' attributes; those of the known one alone when together they are too many."""
    try:
        return attributes.merged(None, known)
    except Refused:
        return stored
