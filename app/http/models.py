"""The JSON that goes in and out, as pydantic models: requests are checked with them, and the
OpenAPI document is generated from all of them."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)

from app.chat import text
from app.chat.arrivals import WAIT_MAX_SECONDS
from app.chat.attachments import PER_MESSAGE as ATTACHMENTS_PER_MESSAGE
from app.chat.attributes import Attributes
from app.chat.conversations import QUEUE_MAX
from app.chat.messages import BODY_MAX_CHARACTERS, PAGE_MAX_MESSAGES

Timestamp = Annotated[
    str,
    Field(
        description="UTC, ISO 8601 with microseconds and Z",
        json_schema_extra={"format": "date-time"},
        examples=["2026-11-23T08:15:30.123456Z"],
    ),
]
# after a Field with the lengths: Annotated[str, Field(max_length=100), OneLine]
NoNul: Final = text.NoNul
OneLine: Final = text.OneLine
Email = Annotated[
    str, Field(max_length=254, pattern=r"^[^@\s]+@[^@\s]+$", examples=["ann@example.com"]), OneLine
]
Phone = Annotated[str, Field(min_length=3, max_length=40), OneLine]
Seq = Annotated[int, Field(ge=0, le=2**31 - 1)]
StreamName = Literal["public", "staff"]
Status = Literal["open", "snoozed", "resolved"]
Priority = Literal["low", "normal", "high", "urgent"]
SenderType = Literal["visitor", "agent", "system"]


def _shortened(length: int) -> BeforeValidator:
    """Cut text instead of refusing it: a long page title must not keep a visitor from writing."""
    return BeforeValidator(lambda value: value[:length] if isinstance(value, str) else value)


def unset() -> Any:
    """The default of a field of a change: left out, it stays as it is. Null is not left out."""

    def without_default(schema: dict[str, Any]) -> None:
        schema.pop("default", None)

    return Field(default=None, json_schema_extra=without_default)


class Request(BaseModel):
    """What clients send; unknown fields are ignored, so that newer clients can talk to older
    servers during a rolling deploy."""

    model_config = ConfigDict(extra="ignore")


class Response(BaseModel):
    """What the server answers."""

    model_config = ConfigDict(extra="forbid")


# --- shared objects ---------------------------------------------------------------------------


class InboxRef(Response):
    id: int
    name: str


class UserRef(Response):
    id: int
    name: str
    avatar_url: str | None


class TeamRef(Response):
    id: int
    name: str


class LabelRef(Response):
    id: int
    name: str
    color: str


class Rating(Response):
    """What the visitor thought of the help, from 1 (bad) to 5 (good)."""

    score: Annotated[int, Field(ge=1, le=5)]
    comment: str | None
    at: Timestamp


class VisitorRef(Response):
    id: int
    name: str
    email: str | None


class Sender(Response):
    id: int
    name: str | None
    avatar_url: str | None


class Attachment(Response):
    """A file of a message; ``url`` is relative to the API's address."""

    id: int
    name: str
    content_type: str
    size_bytes: int
    width_px: int | None
    height_px: int | None
    url: str


class Message(Response):
    """One message of a stream; ``seq`` counts 1, 2, 3 … per stream without holes."""

    conversation_id: int
    stream: StreamName
    seq: int
    client_id: str
    sender_type: SenderType
    sender: Sender | None
    kind: Literal["text", "note", "file", "event"]
    body: str
    attachments: list[Attachment]
    event: Annotated[
        dict[str, Any] | None, Field(description="what happened, for kind event: its type and more")
    ]
    created_at: Timestamp
    edited_at: Timestamp | None
    deleted_at: Timestamp | None


class MessagePage(Response):
    """A page of one stream, ascending by seq; ``has_more`` says that the page was cut."""

    items: list[Message]
    next_cursor: None
    has_more: bool
    edits: Annotated[
        list[Message],
        Field(
            description="with after_seq and after_edit: earlier messages that were changed, "
            "as they are now"
        ),
    ]
    last_edit: Annotated[int | None, Field(description="what to send as after_edit the next time")]


class StreamSeqs(Response):
    public: int
    staff: int


class Conversation(Response):
    """A conversation as staff see it; ``read_seq`` and ``unread`` are the reader's own."""

    id: int
    inbox: InboxRef
    visitor: VisitorRef
    status: Status
    assignee: UserRef | None
    team: Annotated[
        TeamRef | None, Field(description="whose members should take it, once it was passed on")
    ]
    priority: Priority
    labels: list[LabelRef]
    snoozed_until: Timestamp | None
    waiting_since: Annotated[
        Timestamp | None,
        Field(description="since when the visitor waits; null when the staff had the last word"),
    ]
    first_response_at: Timestamp | None
    resolved_at: Timestamp | None
    csat: Rating | None
    last_seq: StreamSeqs
    last_edit: Annotated[
        StreamSeqs, Field(description="the number of the last edit or deletion in each stream")
    ]
    read_seq: StreamSeqs
    unread: int
    visitor_read_seq: int
    visitor_delivered_seq: int
    staff_read_seq: int
    staff_delivered_seq: int
    last_message: Message | None
    created_at: Timestamp
    updated_at: Timestamp
    version: int


