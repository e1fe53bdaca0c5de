"""The models of catching up."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, Field

from app.chat.sync import CONVERSATIONS_MAX
from app.http.models import (
    Conversation,
    Id,
    Message,
    Priority,
    Request,
    Response,
    Seq,
    Status,
    StreamSeqs,
    WidgetConversation,
)

ConversationId = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,17}$")]


class KnownEdits(Request):
    public: Seq | None = None
    staff: Seq | None = None


class KnownSeqs(Request):
    """The last seq that the client has of each stream; a stream that is left out is not told."""

    public: Seq | None = None
    staff: Seq | None = None
    edits: Annotated[
        KnownEdits | None,
        Field(description="last_edit as the client has it; absent: the present one"),
    ] = None


def _to_utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)


class SyncRequest(Request):
    known: Annotated[
        dict[ConversationId, Seq | KnownSeqs],
        Field(
            max_length=CONVERSATIONS_MAX,
            description="by the conversation's id; a plain number is the last public seq",
            examples=[{"12": {"public": 40, "staff": 3, "edits": {"public": 1, "staff": 0}}}],
        ),
    ]
    view: Annotated[
        Literal["mine", "unassigned", "team", "all"] | None,
        Field(description="tells the conversations of this view that are not in known"),
    ] = None
    status: Status | None = None
    inbox: Id | None = None
    label: Id | None = None
    assignee: Id | None = None
    team: Id | None = None
    visitor: Id | None = None
    priority: Priority | None = None
    since: (
        Annotated[
            AwareDatetime,
            AfterValidator(_to_utc),
            Field(
                description="of the view: all that had activity since then (updated_at of the "
                "oldest one that the client shows); absent: its first page only"
            ),
        ]
        | None
    ) = None


class KnownNow(Response):
    public: int | None
    staff: int | None
    edits: StreamSeqs


class Sync(Response):
    """What was missed. ``known`` is what to send the next time; ``more``: ask again at once."""

    conversations: Annotated[
        list[Conversation], Field(description="the known ones as they are now")
    ]
    messages: Annotated[list[Message], Field(description="ascending per conversation and stream")]
    edits: Annotated[
        list[Message], Field(description="known messages that were edited or deleted, as they are")
    ]
    new: Annotated[list[Conversation], Field(description="of the view, without their messages")]
    gone: Annotated[
        list[int], Field(description="known ones that the caller may not see (any more)")
    ]
    known: dict[str, KnownNow]
    more: bool


class WidgetKnownSeqs(Request):
    seq: Seq
    edits: Annotated[
        Seq | None,
        Field(description="last_edit as the client has it; absent: the present one"),
    ] = None


class WidgetSyncRequest(Request):
    known: Annotated[
        dict[ConversationId, Seq | WidgetKnownSeqs],
        Field(
            max_length=CONVERSATIONS_MAX,
            description="by the conversation's id; a plain number is the last seq",
            examples=[{"12": {"seq": 40, "edits": 1}}],
        ),
    ]


class WidgetKnownNow(Response):
    seq: int
    edits: int


class WidgetSync(Response):
    """What was missed. ``known`` is what to send the next time; ``more``: ask again at once."""

    conversations: list[WidgetConversation]
    messages: list[Message]
    edits: list[Message]
    new: Annotated[
        list[WidgetConversation],
        Field(description="own ones that are not in known, the newest first"),
    ]
    gone: list[int]
    known: dict[str, WidgetKnownNow]
    more: bool
