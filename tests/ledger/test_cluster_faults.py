"""The cluster's faults against a machine that is only pretended, command by command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.faults import Fault
from bench.ledger.book import PUBLIC, Message
from bench.ledger.truth import compare_acknowledged
from tests.chaos import cluster_faults
from tests.chaos.cluster_faults import Host


@dataclass(frozen=True)
class Ended:
    rc: int = 0
    stdout: str = ""
    stderr: str = ""


class Machine:
    """A systemd with one unit, that starts a killed one again when ``restarts``."""

    def __init__(self, *, restarts: bool = True, obeys: bool = True) -> None:
        self.commands: list[str] = []
        self.main_pid = 100
        self._restarts = restarts
        self._obeys = obeys

    def run(self, command: str, *arguments: str) -> Ended:
        text = command % arguments if arguments else command
        self.commands.append(text)
        words = text.removeprefix("timeout 90 ").split()
        if words[:2] == ["systemctl", "show"]:
            return Ended(stdout=f"{self.main_pid}\n")
        if words[0] == "systemctl":
            return self._systemctl(words[1])
        running = self.main_pid != 0
        if words[0] == "redis-cli":
            return Ended(stdout="NOAUTH Authentication required." if running else "")
        if words[0] == "python3":
            return Ended(rc=0 if running else 1)
        if "replication_connection_status" in text:
            return Ended(stdout="ON\tON\n" if running else "")
        assert words[0] == "mysql"
        return Ended(stdout="0\n" if running else "", rc=0 if running else 1)

    def _systemctl(self, verb: str) -> Ended:
        if not self._obeys:
            return Ended(rc=1, stderr="Unit not loaded.")
        if verb == "start":
            self.main_pid = self.main_pid or 200
        elif verb in ("kill", "restart"):
            self.main_pid = 200 if self._restarts or verb == "restart" else 0
        elif verb == "stop":
            self.main_pid = 0
        return Ended()


MAKERS: dict[str, Callable[[Host], Fault]] = {
    "web": lambda host: cluster_faults.web_killed(host, "app1", "192.0.2.1"),
    "gateway killed": lambda host: cluster_faults.gateway_killed(host, "rt1", "192.0.2.1"),
    "gateway drained": lambda host: cluster_faults.gateway_drained(host, "rt2", "192.0.2.1"),
    "redis": lambda host: cluster_faults.redis_restarted(host, "redis1", "192.0.2.1"),
    "replica": lambda host: cluster_faults.replica_stopped(host, "db2", 5),
    "primary": lambda host: cluster_faults.primary_killed(host, "db1"),
}


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("restarts", [True, False])
def test_it_breaks_and_is_mended(name: str, *, restarts: bool) -> None:
    machine = Machine(restarts=restarts)
    fault = MAKERS[name](machine)
    assert fault.healthy()
    fault.strike()
    assert machine.main_pid != 100
    fault.mend()
    assert machine.main_pid == 200
    assert fault.healthy()
    assert all(command.startswith("timeout ") for command in machine.commands if "start" in command)


@pytest.mark.parametrize("name", MAKERS)
def test_a_unit_that_does_not_run_is_told(name: str) -> None:
    machine = Machine()
    machine.main_pid = 0
    fault = MAKERS[name](machine)
    assert not fault.healthy()
    with pytest.raises(RuntimeError, match="does not run before the fault"):
        fault.strike()


def test_a_command_that_fails_is_told_with_its_reason() -> None:
    fault = MAKERS["web"](Machine(obeys=False))
    with pytest.raises(RuntimeError, match=r"app1: .*deskline-web.* Unit not loaded"):
        fault.strike()


def test_a_kill_that_does_not_kill_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_faults, "GONE_SECONDS", 0.1)
    machine = Machine()
    monkeypatch.setattr(machine, "_systemctl", lambda _verb: Ended())
    with pytest.raises(RuntimeError, match="still has the process 100"):
        MAKERS["primary"](machine).strike()


def test_rows_that_somebody_else_read_are_compared(tmp_path: Path) -> None:
    path = tmp_path / "acknowledged.tsv"
    path.write_text(
        "conversation\tstream\tseq\tclient_id\tbody_sha256_16\n1\tpublic\t1\ta\tx\n"
        "1\tpublic\t2\tb\ty\n",
        encoding="utf-8",
    )
    rows = [
        Message(1, PUBLIC, seq, client_id, "visitor", told)
        for seq, client_id, told in ((1, "a", "x"), (2, "b", "y"))
    ]
    assert compare_acknowledged(path, rows) == []
    assert [found.kind for found in compare_acknowledged(path, rows[:1])] == ["lost"]
    rows.append(Message(1, PUBLIC, 4, "b", "visitor", "y"))
    kinds = {found.kind for found in compare_acknowledged(path, rows)}
    assert kinds == {"doubled", "holes"}