class VisitedPage(Response):
    url: str
    title: str | None


class VisitorContext(Response):
    language: str | None
    browser: str | None
    page: VisitedPage | None
    referrer: str | None
    first_seen_at: Timestamp
    last_seen_at: Timestamp


class Participant(Response):
    """An agent who held the conversation, wrote in it or was added."""

    user: UserRef
    since: Timestamp


class ConversationDetail(Conversation):
    """A conversation with its participants and its visitor's context."""

    participants: list[Participant]
    form: Annotated[
        dict[str, Any] | None, Field(description="what the visitor filled into the pre-chat form")
    ]
    visitor_context: VisitorContext


class ConversationPage(Response):
    items: list[Conversation]
    next_cursor: str | None


class WidgetConversation(Response):
    """A conversation as its visitor sees it."""

    id: int
    status: Status
    assignee: UserRef | None
    last_seq: int
    last_edit: Annotated[int, Field(description="the number of the last edit or deletion")]
    read_seq: int
    unread: int
    queue_position: Annotated[
        int | None,
        Field(
            ge=1,
            le=QUEUE_MAX + 1,
            description=(
                f"1: next; {QUEUE_MAX + 1}: further back than {QUEUE_MAX}; "
                "null: somebody has it, or no answer is waited for"
            ),
        ),
    ]
    last_message: Message | None
    staff_read_seq: int
    staff_delivered_seq: int
    created_at: Timestamp
    resolved_at: Timestamp | None
    rating: Rating | None


class Realtime(Response):
    """The options for pusher-js."""

    key: str
    wsHost: str
    wsPort: int
    wssPort: int
    forceTLS: bool
    authEndpoint: str


class FieldProblem(Response):
    field: str
    message: str


class ConversationState(Response):
    """How a conversation stands, for whoever wanted to change it."""

    id: int
    status: Status
    assignee: UserRef | None
    version: int


