"""The models of attachments."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from app.http.models import NoNul, Request


class UploadQuery(Request):
    name: Annotated[
        str,
        Field(
            min_length=1,
            max_length=500,
            description="what the file is called; shortened, cleaned, and given the ending of "
            "what it is",
        ),
        NoNul,
    ] = "file"
