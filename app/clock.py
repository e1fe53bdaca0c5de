"""The clock, the id maker and the randomness, in one place that a test can set."""

from __future__ import annotations

import secrets
import uuid as uuids
from collections.abc import Callable
from datetime import UTC, datetime

now_source: Callable[[], datetime] = lambda: datetime.now(UTC)  # noqa: E731  replaced in tests
token_source: Callable[[int], str] = secrets.token_urlsafe
uuid_source: Callable[[], uuids.UUID] = uuids.uuid4


def now() -> datetime:
    """The current time as a naive datetime in UTC with microseconds, as the database stores it."""
    return now_source().replace(tzinfo=None)


def token(size_bytes: int = 32) -> str:
    """An unguessable URL-safe text made of ``size_bytes`` random bytes."""
    return token_source(size_bytes)


def uuid() -> str:
    """A random UUID (RFC 9562, version 4) as text."""
    return str(uuid_source())


def wire(moment: datetime) -> str:
    """A naive UTC datetime as ISO 8601 with microseconds and Z, the form on the wire."""
    text = moment.isoformat()  # without arguments it takes half the time
    return f"{text}Z" if moment.microsecond else f"{text}.000000Z"
