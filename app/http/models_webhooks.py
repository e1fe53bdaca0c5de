"""The JSON of outgoing webhooks and their deliveries."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from app.chat.webhook_events import EVENTS
from app.chat.webhooks import URL_MAX_CHARACTERS
from app.http.models import InboxRef, NoNul, OneLine, Request, Response, Timestamp, unset


def _known(event: str) -> str:
    if event not in EVENTS:
        raise ValueError(f"should be one of: {', '.join(EVENTS)}")
    return event


Name = Annotated[str, Field(min_length=1, max_length=100), OneLine]
Url = Annotated[
    str,
    Field(
        min_length=1,
        max_length=URL_MAX_CHARACTERS,
        description="http or https; deliveries are POSTed there",
        examples=["https://example.com/deskline"],
    ),
    NoNul,
]
Event = Annotated[
    str,
    Field(max_length=64, json_schema_extra={"enum": list(EVENTS)}, examples=[EVENTS[0]]),
    AfterValidator(_known),
]
Events = Annotated[list[Event], Field(min_length=1, max_length=len(EVENTS))]
InboxId = Annotated[
    int | None, Field(ge=1, le=2**63 - 1, description="null: events of every inbox")
]


class Webhook(Response):
    id: int
    name: str
    url: str
    events: list[str]
    inbox: InboxRef | None
    active: bool
    created_at: Timestamp


class WebhookPage(Response):
    """All webhooks, by name: there are at most 50."""

    items: list[Webhook]
    next_cursor: None


class WebhookWithSecret(Webhook):
    secret: Annotated[
        str,
        Field(
            description=(
                "shown this once; X-Deskline-Signature is t=TIMESTAMP,v1=HEX with the HMAC-SHA256 "
                "of TIMESTAMP, a full stop and the body, keyed with it"
            )
        ),
    ]


class NewWebhook(Request):
    name: Name
    url: Url
    events: Events
    inbox_id: InboxId = None
    active: bool = True


class WebhookChange(Request):
    """Fields that are left out stay as they are."""

    name: Name = unset()
    url: Url = unset()
    events: Events = unset()
    inbox_id: InboxId = unset()
    active: bool = unset()


class DeliveryQuery(Request):
    status: Literal["pending", "delivered", "failed"] | None = None
    cursor: Annotated[str, Field(max_length=200)] | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 50


class WebhookDelivery(Response):
    """``event_id`` is the same for every attempt and webhook: receivers tell repeats by it."""

    id: int
    webhook_id: int
    event_id: str
    event: str
    status: Literal["pending", "delivered", "failed"]
    attempts: int
    next_attempt_at: Timestamp | None
    response_status: int | None
    error: str | None
    duration_ms: int | None
    created_at: Timestamp
    delivered_at: Timestamp | None


class WebhookDeliveryDetail(WebhookDelivery):
    payload: Annotated[
        dict[str, Any],
        Field(
            description=(
                "what is sent: id (the event_id), event, created_at, inbox, conversation and, for "
                "message events, message; empty after the person was erased"
            )
        ),
    ]


class WebhookDeliveryPage(Response):
    items: list[WebhookDelivery]
    next_cursor: str | None
