"""The JSON of reports."""

from __future__ import annotations

import datetime
from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from app.chat.reports import DAYS_MAX
from app.http.models import InboxRef, NoNul, Request, Response, UserRef
from app.http.moments import written_out

Day = Annotated[str, Field(json_schema_extra={"format": "date"}, examples=["2026-11-23"])]
Seconds = Annotated[float | None, Field(description="seconds; null of nothing", examples=[42.5])]
_Id = Annotated[int, Field(ge=1, le=2**53)]


class ReportQuery(Request):
    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    first: Annotated[
        datetime.date,
        BeforeValidator(written_out),
        Field(alias="from", description="the first day, in tz"),
    ]
    last: Annotated[
        datetime.date,
        BeforeValidator(written_out),
        Field(alias="to", description=f"the last day, in tz; at most {DAYS_MAX} days"),
    ]
    tz: Annotated[
        str, Field(min_length=1, max_length=64, description="IANA time zone of the days"), NoNul
    ] = "UTC"
    inbox: _Id | None = None
    agent: Annotated[_Id | None, Field(description="who holds the conversation")] = None
    format: Annotated[
        Literal["json", "csv"] | None,
        Field(description="without it the Accept header decides; CSV is UTF-8 with a mark"),
    ] = None


class VolumeDay(Response):
    date: Day
    opened: int
    resolved: int


class VolumeTotal(Response):
    opened: int
    resolved: int


class VolumeReport(Response):
    """Every day of the span."""

    items: list[VolumeDay]
    total: VolumeTotal


class Times(Response):
    count: int
    median_seconds: Seconds
    p90_seconds: Seconds


class TimesDay(Times):
    date: Day


class TimesReport(Response):
    """Every day of the span."""

    items: list[TimesDay]
    total: Times


class Ratings(Response):
    count: int
    average: float | None
    scores: Annotated[dict[str, int], Field(description="how often each score, 1 to 5, was given")]


class RatingsDay(Ratings):
    date: Day


class RatingsReport(Response):
    """Every day of the span."""

    items: list[RatingsDay]
    total: Ratings


class Figures(Response):
    opened: int
    resolved: int
    first_response: Times
    resolution: Times
    csat: Ratings


class AgentFigures(Figures):
    agent: Annotated[UserRef | None, Field(description="null: held by nobody")]


class AgentsReport(Response):
    """Agents by name, with the conversations that they hold or held last."""

    items: list[AgentFigures]


class InboxFigures(Figures):
    inbox: InboxRef


class InboxesReport(Response):
    """Every inbox that the caller sees, by name."""

    items: list[InboxFigures]


class HourOfWeek(Response):
    weekday: Annotated[int, Field(ge=1, le=7, description="1 is Monday")]
    hour: Annotated[int, Field(ge=0, le=23)]
    opened: int


class HoursReport(Response):
    """All 168 hours of the week."""

    items: list[HourOfWeek]
