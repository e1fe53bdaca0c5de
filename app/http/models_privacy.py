"""The JSON of exporting and erasing a person."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from app.http.models import NoNul, Request, Response


class Erasure(Request):
    confirm: Annotated[
        str,
        Field(
            min_length=1,
            max_length=100,
            description="the visitor's id or its name, typed by whoever asks for it",
        ),
        NoNul,
    ]


class Erased(Response):
    conversations: Annotated[int, Field(description="their frame stays, without any text")]
    messages: int
    attachments: int
