"""What a site tells of its visitors: names with a text, a number or a truth value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

import orjson
from pydantic import Field

from app.chat.errors import Refused
from app.chat.text import NoNul, OneLine

ATTRIBUTES_MAX: Final = 50
ATTRIBUTES_MAX_BYTES: Final = 16 * 1024
_WHOLE_MAX: Final = 2**53 - 1

Name = Annotated[str, Field(min_length=1, max_length=64), OneLine]
Value = (
    Annotated[str, Field(max_length=500), NoNul]
    | bool
    | Annotated[int, Field(ge=-_WHOLE_MAX, le=_WHOLE_MAX)]
    | Annotated[float, Field(ge=-_WHOLE_MAX, le=_WHOLE_MAX, allow_inf_nan=False)]
    | None
)
Attributes = Annotated[
    dict[Name, Value],
    Field(
        max_length=ATTRIBUTES_MAX,
        description="a value of null removes the attribute; at most 50 attributes and 16 KiB",
        examples=[{"plan": "gold", "orders": 3, "newsletter": True}],
    ),
]


def read(stored: str | None) -> dict[str, Any]:
    """The attributes as ``visitors.attributes`` holds them."""
    known: dict[str, Any] = orjson.loads(stored) if stored else {}
    return known


def merged(stored: str | None, change: Mapping[str, Any]) -> str | None:
    """The attributes with ``change`` applied, to be stored; None for none.

    Raises :class:`Refused` when they become too many or too long together.
    """
    known = read(stored) | dict(change)
    kept = {name: value for name, value in known.items() if value is not None}
    text = orjson.dumps(kept)
    if len(kept) > ATTRIBUTES_MAX or len(text) > ATTRIBUTES_MAX_BYTES:
        raise Refused(
            "invalid_request",
            f"A visitor should have at most {ATTRIBUTES_MAX} attributes of "
            f"{ATTRIBUTES_MAX_BYTES // 1024} KiB together: remove some with null.",
            field="attributes",
        )
    return text.decode() if kept else None
