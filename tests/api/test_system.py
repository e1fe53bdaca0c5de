"""The state of the installation through the API."""

from __future__ import annotations

import time
from typing import Any

from tests.api.conftest import Agent, Visitor, assert_problem


def system(agent: Agent) -> dict[str, Any]:
    answer = agent.get("/system")
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def test_everything_answers(agent: Agent) -> None:
    told = system(agent)
    assert told["version"]
    assert told["schema"]["revision"] == told["schema"]["expected"]
    assert told["primary"]["answers"] is True
    assert told["primary"]["version"]
    assert told["primary"]["read_only"] is False
    assert told["redis"]["answers"] is True
    assert told["redis"]["milliseconds"] >= 0
    if told["replica"]["configured"]:
        assert told["replica"]["answers"] is True
    else:
        assert told["replica"]["lag_seconds"] is None
    for queue in ("webhook_deliveries", "mails"):
        assert set(told["backlog"][queue]) == {"pending", "failed_last_day"}


def test_processes_and_jobs_tell_that_they_live(agent: Agent) -> None:
    give_up_at = time.monotonic() + 20
    wanted = {"outbox-relay", "search-index", "webhook-deliveries", "retention"}
    while True:
        told = system(agent)
        alive = {node["process"] for node in told["nodes"] if node["alive"]}
        done = {job["name"] for job in told["jobs"]}
        if alive >= {"web", "worker", "gateway"} and done >= wanted:
            break
        assert time.monotonic() < give_up_at, told
        time.sleep(0.2)
    assert {node["version"] for node in told["nodes"] if node["alive"]} == {told["version"]}
    relay = next(job for job in told["jobs"] if job["name"] == "outbox-relay")
    assert relay["node"]
    assert relay["last_success_at"].endswith("Z")


def test_it_is_for_admins(second_agent: Agent, visitor: Visitor) -> None:
    assert_problem(second_agent.get("/system"), 403, "forbidden")
    assert visitor.http.get("/api/v1/system").status_code == 401
