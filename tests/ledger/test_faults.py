"""Faults: always mended, told in the marks, and nothing is lost while they happen."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import faults
from bench.faults import Fault, Marks
from tests.ledger import local_servers
from tests.ledger.local_servers import LocalServers
from tests.ledger.test_broken_servers import run_ledger


class Switch:
    """Something that can be broken and mended."""

    def __init__(self, *, stays_broken: bool = False, cannot_strike: bool = False) -> None:
        self.works = True
        self.mended = 0
        self._stays_broken = stays_broken
        self._cannot_strike = cannot_strike

    def strike(self) -> None:
        if self._cannot_strike:
            raise RuntimeError("no such unit")
        self.works = False

    def mend(self) -> None:
        self.mended += 1
        self.works = not self._stays_broken

    def fault(self, name: str) -> Fault:
        return Fault(name, self.strike, self.mend, lambda: self.works)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "really" not in request.node.name:
        monkeypatch.setattr(faults, "RECOVERY_SECONDS", 0.2)
        monkeypatch.setattr(faults, "RESUME_SECONDS", 0.0)
        monkeypatch.setattr(faults, "LOOK_EVERY_SECONDS", 0.02)


def test_faults_come_one_after_another_and_are_mended(tmp_path: Path) -> None:
    marks = Marks(tmp_path / "marks")
    first, second = Switch(), Switch()
    began = time.time()
    plan = [first.fault("one"), second.fault("two")]
    assert faults.run(plan, marks, began=began, seconds=0.3) == []
    lines = [json.loads(line) for line in (tmp_path / "marks").read_text().splitlines()]
    assert lines.pop()["phase"] == faults.OVER
    assert [line["what"] for line in lines] == ["one", "all well again", "two", "all well again"]
    assert lines[0]["t"] - began == pytest.approx(0.1, abs=0.09)
    assert first.works
    assert second.works


def test_what_cannot_be_done_or_does_not_recover_is_told_and_the_rest_goes_on(
    tmp_path: Path,
) -> None:
    marks = Marks(tmp_path / "marks")
    ill, impossible, fine = Switch(stays_broken=True), Switch(cannot_strike=True), Switch()
    plan = [ill.fault("ill"), impossible.fault("impossible"), fine.fault("fine")]
    troubles = faults.run(plan, marks, began=time.time(), seconds=0.1)
    assert troubles == [
        "ill: not well again after 0 s",
        "impossible: could not be done: no such unit",
    ]
    assert fine.works
    assert all(switch.mended for switch in (ill, impossible, fine))


def test_everything_is_mended_when_the_script_is_interrupted(tmp_path: Path) -> None:
    switch = Switch()

    def interrupted() -> bool:
        raise KeyboardInterrupt

    plan = [Fault("cut short", switch.strike, switch.mend, interrupted)]
    with pytest.raises(KeyboardInterrupt):
        faults.run(plan, Marks(tmp_path / "marks"), began=time.time(), seconds=0.1)
    assert switch.works
    assert switch.mended == 2


def test_waiting_for_the_talk_ends_when_the_ledger_does(tmp_path: Path) -> None:
    marks = Marks(tmp_path / "marks")
    with pytest.raises(RuntimeError, match="before anybody talked"):
        faults.wait_for_talk(marks, seconds=5, alive=lambda: False)
    with pytest.raises(RuntimeError, match="did not begin"):
        faults.wait_for_talk(marks, seconds=0.1, alive=lambda: True)
    marks.add("the cast talks", phase=faults.TALKING)
    began = faults.wait_for_talk(marks, seconds=5, alive=lambda: True)
    assert began == pytest.approx(time.time(), abs=1)


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[LocalServers]:
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server here (Debian, Ubuntu: apt-get install redis-server)")
    yield from local_servers.made(tmp_path)


@pytest.mark.timeout(300)
async def test_nothing_is_lost_while_processes_are_really_killed(
    servers: LocalServers, tmp_path: Path
) -> None:
    """Without the slow poll: every message must be announced, or be told by a hole or a resync."""
    seconds = 20.0
    path = tmp_path / "marks.jsonl"
    plan = [
        servers.killed("web1", "gateway", outage_seconds=0.5),
        servers.killed("redis", outage_seconds=1.0),
    ]
    marks = Marks(path)

    def strike() -> list[str]:
        began = faults.wait_for_talk(marks, seconds=60, alive=lambda: True)
        return faults.run(plan, marks, began=began, seconds=seconds)

    run, troubles = await asyncio.gather(
        run_ledger(
            servers.url,
            tmp_path / "out",
            *("--visitors", "20", "--agents", "3", "--rate", "40", "--seconds", str(seconds)),
            *("--poll", "0", "--settle", "10", "--until-faults-are-over", "--marks", str(path)),
            *("--database-url", servers.database_url),
        ),
        asyncio.to_thread(strike),
    )
    assert troubles == []
    assert run.code == 0, run.output
    assert [mark["what"] for mark in run.told["marks"]] == [
        name for fault in plan for name in (fault.name, "all well again")
    ]
    assert run.told["on_the_way"].get("resyncs", 0) > 0
