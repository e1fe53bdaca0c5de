"""The JSON of retention."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from app.chat.retention import AUDIT_DAYS_MIN, DAYS_MAX, DELIVERY_DAYS_MAX
from app.http.models import InboxRef, Request, Response, unset

DefaultDays = Annotated[
    int | None,
    Field(
        ge=1,
        le=DAYS_MAX,
        description=(
            "days after which a resolved conversation goes, of inboxes without a number of their "
            "own; null: never"
        ),
        examples=[365],
    ),
]
DeliveryDays = Annotated[
    int, Field(ge=1, le=DELIVERY_DAYS_MAX, description="days of the log of webhooks", examples=[30])
]
AuditDays = Annotated[
    int | None,
    Field(
        ge=AUDIT_DAYS_MIN,
        le=DAYS_MAX,
        description="days of the audit log; null: for ever",
        examples=[730],
    ),
]
IdleVisitorDays = Annotated[
    int | None,
    Field(
        ge=1,
        le=DAYS_MAX,
        description=(
            "days after which a visitor goes who was not seen and has no conversation; null: only "
            "the days of conversations count"
        ),
        examples=[400],
    ),
]


class RetentionChange(Request):
    """Fields that are left out stay as they are. An inbox's own number is changed there."""

    default_days: DefaultDays = unset()
    webhook_delivery_days: DeliveryDays = unset()
    audit_days: AuditDays = unset()
    idle_visitor_days: IdleVisitorDays = unset()


class InboxRetention(Response):
    inbox: InboxRef
    own_days: Annotated[int | None, Field(description="null: the default is in force")]
    days: Annotated[int | None, Field(description="what is in force; null: never")]


class Retention(Response):
    default_days: int | None
    webhook_delivery_days: int
    audit_days: int | None
    idle_visitor_days: int | None
    inboxes: list[InboxRetention]


class InboxPreview(Response):
    inbox: InboxRef
    days: int | None
    conversations: int
    messages: int
    attachments: int
    visitors: int


class RetentionPreview(Response):
    """What would go now."""

    items: list[InboxPreview]
    webhook_deliveries: int
    audit_entries: int
