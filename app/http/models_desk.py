"""The JSON of what helps at the desk: labels and canned responses."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from app.chat import text
from app.chat.messages import BODY_MAX_CHARACTERS
from app.http.models import NoNul, OneLine, Request, Response, Timestamp, unset

Color = Annotated[
    str, Field(pattern=r"^#[0-9a-fA-F]{6}$", description="#rrggbb", examples=["#0d6b58"])
]
Id = Annotated[int, Field(ge=1, le=2**63 - 1)]


# --- labels -----------------------------------------------------------------------------------

LabelName = Annotated[str, Field(min_length=1, max_length=50), OneLine]


class Label(Response):
    id: int
    name: str
    color: str
    created_at: Timestamp


class LabelPage(Response):
    """All labels, by name: there are at most 500."""

    items: list[Label]
    next_cursor: None


class NewLabel(Request):
    name: LabelName
    color: Color = "#5b6b66"


class LabelChange(Request):
    """Fields that are left out stay as they are."""

    name: LabelName = unset()
    color: Color = unset()


# --- canned responses -------------------------------------------------------------------------

Shortcut = Annotated[
    str,
    Field(min_length=1, max_length=50, description="what agents type after a slash"),
    text.OneWord,
]
CannedTitle = Annotated[str, Field(min_length=1, max_length=100), OneLine]
CannedBody = Annotated[
    str,
    Field(
        min_length=1,
        max_length=BODY_MAX_CHARACTERS,
        description=(
            "may hold {{visitor.name}}, {{visitor.email}}, {{visitor.phone}}, "
            "{{visitor.attributes.NAME}}, {{agent.name}}, {{agent.email}}, {{inbox.name}} and "
            "{{conversation.id}}"
        ),
    ),
    NoNul,
]


class CannedResponse(Response):
    """``inbox_id`` null: for every inbox."""

    id: int
    shortcut: str
    title: str
    body: str
    inbox_id: int | None
    created_at: Timestamp
    updated_at: Timestamp


class CannedResponsePage(Response):
    items: list[CannedResponse]
    next_cursor: str | None


class CannedResponseQuery(Request):
    query: Annotated[
        str | None, Field(max_length=50, description="what the shortcut begins with"), NoNul
    ] = None
    inbox: Annotated[int, Field(ge=1, le=2**53)] | None = None
    cursor: Annotated[str, Field(max_length=400)] | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 50


class NewCannedResponse(Request):
    shortcut: Shortcut
    title: CannedTitle
    body: CannedBody
    inbox_id: Id | None = None


class CannedResponseChange(Request):
    """Fields that are left out stay as they are."""

    shortcut: Shortcut = unset()
    title: CannedTitle = unset()
    body: CannedBody = unset()
    inbox_id: Id | None = unset()


class RenderRequest(Request):
    conversation_id: Id


class Rendered(Response):
    """``unknown_variables`` have no value here; they stand in the body as they were written."""

    body: str
    unknown_variables: list[str]
