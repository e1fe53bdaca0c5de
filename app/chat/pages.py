"""Cursors of lists: opaque texts that say where the next page begins."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import orjson

CURSOR_MAX_CHARACTERS: Final = 200
_ID_MAX: Final = 2**63 - 1


class BadCursor(Exception):
    """A cursor that this list did not give out."""


def make_cursor(*parts: datetime | int | str) -> str:
    """A cursor that :func:`read_cursor` takes apart again."""
    values = [part.isoformat() if isinstance(part, datetime) else part for part in parts]
    return base64.urlsafe_b64encode(orjson.dumps(values)).decode().rstrip("=")


def read_cursor(cursor: str, *kinds: type) -> list[Any]:
    """The parts of a cursor, each of its kind (datetime, int, str). Raises :class:`BadCursor`."""
    try:
        values = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, binascii.Error):
        raise BadCursor from None
    if not isinstance(values, list) or len(values) != len(kinds):
        raise BadCursor
    return [_READERS[kind](value) for kind, value in zip(kinds, values, strict=True)]


def _moment(value: Any) -> datetime:
    if not isinstance(value, str):
        raise BadCursor
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise BadCursor from None
    if moment.tzinfo is not None:
        raise BadCursor
    return moment


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _ID_MAX:
        raise BadCursor
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise BadCursor
    return value


_READERS: Final[dict[type, Callable[[Any], Any]]] = {datetime: _moment, int: _number, str: _text}
