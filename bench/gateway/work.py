"""What is measured. Every figure comes from a fresh state: sockets are dropped in between."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import IO, Any

from bench.gateway import processes
from bench.gateway.processes import BenchFailed, Generator, Kind, Server

Figures = dict[str, Any]

IN_FLIGHT = 200
FIRST_SOCKETS = 100  # opened before the first reading of memory: what is loaded late is loaded then
IDLE = (10_000, 19_000)
SPREAD_PROCESSES, SPREAD_EACH = 3, 16_700
STEP_SECONDS = 1.0
SETTLE_SECONDS = 1.0
P99_LIMIT_MS = 100.0
MAX_DOUBLINGS = 9
BISECTIONS = 2
MAX_FAILED_DOUBLINGS = 2  # what is collected costs less, so one more may be kept again
# the rate at which the search begins, per second: deliveries, for pairs messages
FIRST_RATE = {"one": 60_000.0, "pairs": 10_000.0}
LOW_RATE_SECONDS = 5.0
PAUSE_EVENTS_PER_SECOND = 500
STALL_SOCKETS, STALL_BYTES, STALL_RATE, STALL_SECONDS = 50, 32_000, 100, 4.0


class Work:
    """The measurements of one server."""

    def __init__(self, kind: Kind, redis_port: int, log: IO[bytes], say: Callable[[str], None]):
        self._kind = kind
        self._redis_port = redis_port
        self._log = log
        self._say = say

    def run(self, only: frozenset[str], pause_seconds: float) -> Figures:
        """All that ``only`` names; a measurement that fails is a figure with an ``error``."""
        figures: Figures = {}
        parts: dict[str, Callable[[Server, Generator], Figures]] = {
            "idle": lambda server, load: self._idle(server, load, pause_seconds),
            "one_1000": lambda server, load: self._broadcast(server, load, 1000),
            "one_5000": lambda server, load: self._broadcast(server, load, 5000),
            "pairs": self._pairs,
            "storm": self._storm,
            "stalled": self._stalled,
        }
        for name, part in parts.items():
            if name in only and not (self._kind.slow and name == "one_5000"):
                figures[name] = self._guarded(name, part)
        if "spread" in only and not self._kind.slow:
            try:
                figures["spread"] = self._spread()
            except BenchFailed as failure:
                figures["spread"] = {"error": str(failure)}
                self._say(f"spread: {failure}")
        return figures

    def _guarded(self, name: str, part: Callable[[Server, Generator], Figures]) -> Figures:
        try:
            with (
                processes.server(self._kind, self._redis_port, self._log) as server,
                processes.generator(server, self._redis_port) as load,
            ):
                return part(server, load)
        except BenchFailed as failure:
            self._say(f"{name}: {failure}")
            return {"error": str(failure)}

    def _open(self, load: Generator, count: int, kind: str) -> Figures:
        answer = load.ask(f"connect {count} {IN_FLIGHT} {kind}")
        if answer["open"] != count:
            raise BenchFailed(f"{answer['open']} of {count} sockets could be subscribed.")
        return answer

    # --- (a)

    def _idle(self, server: Server, load: Generator, pause_seconds: float) -> Figures:
        self._open(load, FIRST_SOCKETS, "own")
        time.sleep(0.5)
        before = processes.resident_bytes(server.pid)
        figures: Figures = {"bytes_before": before}
        for count in IDLE[:1] if self._kind.slow else IDLE:
            cpu, opened = processes.cpu_seconds(server.pid), load.ask("status")["open"]
            answer = self._open(load, count, "own")
            fresh = count - opened
            time.sleep(1.0)
            resident = processes.resident_bytes(server.pid)
            used = processes.cpu_seconds(server.pid) - cpu
            figures[f"at_{count}"] = {
                "subscribed_per_second": round(fresh / answer["seconds"]),
                "bytes_each": round((resident - before) / (count - FIRST_SOCKETS)),
                "resident_bytes": resident,
                "cpu_us_each": round(used / fresh * 1e6, 1),
                "generator_cpu_share": answer["cpu_share"],
            }
            self._say(
                f"{count} idle: {fresh / answer['seconds']:,.0f} subscribed/s, "
                f"{figures[f'at_{count}']['bytes_each'] / 1024:.2f} KB each"
            )
            if count == IDLE[0] and pause_seconds:
                figures["pauses"] = self._pauses(load, pause_seconds)
        return figures

    def _pauses(self, load: Generator, seconds: float) -> Figures:
        """How long an answer to a ping takes at worst, while a little is going on."""
        answer = load.ask(f"run {PAUSE_EVENTS_PER_SECOND} {seconds} 2 1", seconds + 30)
        self._say(
            f"pauses over {seconds:g} s: worst answer to a ping {answer['pong_max_ms']:.1f} ms, "
            f"{answer['pongs_over_20_ms']} over 20 ms"
        )
        return {"probed_seconds": seconds, **_checked(answer)}

    # --- (b), (c)

    def _broadcast(self, server: Server, load: Generator, sockets: int) -> Figures:
        self._open(load, sockets, "one")
        figures: Figures = {}
        if sockets == 1000:
            low = _checked(load.ask(f"run 10 {LOW_RATE_SECONDS} {SETTLE_SECONDS} 0"))
            figures["low_rate"] = low
            self._say(f"10/s to 1,000: p50 {low['p50_ms']:.2f} ms, p99 {low['p99_ms']:.2f} ms")
        first = FIRST_RATE["one"] if sockets == 1000 else FIRST_RATE["one"] / 3
        return figures | self._search(server, load, sockets, first / sockets)

    def _pairs(self, server: Server, load: Generator) -> Figures:
        self._open(load, 5000, "pairs")
        return self._search(server, load, 2, FIRST_RATE["pairs"])

    def _search(self, server: Server, load: Generator, readers: int, first: float) -> Figures:
        """The highest rate of events that is kept, and a step at half of it."""
        steps: list[Figures] = []

        def kept(rate: float) -> bool:
            good = self._step(server, load, readers, rate, steps)
            hopeless = steps[-1]["overloaded"] and steps[-1]["p50_ms"] > P99_LIMIT_MS
            if not good and not hopeless:  # once more: it may have been a neighbour
                good = self._step(server, load, readers, rate, steps)
            return good

        low, rate, failed = 0.0, first, 0
        for _ in range(MAX_DOUBLINGS):
            if kept(rate):
                low, failed = rate, 0
                rate *= 2
            elif low:
                failed += 1
                rate *= 2
            else:
                rate /= 2
            if failed == MAX_FAILED_DOUBLINGS:
                break
        high = low * 2
        for _ in range(BISECTIONS if low else 0):
            middle = (low * high) ** 0.5
            if kept(middle):
                low = middle
            else:
                high = middle
        half: list[Figures] = []
        if low:
            self._step(server, load, readers, low / 2, half)
        good = [step for step in steps if step["kept"]]
        best = max(good, key=lambda step: float(step["deliveries_per_second"]), default=None)
        return {"best": best, "half": half[0] if half else None, "steps": steps}

    def _step(
        self, server: Server, load: Generator, readers: int, rate: float, steps: list[Figures]
    ) -> bool:
        if steps and steps[-1]["deliveries"] < steps[-1]["wanted"]:
            time.sleep(1.0)  # what was too much must not run into this step
        cpu = processes.cpu_seconds(server.pid)
        answer = load.ask(f"run {rate:.2f} {STEP_SECONDS} {SETTLE_SECONDS} 0")
        used = processes.cpu_seconds(server.pid) - cpu
        good = (
            answer["deliveries"] == answer["wanted"]
            and not answer["overloaded"]
            and answer["p99_ms"] <= P99_LIMIT_MS
        )
        if answer["doubled"] or answer["disordered"] or answer["strange"] or answer["ended"]:
            raise BenchFailed(f"Events doubled, out of order, or sockets closed: {answer}")
        seconds = max(answer["seconds"], answer["settled_seconds"])
        step = {
            **answer,
            "deliveries_per_second": round(answer["deliveries"] / seconds),
            "events_per_second": round(answer["sent"] / seconds),
            "server_cpu_us": round(used / max(1, answer["deliveries"]) * 1e6, 2),
            "server_cpu_share": round(used / seconds, 2),
            "kept": good,
        }
        steps.append(step)
        self._say(
            f"{answer['offered']:>9,.0f} events/s "
            f" {step['deliveries_per_second']:>10,} deliveries/s"
            f"  p50 {answer['p50_ms']:>7.2f}  p99 {answer['p99_ms']:>7.2f} ms"
            f"  CPU {step['server_cpu_share']:.0%} + {answer['cpu_share']:.0%}"
            f"{'' if good else '  too much'}"
        )
        return good

    # --- (d), (e)

    def _storm(self, server: Server, load: Generator) -> Figures:
        self._open(load, IDLE[0], "own")
        time.sleep(1.0)
        cpu = processes.cpu_seconds(server.pid)
        answer = load.ask("storm")
        used = processes.cpu_seconds(server.pid) - cpu
        self._say(
            f"storm: {answer['open']} back after {answer['seconds']:.2f} s, "
            f"{answer['failed']} refused"
        )
        return {**answer, "server_cpu_seconds": round(used, 2)}

    def _stalled(self, server: Server, load: Generator) -> Figures:
        self._open(load, STALL_SOCKETS, "one")
        load.ask(f"padding {STALL_BYTES}")
        load.ask(f"run {STALL_RATE} 1 1 0")  # buffers of the healthy ones grow now
        before = peak = processes.resident_bytes(server.pid)
        load.ask("stall")

        def look() -> None:
            nonlocal peak
            peak = max(peak, processes.resident_bytes(server.pid))

        answer = load.ask(f"run {STALL_RATE} {STALL_SECONDS} 2 0", meanwhile=look)
        look()
        end = load.ask("resume 3")
        sent = answer["sent"] * STALL_BYTES
        self._say(
            f"never-reading socket: memory +{(peak - before) / 1e6:.1f} MB for {sent / 1e6:.0f} MB "
            f"unread, then {end['how']} {end['code'] or ''}; others p99 {answer['p99_ms']:.1f} ms, "
            f"{answer['lost']} lost"
        )
        return {
            "grown_bytes": peak - before,
            "unread_bytes": sent,
            "end": end,
            "others": answer,
        }

    # --- 50,000

    def _spread(self) -> Figures:
        """Three processes on the same core, some 50,000 sockets together."""
        with ExitStack() as stack:
            servers = [
                stack.enter_context(processes.server(self._kind, self._redis_port, self._log))
                for _ in range(SPREAD_PROCESSES)
            ]
            loads = [
                stack.enter_context(processes.generator(one, self._redis_port, number))
                for number, one in enumerate(servers)
            ]
            empty = sum(processes.resident_bytes(one.pid) for one in servers)
            began = time.monotonic()
            for load in loads:
                load.tell(f"connect {SPREAD_EACH} {IN_FLIGHT} own")
            opened = sum(load.answer(150.0)["open"] for load in loads)
            took = time.monotonic() - began
            time.sleep(1.0)
            resident = sum(processes.resident_bytes(one.pid) for one in servers)
        self._say(
            f"{opened:,} sockets on {SPREAD_PROCESSES} processes in {took:.1f} s: "
            f"{resident / 1e6:.0f} MB together"
        )
        if opened != SPREAD_PROCESSES * SPREAD_EACH:
            raise BenchFailed(f"only {opened:,} of {SPREAD_PROCESSES * SPREAD_EACH:,} subscribed")
        return {
            "sockets": opened,
            "seconds": round(took, 2),
            "subscribed_per_second": round(opened / took),
            "resident_bytes": resident,
            "resident_bytes_empty": empty,
        }


def _checked(answer: Figures) -> Figures:
    """A run that must be perfect, because next to nothing goes on."""
    if answer["lost"] or answer["doubled"] or answer["disordered"] or answer["ended"]:
        raise BenchFailed(f"Events lost, doubled or out of order, or sockets closed: {answer}")
    return answer
