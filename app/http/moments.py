"""Moments in the queries of clients."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any


def as_utc(moment: datetime) -> datetime:
    """A moment as the database has it, naive and in UTC; without an offset it is UTC already."""
    try:
        return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
    except OverflowError:
        raise ValueError("is out of range") from None


def written_out(value: Any) -> Any:
    """``value``, unless it is text that does not begin with a date (RFC 3339 §5.6).

    In a query everything is text, and pydantic would take a number for seconds since 1970.
    """
    if isinstance(value, str) and not re.match(r"\d{4}-\d\d-\d\d", value):
        raise ValueError("should be written as 2026-11-23 or 2026-11-23T08:15:30Z")
    return value
