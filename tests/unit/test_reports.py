"""Reports: days and hours of a time zone, medians, and what a spreadsheet may see."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert

from app.chat import reports
from app.chat.errors import Refused
from app.chat.permissions import Agent
from app.chat.reports import Times
from app.db import schema
from app.db.engines import Database
from app.http import table

ADMIN = Agent(1, "Ann", "ann@example.com", "admin", None)


def conversation(database: Database, opened: datetime, **values: Any) -> None:
    with database.write() as connection:
        connection.execute(
            insert(schema.conversations).values(
                **{
                    "inbox_id": 1,
                    "visitor_id": 1,
                    "status": "open",
                    "last_seq_public": 0,
                    "last_seq_staff": 0,
                    "version": 0,
                    "created_at": opened,
                    "updated_at": opened,
                    **values,
                }
            )
        )


def made(
    database: Database,
    report: Callable[..., dict[str, Any]],
    first: str,
    last: str,
    zone: str = "UTC",
    *,
    agent: Agent = ADMIN,
    **only: Any,
) -> dict[str, Any]:
    asked = reports.span(
        date.fromisoformat(first),
        date.fromisoformat(last),
        zone,
        inbox_id=only.get("inbox_id"),
        agent_id=only.get("agent_id"),
    )
    with database.read() as connection:
        return report(connection, agent, asked)


def test_days_are_those_of_the_zone_and_empty_ones_are_there(database: Database) -> None:
    # 2020-03-01 23:30 in Taipei, and half an hour later
    conversation(database, datetime(2020, 3, 1, 15, 30))
    conversation(
        database,
        datetime(2020, 3, 1, 16, 0),
        resolved_at=datetime(2020, 3, 3, 16),
        status="resolved",
    )
    told = made(database, reports.volume, "2020-03-01", "2020-03-04", "Asia/Taipei")
    assert told["items"] == [
        {"date": "2020-03-01", "opened": 1, "resolved": 0},
        {"date": "2020-03-02", "opened": 1, "resolved": 0},
        {"date": "2020-03-03", "opened": 0, "resolved": 0},
        {"date": "2020-03-04", "opened": 0, "resolved": 1},
    ]
    assert told["total"] == {"opened": 2, "resolved": 1}
    utc = made(database, reports.volume, "2020-03-01", "2020-03-01")
    assert utc["total"] == {"opened": 2, "resolved": 0}


def test_a_day_on_which_the_clocks_change(database: Database) -> None:
    """2020-10-25 in Berlin has 25 hours: from 22:00 UTC of the day before to 23:00 UTC."""
    begin = datetime(2020, 10, 24, 22)
    for number in range(-1, 26):
        conversation(database, begin + timedelta(hours=number))
    told = made(database, reports.volume, "2020-10-24", "2020-10-26", "Europe/Berlin")
    assert [day["opened"] for day in told["items"]] == [1, 25, 1]
    week = made(database, reports.hours, "2020-10-25", "2020-10-25", "Europe/Berlin")
    sunday = {item["hour"]: item["opened"] for item in week["items"] if item["weekday"] == 7}
    assert sunday == {hour: 2 if hour == 2 else 1 for hour in range(24)}
    assert len(week["items"]) == 168

    # 2020-03-29 has 23: two o'clock is left out
    begin = datetime(2020, 3, 28, 23)
    for number in range(23):
        conversation(database, begin + timedelta(hours=number))
    week = made(database, reports.hours, "2020-03-29", "2020-03-29", "Europe/Berlin")
    sunday = {item["hour"]: item["opened"] for item in week["items"] if item["weekday"] == 7}
    assert sunday == {hour: 0 if hour == 2 else 1 for hour in range(24)}


def test_medians_and_percentiles() -> None:
    times = Times()
    assert times.told() == {"count": 0, "median_seconds": None, "p90_seconds": None}
    begin = datetime(2020, 1, 1)
    for seconds in (10, 1, 4, 2, 3):
        times.add(begin, begin + timedelta(seconds=seconds))
    # numpy.percentile([1, 2, 3, 4, 10], 90) is 7.6
    assert times.told() == {"count": 5, "median_seconds": 3.0, "p90_seconds": 7.6}


def test_waiting_resolving_and_rating(database: Database) -> None:
    day = datetime(2020, 5, 5, 12)
    conversation(
        database,
        day,
        assignee_id=1,
        first_response_at=day + timedelta(seconds=30),
        resolved_at=day + timedelta(days=1),
        csat_score=5,
        csat_at=day + timedelta(days=2),
    )
    conversation(database, day, first_response_at=day + timedelta(seconds=50))
    conversation(database, day)
    span = ("2020-05-05", "2020-05-07")
    first = made(database, reports.first_response, *span)
    assert first["total"] == {"count": 2, "median_seconds": 40.0, "p90_seconds": 48.0}
    assert [item["count"] for item in first["items"]] == [2, 0, 0]
    resolution = made(database, reports.resolution, *span)
    assert [item["median_seconds"] for item in resolution["items"]] == [None, 86400.0, None]
    csat = made(database, reports.csat, *span)
    assert [item["count"] for item in csat["items"]] == [0, 0, 1]
    assert csat["total"]["average"] == 5.0
    assert csat["total"]["scores"] == {"1": 0, "2": 0, "3": 0, "4": 0, "5": 1}
    agents = made(database, reports.agents, *span)["items"]
    assert [(item["agent"] and item["agent"]["name"], item["opened"]) for item in agents] == [
        ("Ann", 1),
        (None, 2),
    ]
    (inbox,) = made(database, reports.inboxes, *span)["items"]
    assert (inbox["inbox"]["name"], inbox["opened"], inbox["resolved"]) == ("Shop", 3, 1)
    assert made(database, reports.volume, *span, agent_id=1)["total"]["opened"] == 1
    assert made(database, reports.volume, *span, inbox_id=2)["total"]["opened"] == 0


def test_an_admin_of_some_inboxes_sees_those(database: Database) -> None:
    conversation(database, datetime(2020, 5, 5))
    limited = Agent(2, "Bob", "bob@example.com", "admin", None, frozenset({7}))
    span = ("2020-05-05", "2020-05-05")
    assert made(database, reports.volume, *span, agent=limited)["total"]["opened"] == 0
    assert made(database, reports.inboxes, *span, agent=limited)["items"] == []


@pytest.mark.parametrize(
    ("first", "last", "zone"),
    [
        ("2020-01-02", "2020-01-01", "UTC"),
        ("2020-01-01", "2021-01-01", "UTC"),
        ("2020-01-01", "2020-01-01", "Mars/Olympus"),
        ("2020-01-01", "2020-01-01", "../etc/passwd"),
        ("2020-01-01", "2020-01-01", "/etc/localtime"),
        ("2020-01-01", "2020-01-01", "a\x00b"),
        ("0001-01-01", "0001-01-01", "UTC"),
        ("9999-12-31", "9999-12-31", "UTC"),
    ],
)
def test_spans_that_are_none(first: str, last: str, zone: str) -> None:
    with pytest.raises(Refused):
        reports.span(
            date.fromisoformat(first),
            date.fromisoformat(last),
            zone,
            inbox_id=None,
            agent_id=None,
        )


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "  =1", "%x", "|x"])
def test_no_text_becomes_a_formula(text: str) -> None:
    assert table.cell(text) == f"'{text}"


@pytest.mark.parametrize(("value", "cell"), [(-1, -1), (0.5, 0.5), (None, ""), ("ok", "ok")])
def test_other_cells_stay_as_they_are(value: Any, cell: Any) -> None:
    assert table.cell(value) == cell
