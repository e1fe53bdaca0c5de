"""What is asked and answered about the state of conversations, presence and ratings."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, AwareDatetime, Field

from app.http.models import (
    Id,
    NoNul,
    Participant,
    Priority,
    Request,
    Response,
    UserRef,
    WidgetConversation,
)

LABELS_MAX: Final = 50

Version = Annotated[
    int | None,
    Field(
        ge=0,
        le=2**31 - 1,
        description="the conversation's version that the caller saw: 409 when it has changed since",
    ),
]


class ActRequest(Request):
    version: Version = None


class AssignRequest(ActRequest):
    user_id: Id


class TransferRequest(ActRequest):
    """Exactly one of ``user_id`` and ``team_id``."""

    user_id: Id | None = None
    team_id: Id | None = None
    note: (
        Annotated[
            str,
            Field(min_length=1, max_length=10_000, description="kept as a private note"),
            NoNul,
        ]
        | None
    ) = None


def _utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("should be a time that a calendar knows in UTC too") from None


class SnoozeRequest(ActRequest):
    until: Annotated[AwareDatetime, Field(examples=["2026-11-24T09:00:00Z"]), AfterValidator(_utc)]


class ConversationPatch(ActRequest):
    priority: Priority


class LabelsRequest(ActRequest):
    label_ids: Annotated[list[Id], Field(max_length=LABELS_MAX)]


class ParticipantList(Response):
    items: list[Participant]
    next_cursor: None


class PresentAgent(Response):
    user: UserRef
    availability: Literal["online", "away"]


class PresenceList(Response):
    """Who is there; ``known`` is false while Redis is away, and then nobody is listed."""

    items: list[PresentAgent]
    next_cursor: None
    known: bool


class PresenceNoted(Response):
    lifetime_seconds: Annotated[
        int, Field(description="how long the caller counts as present without another call")
    ]


class RatingRequest(Request):
    score: Annotated[int, Field(ge=1, le=5)]
    comment: Annotated[str, Field(max_length=2000), NoNul] | None = None


class WidgetHistoryQuery(Request):
    cursor: Annotated[str, Field(max_length=200)] | None = None
    limit: Annotated[int, Field(ge=1, le=50)] = 20


class WidgetConversationPage(Response):
    items: list[WidgetConversation]
    next_cursor: str | None
