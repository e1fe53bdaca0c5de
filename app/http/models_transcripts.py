"""The models of transcripts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from app.chat.business_hours import ZoneName
from app.http.models import InboxRef, Message, Request, Response, Status, Timestamp, WidgetVisitor
from app.http.models_account import EmailAddress


class Reader(Request):
    """How a transcript is written."""

    language: Literal["en", "zh-Hant-TW"] = "en"
    time_zone: ZoneName = "UTC"


class WidgetTranscriptQuery(Reader):
    format: Literal["html", "text", "json"] = "html"


class TranscriptQuery(WidgetTranscriptQuery):
    notes: Annotated[bool, Field(description="with the staff's notes and events")] = False


class TranscriptMail(Reader):
    email: Annotated[EmailAddress, Field(description="where to send it")]


class WidgetTranscriptMail(Reader):
    email: Annotated[
        EmailAddress | None,
        Field(description="where to send it; absent: the visitor's own address"),
    ] = None


class TranscribedConversation(Response):
    id: int
    inbox: InboxRef
    visitor: WidgetVisitor
    status: Status
    created_at: Timestamp


class Transcript(Response):
    """A transcript as JSON (format=json): all messages in the order of writing."""

    conversation: TranscribedConversation
    messages: list[Message]
