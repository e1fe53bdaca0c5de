"""Visitors: people who write from the widget. Their signed token is bound to the inbox."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from itsdangerous import BadData, URLSafeTimedSerializer
from sqlalchemy import insert, select, update

from app import clock
from app.chat import inboxes
from app.chat.permissions import VisitorIdentity
from app.db import schema
from app.db.engines import Database

TOKEN_LIFETIME_SECONDS: Final = 400 * 24 * 3600
URL_MAX_CHARACTERS: Final = 2000

_visitors = schema.visitors

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


class VisitorTokens:
    """Makes and reads visitor tokens."""

    def __init__(self, secret_key: str) -> None:
        self._serializer = URLSafeTimedSerializer(secret_key, salt="deskline.visitor")

    def make(self, identity: VisitorIdentity) -> str:
        """A token for the visitor, good for :data:`TOKEN_LIFETIME_SECONDS`."""
        token = self._serializer.dumps([identity.id, identity.inbox_id])
        return token if isinstance(token, str) else token.decode()

    def read(self, token: str) -> VisitorIdentity | None:
        """The visitor of a token; None when it is forged, damaged or too old."""
        try:
            visitor_id, inbox_id = self._serializer.loads(token, max_age=TOKEN_LIFETIME_SECONDS)
        except (BadData, ValueError, TypeError):
            return None
        return VisitorIdentity(int(visitor_id), int(inbox_id))


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
    return url[:URL_MAX_CHARACTERS] if scheme in ("http", "https") else None


def open_session(
    database: Database,
    *,
    inbox_key: str,
    known: VisitorIdentity | None,
    page: Page,
    language: str | None,
    user_agent: str,
) -> tuple[VisitorIdentity, str, Any]:
    """Resume the visitor ``known`` when it belongs to the inbox, or make a new one.

    Gives the visitor, its name and the inbox's row. Raises :class:`UnknownInbox`. Blocking.
    """
    now = clock.now()
    seen = {
        "language": language,
        "browser": browser_name(user_agent),
        "page_url": web_url(page.url),
        "page_title": page.title[:300] if page.title else None,
        "last_seen_at": now,
    }
    with database.write() as connection:
        inbox = inboxes.by_key(connection, inbox_key)
        if known is not None and known.inbox_id == inbox.id:
            name = connection.execute(
                select(_visitors.c.name).where(
                    _visitors.c.id == known.id, _visitors.c.inbox_id == inbox.id
                )
            ).scalar()
            if name is not None:
                connection.execute(
                    update(_visitors).where(_visitors.c.id == known.id).values(**seen)
                )
                return known, str(name), inbox
        name = f"Visitor {int.from_bytes(clock.token(4).encode()[:4]) % 9000 + 1000}"
        result = connection.execute(
            insert(_visitors).values(
                inbox_id=inbox.id,
                name=name,
                email=None,
                referrer=web_url(page.referrer),
                first_seen_at=now,
                **seen,
            )
        )
        key = result.inserted_primary_key
        assert key is not None  # noqa: S101  every dialect used here gives the new id
        return VisitorIdentity(int(key[0]), inbox.id), name, inbox