class ProblemDocument(BaseModel):
    """An error (RFC 9457); ``code`` is stable."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[FieldProblem] | None = None
    holder: UserRef | None = Field(
        default=None, description="who has the conversation (conversation_already_claimed)"
    )
    conversation: ConversationState | None = Field(
        default=None, description="how the conversation stands (conflict)"
    )


# --- auth -------------------------------------------------------------------------------------


class User(Response):
    id: int
    name: str
    email: str
    role: Literal["admin", "agent"]
    avatar_url: str | None


# --- conversations and messages -----------------------------------------------------------------


Id = Annotated[int, Field(ge=1, le=2**53)]


class ConversationQuery(Request):
    view: Annotated[
        Literal["mine", "unassigned", "team", "all"],
        Field(description="team: passed on to a team of the caller"),
    ] = "all"
    status: Status | None = None
    inbox: Id | None = None
    label: Id | None = None
    assignee: Id | None = None
    team: Id | None = None
    visitor: Id | None = None
    priority: Priority | None = None
    sort: Annotated[
        Literal["updated", "waiting"],
        Field(
            description=(
                "updated: the newest activity first; "
                "waiting: only those whose visitor waits, the longest first"
            )
        ),
    ] = "updated"
    cursor: Annotated[str, Field(max_length=200)] | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50


class WidgetMessageQuery(Request):
    after_seq: Seq | None = None
    before_seq: Seq | None = None
    limit: Annotated[int, Field(ge=1, le=PAGE_MAX_MESSAGES)] = 50
    known_seq: Annotated[
        Seq, Field(description="the highest seq of the stream that the reader knows")
    ] = 0
    wait: Annotated[
        int,
        Field(
            ge=0,
            le=WAIT_MAX_SECONDS,
            description="with after_seq: seconds to wait for a message when there is none",
        ),
    ] = 0
    after_edit: Annotated[
        Seq | None,
        Field(
            description="the last_edit that the reader knows: nothing is shown as it was before; "
            "with after_seq the earlier messages that were edited or deleted since are told too"
        ),
    ] = None

    @field_validator("wait")
    @classmethod
    def _only_forward(cls, value: int, info: ValidationInfo) -> int:
        forward = info.data.get("after_seq") is not None and info.data.get("before_seq") is None
        if value and not forward:
            raise ValueError("needs after_seq, and no before_seq")
        return value


class MessageQuery(WidgetMessageQuery):
    stream: StreamName = "public"


Body = Annotated[
    str,
    Field(
        max_length=BODY_MAX_CHARACTERS,
        description="the text; may be empty or blank only when there are attachments",
    ),
    NoNul,
]


class NewWidgetMessage(Request):
    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"properties": {"body": {"pattern": text.VISIBLE}}},
                {"properties": {"attachment_ids": {"minItems": 1}}, "required": ["attachment_ids"]},
            ]
        }
    )

    client_id: Annotated[
        UUID, Field(description="made by the sender; a repeat is stored once and answered 200")
    ]
    # before the body, which is checked with them
    attachment_ids: Annotated[
        list[Annotated[int, Field(ge=1, le=2**53)]],
        Field(
            max_length=ATTACHMENTS_PER_MESSAGE,
            json_schema_extra={"uniqueItems": True},
            description="files that were uploaded to this conversation and not sent yet",
        ),
    ] = []
    body: Body

    @field_validator("attachment_ids")
    @classmethod
    def _each_once(cls, ids: list[int]) -> list[int]:
        if len(set(ids)) != len(ids):
            raise ValueError("should name each file once")
        return ids

    @field_validator("body")
    @classmethod
    def _something_is_said(cls, body: str, info: ValidationInfo) -> str:
        if text.is_blank(body):
            if info.data.get("attachment_ids"):
                return ""
            raise ValueError("should not be blank")
        return body


FormAnswer = Annotated[str, Field(max_length=2000), NoNul] | bool


class FirstWidgetMessage(NewWidgetMessage):
    form: Annotated[
        dict[Annotated[str, Field(max_length=40)], FormAnswer] | None,
        Field(
            max_length=50,
            description="the answers to the inbox's pre_chat, by the names of its fields",
            examples=[{"name": "Ann Lee", "email": "ann@example.com"}],
        ),
    ] = None


class NewMessage(NewWidgetMessage):
    kind: Literal["text", "note"] = "text"


class MessageEdit(Request):
    body: Body


class ReadRequest(Request):
    seq: Seq
    stream: StreamName = "public"


class WidgetReadRequest(Request):
    seq: Seq


class ReadResponse(Response):
    read_seq: int


class DeliveredResponse(Response):
    delivered_seq: int


# --- widget -------------------------------------------------------------------------------------


class WidgetPage(Request):
    url: Annotated[str | None, _shortened(2000)] = None
    title: Annotated[str | None, _shortened(300)] = None
    referrer: Annotated[str | None, _shortened(2000)] = None


class WidgetPageRequest(Request):
    url: Annotated[str, _shortened(2000), Field(min_length=1)]
    title: Annotated[str | None, _shortened(300)] = None


class WidgetIdentity(Request):
    """Who the visitor is, as the site says."""

    identifier: (
        Annotated[
            str,
            Field(
                min_length=1,
                max_length=200,
                description="what the site knows it by; only with identity_hash",
            ),
            OneLine,
        ]
        | None
    ) = None
    name: Annotated[str, Field(min_length=1, max_length=100), OneLine] | None = None
    email: Email | None = None
    phone: Phone | None = None
    attributes: Attributes = Field(default_factory=dict)


class WidgetSessionRequest(Request):
    inbox_key: Annotated[str, Field(min_length=1, max_length=64)]
    visitor_token: Annotated[str, Field(max_length=1000)] | None = None
    page: WidgetPage | None = None
    language: Annotated[str | None, _shortened(35)] = None
    identity: WidgetIdentity | None = None
    identity_hash: Annotated[
        str | None,
        Field(
            max_length=128,
            description="hex HMAC-SHA256 of identity.identifier with the inbox's identity secret",
        ),
    ] = None


class WidgetVisitor(Response):
    id: int
    name: str


class WidgetTheme(Response):
    position: Literal["left", "right"]
    color_scheme: Literal["auto", "light", "dark"]
    launcher_text: str | None


class WidgetFormField(Response):
    """A question before the first message; ``options`` are those of a select."""

    name: str
    label: str
    type: Literal["text", "email", "phone", "textarea", "select", "checkbox"]
    required: bool
    options: list[str]


class WidgetOfflineForm(Response):
    enabled: bool
    message: str | None


class WidgetInbox(Response):
    """The inbox in the visitor's language. ``opens_at`` is told when it is closed."""

    id: int
    name: str
    greeting: str
    color: str
    languages: list[str]
    theme: WidgetTheme
    open: bool
    opens_at: Timestamp | None
    offline_form: WidgetOfflineForm
    consent: str | None
    csat_enabled: bool
    pre_chat: list[WidgetFormField]
    form_required: Annotated[
        bool, Field(description="whether the first message needs an answer to pre_chat")
    ]


class WidgetSession(Response):
    visitor_token: str
    visitor: WidgetVisitor
    conversation: WidgetConversation | None
    realtime: Realtime
    inbox: WidgetInbox


class FirstMessage(Response):
    conversation: WidgetConversation
    message: Message


# --- realtime and operations --------------------------------------------------------------------


class BroadcastingAuthRequest(Request):
    """A form (application/x-www-form-urlencoded), as pusher-js sends it."""

    # a form's empty value is an absent one
    socket_id: Annotated[str, Field(min_length=1, max_length=41)]
    channel_name: Annotated[str, Field(min_length=1, max_length=200)]


class BroadcastingAuth(Response):
    auth: str
    channel_data: str


class Health(Response):
    status: Literal["ok"]


class Readiness(Response):
    status: Literal["ready", "draining", "not_ready"]
    checks: dict[str, str]
