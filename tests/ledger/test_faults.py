"""Faults: always mended, told in the marks, and nothing is lost while they happen."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from bench import faults
from bench.faults import Fault, Marks
from tests.conftest import ROOT, free_port, web_root
from tests.ledger.test_broken_servers import run_ledger

START_SECONDS = 30.0


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


class LocalServers:
    """Web, gateway, worker and Redis as processes of this computer, with one SQLite file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        ports = {name: free_port() for name in ("web", "gateway", "control", "worker", "redis")}
        self.url = f"http://127.0.0.1:{ports['web']}"
        self._ports = ports
        self.database_url = f"sqlite:///{folder}/deskline.db"
        self._env = {
            **{name: value for name, value in os.environ.items() if name[:9] != "DESKLINE_"},
            "DESKLINE_ENV": "demo",
            "DESKLINE_DATABASE_URL": self.database_url,
            "DESKLINE_REDIS_URL": f"redis://127.0.0.1:{ports['redis']}/0",
            "DESKLINE_SECRET_KEY": "a-secret-key-for-tests-only-that-is-long-enough",
            "DESKLINE_PUSHER_APP_ID": "faults",
            "DESKLINE_PUSHER_KEY": "faults-key",
            "DESKLINE_PUSHER_SECRET": "a-secret-for-tests-only",
            "DESKLINE_PUBLIC_URL": self.url,
            "DESKLINE_WS_PUBLIC_URL": f"ws://127.0.0.1:{ports['gateway']}",
            "DESKLINE_WEB_PORT": str(ports["web"]),
            "DESKLINE_GATEWAY_PORT": str(ports["gateway"]),
            "DESKLINE_GATEWAY_CONTROL_PORT": str(ports["control"]),
            "DESKLINE_WORKER_PORT": str(ports["worker"]),
            "DESKLINE_WEB_ROOT": str(web_root(folder / "web")),
        }

    def command(self, *words: str) -> None:
        subprocess.run(
            [sys.executable, "-m", "app", *words], cwd=ROOT, env=self._env, timeout=60, check=True
        )

    def start(self, name: str) -> None:
        """Start one, unless it runs."""
        running = self._processes.get(name)
        if running is not None and running.poll() is None:
            return
        words = [sys.executable, "-m", "app", name]
        if name == "redis":
            words = ["redis-server", "--port", str(self._ports["redis"]), "--bind", "127.0.0.1"]
            words += ["--save", "", "--dir", str(self._folder)]
        with (self._folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                words, cwd=ROOT, env=self._env, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def kill(self, name: str) -> None:
        self._processes[name].send_signal(signal.SIGKILL)
        self._processes[name].wait(10)

    def ready(self, name: str) -> bool:
        port = self._ports["control" if name == "gateway" else name]
        try:
            return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    def all_ready(self) -> bool:
        return all(self.ready(name) for name in ("web", "gateway", "worker"))

    def stop(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait(10)

    def killed(self, *names: str, outage_seconds: float) -> Fault:
        def kill() -> None:
            for name in names:
                self.kill(name)

        def start() -> None:
            for name in names:
                self.start(name)

        words = f"{' and '.join(names)} killed with -9"
        return Fault(words, kill, start, self.all_ready, outage_seconds)


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[LocalServers]:
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server here (Debian, Ubuntu: apt-get install redis-server)")
    made = LocalServers(tmp_path)
    try:
        made.command("migrate")
        made.command("demo")
        for name in ("redis", "web", "gateway", "worker"):
            made.start(name)
        deadline = time.monotonic() + START_SECONDS
        while not made.all_ready():
            assert time.monotonic() < deadline, f"not ready; see the logs in {tmp_path}"
            time.sleep(0.1)
        yield made
    finally:
        made.stop()


async def test_nothing_is_lost_while_processes_are_really_killed(
    servers: LocalServers, tmp_path: Path
) -> None:
    """Without the slow poll: every message must be announced, or be told by a hole or a resync."""
    seconds = 25.0
    path = tmp_path / "marks.jsonl"
    plan = [
        servers.killed("web", "gateway", outage_seconds=0.5),
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
            *("--poll", "0", "--settle", "10", "--marks", str(path)),
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
