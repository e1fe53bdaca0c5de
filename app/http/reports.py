"""Reports, as JSON and CSV. They read from the replica."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from sanic.response import HTTPResponse
from sqlalchemy import Connection

from app.chat import reports
from app.chat.permissions import Agent
from app.chat.reports import SCORES, Span
from app.http import models_reports as models
from app.http import table
from app.http.endpoint import Call, Endpoints, json
from app.http.inbox import READ_HEADER, READ_HEADERS

endpoints = Endpoints("reports")

Report = Callable[[Connection, Agent, Span], dict[str, Any]]
_TIMES: Final = ("count", "median_seconds", "p90_seconds")
_FIGURES: Final = (
    "opened",
    "resolved",
    *(f"{part}.{name}" for part in ("first_response", "resolution") for name in _TIMES),
    "csat.count",
    "csat.average",
)


async def _answer(call: Call, report: Report, name: str, columns: Sequence[str]) -> HTTPResponse:
    query = call.query
    asked = reports.span(
        query.first, query.last, query.tz, inbox_id=query.inbox, agent_id=query.agent
    )
    made, target = await call.context.late.read(
        lambda connection: report(connection, call.agent, asked)
    )
    if table.wanted(call.request, query.format):
        rows = [[_at(item, column) for column in columns] for item in made["items"]]
        response = table.answer(name, columns, rows)
        response.headers[READ_HEADER] = target
        return response
    return json(made, headers={READ_HEADER: target})


def _at(item: Mapping[str, Any] | None, path: str) -> Any:
    for part in path.split("."):
        item = item[part] if item is not None else None
    return item


@endpoints.add(
    "GET",
    "/api/v1/reports/volume",
    "Conversations opened and resolved, per day",
    audience="staff",
    permission="reports.read",
    query=models.ReportQuery,
    answers={200: models.VolumeReport},
    problems=("forbidden",),
    headers=READ_HEADERS,
    limit="exports",
    media=(table.CSV,),
)
async def report_volume(call: Call) -> HTTPResponse:
    """Days without any conversation are there too."""
    return await _answer(call, reports.volume, "volume", ("date", "opened", "resolved"))


@endpoints.add(
    "GET",
    "/api/v1/reports/first-response",
    "Time to the first answer, per day of opening",
    audience="staff",
    permission="reports.read",
    query=models.ReportQuery,
    answers={200: models.TimesReport},
    problems=("forbidden",),
    headers=READ_HEADERS,
    limit="exports",
    media=(table.CSV,),
)
async def report_first_response(call: Call) -> HTTPResponse:
    """From the visitor's first message to the first message of an agent."""
    return await _answer(call, reports.first_response, "first-response", ("date", *_TIMES))


@endpoints.add(
    "GET",
    "/api/v1/reports/resolution",
    "Time to resolution, per day of resolution",
    audience="staff",
    permission="reports.read",
    query=models.ReportQuery,
    answers={200: models.TimesReport},
    problems=("forbidden",),
    headers=READ_HEADERS,
    limit="exports",
    media=(table.CSV,),
)
async def report_resolution(call: Call) -> HTTPResponse:
    """From the first message to the resolution that lasted."""
    return await _answer(call, reports.resolution, "resolution", ("date", *_TIMES))


@endpoints.add(
    "GET",
    "/api/v1/reports/csat",
    "Ratings, per day",
    audience="staff",
    permission="reports.read",
    query=models.ReportQuery,
    answers={200: models.RatingsReport},
    problems=("forbidden",),
    headers=READ_HEADERS,
    limit="exports",
    media=(table.CSV,),
)
async def report_csat(call: Call) -> HTTPResponse:
    """Scores are 1 to 5."""
    columns = ("date", "count", "average", *(f"scores.{score}" for score in SCORES))
    return await _answer(call, reports.csat, "csat", columns)


@endpoints.add(
    "GET",
    "/api/v1/reports/agents",
    "All figures, per agent",
    audience="staff",
    permission="reports.read",
    query=models.ReportQuery,
    answers={200: models.AgentsReport},
    problems=("forbidden",),
    headers=READ_HEADERS,
    limit="exports",
    media=(table.CSV,),
)
async def report_agents(call: Call) -> HTTPResponse:
    """A conversation counts for the agent who holds it or held it last."""
    columns = ("agent.id", "agent.name", *_FIGURES)
    return await _answer(call, reports.agents, "agents", columns)


@endpoints.add(
    "GET",
    "/api/v1/reports/inboxes",
    "All figures, per inbox",
    audience="staff",
    permission="reports.read",
    query=models.ReportQuery,
    answers={200: models.InboxesReport},
    problems=("forbidden",),
    headers=READ_HEADERS,
    limit="exports",
    media=(table.CSV,),
)
async def report_inboxes(call: Call) -> HTTPResponse:
    """Inboxes without any conversation are there too."""
    columns = ("inbox.id", "inbox.name", *_FIGURES)
    return await _answer(call, reports.inboxes, "inboxes", columns)


@endpoints.add(
    "GET",
    "/api/v1/reports/hours",
    "Conversations opened, per hour of the week",
    audience="staff",
    permission="reports.read",
    query=models.ReportQuery,
    answers={200: models.HoursReport},
    problems=("forbidden",),
    headers=READ_HEADERS,
    limit="exports",
    media=(table.CSV,),
)
async def report_hours(call: Call) -> HTTPResponse:
    """In the hours of the time zone, also over a change of the clocks."""
    return await _answer(call, reports.hours, "hours", ("weekday", "hour", "opened"))
