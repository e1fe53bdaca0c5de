"""Reports through the API."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.api.conftest import Agent, Visitor, assert_problem

METRICS = ["volume", "first-response", "resolution", "csat", "agents", "inboxes", "hours"]
TODAY = datetime.now(UTC).date()
SPAN = {
    "from": (TODAY - timedelta(days=1)).isoformat(),
    "to": (TODAY + timedelta(days=1)).isoformat(),
}


def until(condition: Callable[[], bool]) -> None:
    """Wait for the replica, which reports are read from."""
    give_up_at = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.2)


def opened(agent: Agent) -> int:
    return int(agent.get("/reports/volume", **SPAN).json()["total"]["opened"])


def test_a_conversation_is_counted(agent: Agent, visitor: Visitor) -> None:
    before = opened(agent)
    visitor.conversation()
    until(lambda: opened(agent) == before + 1)
    days = agent.get("/reports/volume", **SPAN).json()["items"]
    assert (days[0]["date"], len(days)) == (SPAN["from"], 3)


def test_the_first_answer_is_measured(agent: Agent, visitor: Visitor) -> None:
    def total() -> dict[str, Any]:
        told: dict[str, Any] = agent.get("/reports/first-response", **SPAN).json()["total"]
        return told

    before = total()["count"]
    agent.send(visitor.conversation(), "Hello!")
    until(lambda: total()["count"] == before + 1)
    assert total()["median_seconds"] >= 0


def as_csv(agent: Agent, metric: str) -> list[dict[str, str]]:
    answer = agent.get(f"/reports/{metric}", format="csv", **SPAN)
    return list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"))))


def as_cells(agent: Agent, metric: str) -> list[dict[str, str]]:
    """The items of the JSON answer as the cells that CSV has for them."""
    columns = as_csv(agent, metric)[0]
    rows = []
    for item in agent.get(f"/reports/{metric}", **SPAN).json()["items"]:
        row = {}
        for column in columns:
            value: Any = item
            for part in column.split("."):
                value = value[part] if value is not None else None
            row[column] = "" if value is None else str(value)
        rows.append(row)
    return rows


@pytest.mark.parametrize("metric", METRICS)
def test_json_and_csv_tell_the_same(agent: Agent, visitor: Visitor, metric: str) -> None:
    agent.send(visitor.conversation(), "Hello!")
    answer = agent.get(f"/reports/{metric}", format="csv", **SPAN)
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert f'filename="{metric}.csv"' in answer.headers["Content-Disposition"]
    assert answer.content.startswith(b"\xef\xbb\xbf")
    until(lambda: as_cells(agent, metric) == as_csv(agent, metric))
    accepted = agent.http.get(
        f"/api/v1/reports/{metric}", params=SPAN, headers={"Accept": "text/csv"}
    )
    assert accepted.headers["Content-Type"] == "text/csv; charset=utf-8"


@pytest.mark.parametrize(
    "wrong",
    [
        {"from": "yesterday"},
        {"from": SPAN["to"], "to": SPAN["from"]},
        {"from": "2020-01-01", "to": "2022-01-01"},
        {"tz": "Nowhere/Land"},
        {"tz": "x" * 65},
        {"format": "xml"},
        {"inbox": 0},
    ],
)
def test_bad_spans(agent: Agent, wrong: dict[str, Any]) -> None:
    answer = agent.get("/reports/volume", **{**SPAN, **wrong})
    assert_problem(answer, 422, "invalid_request")


@pytest.mark.parametrize("metric", METRICS)
def test_reports_are_for_admins(second_agent: Agent, metric: str) -> None:
    assert_problem(second_agent.get(f"/reports/{metric}", **SPAN), 403, "forbidden")
