"""What goes in and out of the search."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from app.chat.search import QUERY_MAX_CHARACTERS
from app.http.models import (
    InboxRef,
    NoNul,
    Request,
    Response,
    Sender,
    SenderType,
    Status,
    StreamName,
    Timestamp,
    VisitorRef,
)


class SearchQuery(Request):
    q: Annotated[
        str,
        Field(
            min_length=1,
            max_length=QUERY_MAX_CHARACTERS,
            description="words or parts of words, all of which must occur; no operators",
        ),
        NoNul,
    ]
    type: Literal["messages", "visitors", "all"] = "all"
    inbox: Annotated[int, Field(ge=1, le=2**53)] | None = None
    cursor: Annotated[str, Field(max_length=200)] | None = None
    limit: Annotated[int, Field(ge=1, le=50)] = 20


class Snippet(Response):
    """A piece of the text on one line, and the places of the hits in it."""

    text: str
    highlights: Annotated[
        list[Annotated[list[int], Field(min_length=2, max_length=2)]],
        Field(description="[start, end] in UTF-16 code units, as JavaScript counts"),
    ]


class ConversationRef(Response):
    id: int
    status: Status
    inbox: InboxRef
    visitor: VisitorRef


class MessageHit(Response):
    type: Literal["message"]
    conversation: ConversationRef
    stream: StreamName
    seq: int
    kind: Literal["text", "note", "file", "event"]
    sender_type: SenderType
    sender: Sender | None
    created_at: Timestamp
    snippet: Snippet


class VisitorHit(Response):
    type: Literal["visitor"]
    visitor: VisitorRef
    inbox: InboxRef
    conversation_id: Annotated[int | None, Field(description="the visitor's newest")]
    last_seen_at: Timestamp
    field: Literal["name", "email", "identifier", "phone", "attributes"]
    snippet: Snippet


class SearchPage(Response):
    """Newest first. A page may be short, even empty, while there is a next one."""

    items: list[Annotated[MessageHit | VisitorHit, Field(discriminator="type")]]
    next_cursor: str | None
