"""The JSON of the audit log."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from app.http.models import NoNul, OneLine, Request, Response, Timestamp
from app.http.moments import as_utc, written_out

_Moment = Annotated[
    datetime,
    BeforeValidator(written_out),
    AfterValidator(as_utc),
    Field(description="ISO 8601; without an offset it is UTC", examples=["2026-11-23T00:00:00Z"]),
]


class AuditQuery(Request):
    actor: Annotated[int, Field(ge=1, le=2**53, description="the account's id")] | None = None
    action: (
        Annotated[
            str,
            Field(
                min_length=1,
                max_length=64,
                description="as webhook.created; webhook.* is everything that begins with it",
            ),
            OneLine,
        ]
        | None
    ) = None
    object_type: Annotated[str, Field(min_length=1, max_length=32), NoNul] | None = None
    object_id: Annotated[str, Field(min_length=1, max_length=64), NoNul] | None = None
    since: _Moment | None = None
    until: Annotated[_Moment | None, Field(description="not included")] = None
    cursor: Annotated[str, Field(max_length=200)] | None = None
    limit: Annotated[int, Field(ge=1, le=500)] = 50
    format: Annotated[
        Literal["json", "csv"] | None,
        Field(description="without it the Accept header decides; CSV holds one page"),
    ] = None


class AuditActor(Response):
    type: Literal["agent", "api_key", "system"]
    id: int | None
    name: str


class AuditObject(Response):
    type: str
    id: str | None


class AuditEntry(Response):
    """Who did what; ``details`` say what was changed, and never a secret or a message."""

    id: int
    at: Timestamp
    actor: AuditActor
    action: str
    object: AuditObject
    address: str | None
    details: dict[str, Any] | None


class AuditPage(Response):
    """Newest first."""

    items: list[AuditEntry]
    next_cursor: str | None
