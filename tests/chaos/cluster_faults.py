"""The faults of the cluster: commands on its machines, each with its way back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from bench.faults import Fault

COMMAND_SECONDS = 90
GONE_SECONDS = 10.0
# whether the replica's receiver and its applier run
RUNNING = """
SELECT (SELECT service_state FROM performance_schema.replication_connection_status),
       (SELECT service_state FROM performance_schema.replication_applier_status)
"""
# Ends with 1 unless the answer is a 2xx.
OPEN = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=5)"


class Ended(Protocol):
    """How a command ended."""

    @property
    def rc(self) -> int: ...
    @property
    def stdout(self) -> str: ...
    @property
    def stderr(self) -> str: ...


class Host(Protocol):
    """What is used of testinfra's host."""

    def run(self, command: str, *arguments: str) -> Ended: ...


class Unit:
    """A systemd unit on a machine."""

    def __init__(self, host: Host, machine: str, unit: str) -> None:
        self.host = host
        self.machine = machine
        self.unit = unit

    def pid(self) -> int:
        """The main process; 0 when there is none."""
        return int(self.said(f"systemctl show --property=MainPID --value {self.unit}"))

    def said(self, command: str, *arguments: str) -> str:
        """The output of a command. Raises RuntimeError when it fails."""
        done = self.host.run(f"timeout {COMMAND_SECONDS} {command}", *arguments)
        if done.rc != 0:
            raise RuntimeError(
                f"{self.machine}: `{command}` ended with {done.rc}: {done.stderr.strip()[-300:]}"
            )
        return done.stdout.strip()

    def kill(self) -> None:
        """SIGKILL to the main process; raises RuntimeError when it was not there or stays."""
        before = self._running_pid()
        self.said(f"systemctl kill --kill-whom=main --signal=KILL {self.unit}")
        self._must_be_gone(before)

    def restart(self) -> None:
        """An orderly restart; raises RuntimeError when the process is the same afterwards."""
        before = self._running_pid()
        self.said(f"systemctl restart {self.unit}")
        self._must_be_gone(before)

    def stop(self) -> None:
        """An orderly stop."""
        before = self._running_pid()
        self.said(f"systemctl stop {self.unit}")
        self._must_be_gone(before)

    def start(self) -> None:
        """Start it, unless it runs; what systemd remembers of failures is forgotten first."""
        self.host.run(f"systemctl reset-failed {self.unit}")
        self.said(f"systemctl start {self.unit}")

    def _running_pid(self) -> int:
        pid = self.pid()
        if pid == 0:
            raise RuntimeError(f"{self.machine}: {self.unit} does not run before the fault")
        return pid

    def _must_be_gone(self, before: int) -> None:
        deadline = time.monotonic() + GONE_SECONDS
        while self.pid() == before:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.machine}: {self.unit} still has the process {before}")
            time.sleep(0.2)


def web_killed(host: Host, machine: str, address: str) -> Fault:
    """One web process killed with -9; systemd starts it again."""
    unit = Unit(host, machine, "deskline-web")
    url = f"http://{address}:8000/readyz"
    return Fault(
        f"web of {machine} killed with -9",
        unit.kill,
        unit.start,
        lambda: host.run("python3 -c %s %s", OPEN, url).rc == 0,
    )


def _gateway(host: Host, machine: str, address: str) -> tuple[Unit, Callable[[], bool]]:
    """A gateway's unit, and whether it takes clients."""
    url = f"http://{address}:8081/readyz"
    unit = Unit(host, machine, "deskline-gateway")
    return unit, lambda: host.run("python3 -c %s %s", OPEN, url).rc == 0


def gateway_killed(host: Host, machine: str, address: str) -> Fault:
    """One gateway killed with -9; systemd starts it again."""
    unit, ready = _gateway(host, machine, address)
    return Fault(f"gateway of {machine} killed with -9", unit.kill, unit.start, ready)


def gateway_drained(host: Host, machine: str, address: str) -> Fault:
    """One gateway stopped in order: it asks its clients to go elsewhere, then ends; and started."""
    unit, ready = _gateway(host, machine, address)
    return Fault(f"gateway of {machine} drained and restarted", unit.stop, unit.start, ready)


def redis_restarted(host: Host, machine: str, address: str) -> Fault:
    """Redis restarted. Without a password it answers NOAUTH, which is an answer."""
    unit = Unit(host, machine, "redis-server")
    return Fault(
        f"Redis of {machine} restarted",
        unit.restart,
        unit.start,
        lambda: any(
            word in host.run("redis-cli -h %s ping", address).stdout for word in ("NOAUTH", "PONG")
        ),
    )


def replica_stopped(host: Host, machine: str, seconds: float) -> Fault:
    """The replica's mysqld stopped and started; well again when it replicates."""
    unit = Unit(host, machine, "mysql")

    def replicates() -> bool:
        shown = host.run("mysql --batch --skip-column-names --execute %s", RUNNING).stdout
        return str(shown).split() == ["ON", "ON"]

    name = f"replica {machine} stopped for {seconds:.0f} s"
    return Fault(name, unit.stop, unit.start, replicates, seconds)


def primary_killed(host: Host, machine: str) -> Fault:
    """The primary's mysqld killed with -9; well again when it takes writes."""
    unit = Unit(host, machine, "mysql")
    query = "SELECT @@global.read_only + @@global.super_read_only"

    def writable() -> bool:
        return (
            host.run("mysql --batch --skip-column-names --execute %s", query).stdout.strip() == "0"
        )

    return Fault(f"primary {machine} killed with -9", unit.kill, unit.start, writable)
