"""The JSON of visitors as the staff know them, and of blocked networks."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field

from app.chat.attributes import Attributes
from app.chat.blocking import normalized_network
from app.chat.text import NoNul, OneLine
from app.http.models import (
    Email,
    InboxRef,
    Phone,
    Request,
    Response,
    Status,
    Timestamp,
    UserRef,
    VisitedPage,
    unset,
)

AttributeValues = Annotated[
    dict[str, Any], Field(examples=[{"plan": "gold", "orders": 3, "newsletter": True}])
]


class Visitor(Response):
    """``identifier`` is who the site says it is, signed; null: anonymous."""

    id: int
    inbox: InboxRef
    name: str
    email: str | None
    phone: str | None
    identifier: str | None
    attributes: AttributeValues
    language: str | None
    browser: str | None
    page: VisitedPage | None
    referrer: str | None
    address: Annotated[str | None, Field(description="null when addresses are not kept")]
    blocked_at: Timestamp | None
    first_seen_at: Timestamp
    last_seen_at: Timestamp


class VisitorPage(Response):
    items: list[Visitor]
    next_cursor: str | None


class SeenPage(VisitedPage):
    seen_at: Timestamp


class VisitorConversation(Response):
    """``form`` is what was answered before the first message."""

    id: int
    status: Status
    assignee: UserRef | None
    form: Annotated[dict[str, Any] | None, Field(examples=[{"name": "Ann Lee"}])]
    created_at: Timestamp
    updated_at: Timestamp


class VisitorDetail(Visitor):
    """With the last 50 pages and the newest 50 conversations, the newest first."""

    pages: list[SeenPage]
    conversations: list[VisitorConversation]


class VisitorQuery(Request):
    query: Annotated[
        str | None,
        Field(max_length=100, description="a part of the name, e-mail, phone or identifier"),
        NoNul,
    ] = None
    inbox: Annotated[int, Field(ge=1, le=2**53)] | None = None
    cursor: Annotated[str, Field(max_length=200)] | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 50


class VisitorChange(Request):
    """Fields that are left out stay as they are; of the attributes, those that are named change."""

    name: Annotated[str, Field(min_length=1, max_length=100), OneLine] = unset()
    email: Email | None = unset()
    phone: Phone | None = unset()
    attributes: Attributes = unset()


# --- blocked networks -------------------------------------------------------------------------

Reason = Annotated[str, Field(max_length=300), OneLine]


class BlockedNetwork(Response):
    id: int
    network: str
    reason: str
    created_by: UserRef | None
    created_at: Timestamp


class BlockedNetworkPage(Response):
    items: list[BlockedNetwork]
    next_cursor: str | None


class BlockedNetworkQuery(Request):
    cursor: Annotated[str, Field(max_length=200)] | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 50


class NewBlockedNetwork(Request):
    network: Annotated[
        str,
        Field(
            min_length=1,
            max_length=64,
            description="an address or a range, IPv4 (at widest /8) or IPv6 (at widest /16)",
            examples=["192.0.2.0/24"],
        ),
        AfterValidator(normalized_network),
    ]
    reason: Reason = ""


class BlockedNetworkChange(Request):
    """Fields that are left out stay as they are."""

    reason: Reason = unset()
