"""Measure one gateway on loopback: memory per idle socket, fan-out, pairs, latency.

Starts a private Redis and one gateway process, opens sockets to it, and offers events at rising
rates until the gateway (or this generator) no longer keeps up. Everything is bounded: at most
5,000 sockets, at most a dozen steps of a few seconds, 127.0.0.1 only. Writes gateway.json and
gateway.svg into dist/bench/.

The generator is Python too and shares the machine: CPU time per delivery, read from the gateway's
/proc entry, is the figure that does not depend on it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import uvloop
from plot import Series, line_chart

ROOT = Path(__file__).resolve().parents[1]
HOST = "127.0.0.1"
MAX_SOCKETS = 5000
APP_ID, KEY, SECRET = "bench", "bench-key", "a-secret-for-the-bench-only"  # nothing to protect
IDLE_SOCKETS = (3000, 5000)
HANDSHAKES_AT_ONCE = 64
SAMPLED_SOCKETS = 100
STEP_SECONDS = 3.0
SETTLE_SECONDS = 1.0
TICK_SECONDS = 0.002
P99_LIMIT_MS = 250.0
KEPT_SHARE = 0.97
PADDING = "x" * 100
STAMP_DIGITS = 19
FAKE_REDIS = (
    "import sys; from fakeredis import TcpFakeServer; "
    "TcpFakeServer(('127.0.0.1', int(sys.argv[1])), server_type='redis').serve_forever()"
)
REQUEST = (
    f"GET /app/{KEY}?protocol=7&client=bench HTTP/1.1\r\nHost: {HOST}\r\nUpgrade: websocket\r\n"
    "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
).encode()


def client_frame(message: object) -> bytes:
    """A masked text frame; the mask is zero, which the server cannot tell from another."""
    payload = json.dumps(message).encode()
    size = len(payload)
    head = bytes((0x81, 0x80 | size)) if size < 126 else bytes((0x81, 0xFE, size >> 8, size & 255))
    return head + bytes(4) + payload


PONG = client_frame({"event": "pusher:pong", "data": {}})


def event_payload(channel: str) -> bytes:
    """What is published, with the time in it; always the same length for a channel's length."""
    data = f"{time.monotonic_ns():0{STAMP_DIGITS}d}{PADDING}"
    return b"\n" + json.dumps({"event": "bench", "channel": channel, "data": data}).encode()


class Bench:
    """What all sockets count together, and the gateway's process id."""

    def __init__(self, gateway_pid: int) -> None:
        self.gateway_pid = gateway_pid
        self.bytes = 0
        self.frame_bytes = 1
        self.stamp_at = 0
        self.latencies_ms: list[float] = []

    def expect(self, channel: str) -> None:
        """Frames from now on are those of ``channel`` (or of one with a name as long)."""
        payload = event_payload(channel)[1:]
        head = 2 if len(payload) < 126 else 4
        self.frame_bytes = head + len(payload)
        self.stamp_at = head + payload.index(b'"data": "') + len(b'"data": "')
        self.bytes = 0
        self.latencies_ms = []

    @property
    def deliveries(self) -> int:
        return self.bytes // self.frame_bytes

    async def settle(self, deliveries: int, seconds: float) -> None:
        """Wait until so many deliveries have come, but not longer than ``seconds``."""
        for _ in range(int(seconds / 0.01)):
            if self.deliveries >= deliveries:
                return
            await asyncio.sleep(0.01)


class BenchSocket(asyncio.Protocol):
    """A client. Sampled ones read the time in every frame, the others only count bytes."""

    __slots__ = ("_bench", "_rest", "_sampled", "greeted", "transport", "waiting")

    def __init__(self, bench: Bench, *, sampled: bool) -> None:
        self._bench = bench
        self._sampled = sampled
        self._rest = b""
        self.greeted = asyncio.get_running_loop().create_future()
        self.waiting: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(REQUEST)

    def data_received(self, data: bytes) -> None:
        if self.waiting is not None:
            self._rest += data
            if b"subscription_succeeded" in self._rest and self._rest.endswith(b"}"):
                self._rest = b""
                self.waiting.set_result(None)
                self.waiting = None
        elif self.greeted.done():
            self._bench.bytes += len(data)
            if self._sampled:
                self._sample(data)
        else:
            self._rest += data
            if b"connection_established" in self._rest:
                self._rest = b""
                self.greeted.set_result(None)

    def _sample(self, data: bytes) -> None:
        now = time.monotonic_ns()
        data = self._rest + data
        size, stamp = self._bench.frame_bytes, self._bench.stamp_at
        whole = len(data) // size * size
        for start in range(stamp, whole, size):
            sent = int(data[start : start + STAMP_DIGITS])
            self._bench.latencies_ms.append((now - sent) / 1e6)
        self._rest = data[whole:]

    def connection_lost(self, exc: Exception | None) -> None:
        for future in (self.greeted, self.waiting):
            if future is not None and not future.done():
                future.set_exception(ConnectionError("the gateway closed the socket"))

    async def subscribe(self, channel: str) -> None:
        self.waiting = asyncio.get_running_loop().create_future()
        self.transport.write(
            client_frame({"event": "pusher:subscribe", "data": {"channel": channel}})
        )
        await self.waiting


class Publisher(asyncio.Protocol):
    """Writes PUBLISH commands to Redis and does not wait for the answers."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def publish(self, channels: list[str]) -> None:
        parts = []
        for channel in channels:
            topic = f"deskline:ch:{APP_ID}:{channel}".encode()
            payload = event_payload(channel)
            parts.append(
                b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n"
                % (len(topic), topic, len(payload), payload)
            )
        self.transport.write(b"".join(parts))


@dataclass(frozen=True)
class Step:
    """One offered rate and what came of it. Rates are per second."""

    offered_events: float
    deliveries: float
    p50_ms: float
    p99_ms: float
    gateway_cpu_us_per_delivery: float
    kept_up: bool


# --- processes -------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        port: int = sock.getsockname()[1]
        return port


def start_redis(port: int) -> subprocess.Popen[bytes]:
    if shutil.which("redis-server"):
        words = ["redis-server", "--port", str(port), "--bind", HOST, "--save", ""]
    else:
        words = [sys.executable, "-c", FAKE_REDIS, str(port)]
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL)


def start_gateway(redis_port: int, port: int, control_port: int) -> subprocess.Popen[bytes]:
    env = {
        **os.environ,
        "DESKLINE_REDIS_URL": f"redis://{HOST}:{redis_port}/0",
        "DESKLINE_PUSHER_APP_ID": APP_ID,
        "DESKLINE_PUSHER_KEY": KEY,
        "DESKLINE_PUSHER_SECRET": SECRET,
        "DESKLINE_GATEWAY_PORT": str(port),
        "DESKLINE_GATEWAY_CONTROL_PORT": str(control_port),
        "DESKLINE_DRAIN_SECONDS": "0",
        "DESKLINE_LOG_LEVEL": "warning",
    }
    return subprocess.Popen([sys.executable, "-m", "app", "gateway"], cwd=ROOT, env=env)


def wait_ready(process: subprocess.Popen[bytes], control_port: int) -> None:
    for _ in range(200):
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(f"http://{HOST}:{control_port}/readyz", timeout=2)
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
        else:
            return
    raise SystemExit("The gateway did not become ready: see its messages above.")


def resident_bytes(pid: int) -> int:
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- measuring -------------------------------------------------------------------------------


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("nan")


async def in_groups(work: list[Callable[[], object]]) -> None:
    """Await the work, some at a time."""
    for start in range(0, len(work), HANDSHAKES_AT_ONCE):
        await asyncio.gather(
            *(
                cast("asyncio.Future[None]", make())
                for make in work[start : start + HANDSHAKES_AT_ONCE]
            )
        )


async def open_sockets(bench: Bench, port: int, count: int) -> list[BenchSocket]:
    loop = asyncio.get_running_loop()
    sockets: list[BenchSocket] = []

    async def one(number: int) -> None:
        sampled = number % max(1, count // SAMPLED_SOCKETS) == 0
        _, made = await loop.create_connection(
            lambda: BenchSocket(bench, sampled=sampled), HOST, port
        )
        await made.greeted
        sockets.append(made)

    await in_groups([lambda number=number: one(number) for number in range(count)])  # type: ignore[misc]
    return sockets


async def run_step(
    bench: Bench, publisher: Publisher, channels: list[str], *, readers: int, rate: float
) -> Step:
    """Offer ``rate`` events a second, each to ``readers`` sockets, for STEP_SECONDS."""
    bench.expect(channels[0])
    loop = asyncio.get_running_loop()
    cpu = cpu_seconds(bench.gateway_pid)
    started = loop.time()
    sent = 0
    while (passed := loop.time() - started) < STEP_SECONDS:
        due = int(passed * rate) + 1
        if due > sent:
            publisher.publish([channels[number % len(channels)] for number in range(sent, due)])
            sent = due
        await asyncio.sleep(max(TICK_SECONDS, (sent / rate) - passed if rate < 100 else 0))
    await bench.settle(sent * readers, SETTLE_SECONDS)
    took = loop.time() - started
    deliveries = bench.deliveries
    p99 = percentile(bench.latencies_ms, 0.99)
    kept_up = deliveries >= sent * readers * KEPT_SHARE and p99 <= P99_LIMIT_MS
    used = cpu_seconds(bench.gateway_pid) - cpu
    await bench.settle(sent * readers, 10)  # what was too much must not run into the next step
    return Step(
        offered_events=round(sent / STEP_SECONDS, 1),
        deliveries=round(deliveries / took),
        p50_ms=round(percentile(bench.latencies_ms, 0.5), 2),
        p99_ms=round(p99, 2),
        gateway_cpu_us_per_delivery=round(used / max(deliveries, 1) * 1e6, 2),
        kept_up=kept_up,
    )


async def climb(
    bench: Bench,
    publisher: Publisher,
    channels: list[str],
    *,
    readers: int,
    rates: list[float],
) -> list[Step]:
    """Steps at rising rates, until two in a row are too much (one may be a neighbour's fault)."""
    steps: list[Step] = []
    for rate in rates:
        step = await run_step(bench, publisher, channels, readers=readers, rate=rate)
        steps.append(step)
        print(
            f"  {step.offered_events:>9,.0f} events/s offered  {step.deliveries:>10,} deliveries/s"
            f"  p50 {step.p50_ms:>7.2f} ms  p99 {step.p99_ms:>7.2f} ms"
            f"  {step.gateway_cpu_us_per_delivery:>5.2f} µs CPU each"
            f"{'' if step.kept_up else '  too much'}",
            flush=True,
        )
        if not any(last.kept_up for last in steps[-2:]):
            break
    return steps


async def measure(
    sockets_wanted: int, port: int, redis_port: int, gateway_pid: int
) -> dict[str, object]:
    bench = Bench(gateway_pid)
    loop = asyncio.get_running_loop()
    _, publisher = await loop.create_connection(Publisher, HOST, redis_port)

    # The slope between two counts: what the process holds anyhow is not a socket's.
    sockets = await open_sockets(bench, port, IDLE_SOCKETS[0])
    await asyncio.sleep(0.5)
    before = resident_bytes(gateway_pid)
    started = loop.time()
    sockets += await open_sockets(bench, port, IDLE_SOCKETS[1] - IDLE_SOCKETS[0])
    handshakes = (IDLE_SOCKETS[1] - IDLE_SOCKETS[0]) / (loop.time() - started)
    await asyncio.sleep(0.5)
    per_socket = (resident_bytes(gateway_pid) - before) / (IDLE_SOCKETS[1] - IDLE_SOCKETS[0])
    print(
        f"{IDLE_SOCKETS[1]} idle sockets: {handshakes:,.0f} handshakes/s, "
        f"{per_socket / 1024:.2f} KB resident each"
    )
    for item in sockets:
        item.transport.abort()
    await asyncio.sleep(0.5)

    sockets = await open_sockets(bench, port, sockets_wanted)
    print(f"1 to {sockets_wanted}:", flush=True)
    await in_groups([lambda item=item: item.subscribe("bench-all") for item in sockets])  # type: ignore[misc]
    events = [10.0, *(deliveries / sockets_wanted for deliveries in
                      (50e3, 100e3, 150e3, 200e3, 300e3, 500e3, 750e3, 1000e3))]  # fmt: skip
    broadcast = await climb(bench, publisher, ["bench-all"], readers=sockets_wanted, rates=events)

    print(f"pairs: {sockets_wanted // 2} channels of 2:", flush=True)
    for item in sockets:
        item.transport.write(
            client_frame({"event": "pusher:unsubscribe", "data": {"channel": "bench-all"}}) + PONG
        )
    names = [f"pair-{number:06d}" for number in range(sockets_wanted // 2)]
    await in_groups([
        lambda item=item, name=names[index // 2]: item.subscribe(name)  # type: ignore[misc]
        for index, item in enumerate(sockets[: len(names) * 2])
    ])  # fmt: skip
    rates = [2_500.0, 5_000.0, 10_000.0, 15_000.0, 20_000.0, 30_000.0, 45_000.0]
    pairs = await climb(bench, publisher, names, readers=2, rates=rates)
    for item in sockets:
        item.transport.abort()
    publisher.transport.abort()
    return {
        "sockets": sockets_wanted,
        "handshakes_per_second": round(handshakes),
        "resident_bytes_per_idle_socket": round(per_socket),
        "broadcast": [asdict(step) for step in broadcast],
        "pairs": [asdict(step) for step in pairs],
    }


def best(steps: list[dict[str, float]]) -> dict[str, float]:
    kept = [step for step in steps if step["kept_up"]]
    return max(kept or steps, key=lambda step: step["deliveries"])


def write_report(result: dict[str, object], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gateway.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    series = []
    for key, name in (("broadcast", f"1 → {result['sockets']}"), ("pairs", "pairs")):
        steps = cast("list[dict[str, float]]", result[key])
        series.append(Series(name, [(step["deliveries"], step["p99_ms"]) for step in steps]))
        top = best(steps)
        print(f"best of {key}: {top['deliveries']:,} deliveries/s at p99 {top['p99_ms']} ms")
    chart = line_chart(
        "One gateway process on loopback", "deliveries per second", "p99 latency, ms", series
    )
    (folder / "gateway.svg").write_text(chart, encoding="utf-8")
    print(f"written: {folder / 'gateway.json'} and {folder / 'gateway.svg'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sockets", type=int, default=1000, help="2 to 5000 (default 1000)")
    parser.add_argument("--out", type=Path, default=ROOT / "dist" / "bench", help="folder to write")
    arguments = parser.parse_args()
    if not 2 <= arguments.sockets <= MAX_SOCKETS:
        parser.error(f"--sockets should be from 2 to {MAX_SOCKETS}")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    redis_port, port, control_port = free_port(), free_port(), free_port()
    processes = [start_redis(redis_port)]
    try:
        processes.append(start_gateway(redis_port, port, control_port))
        wait_ready(processes[1], control_port)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            figures = runner.run(measure(arguments.sockets, port, redis_port, processes[1].pid))
    finally:
        for process in reversed(processes):
            process.send_signal(signal.SIGTERM)
            process.wait(15)
    machine = {
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "redis": "redis-server" if shutil.which("redis-server") else "fakeredis",
        "load_1_minute": round(os.getloadavg()[0], 1),
    }
    write_report({"machine": machine, **figures}, arguments.out)


if __name__ == "__main__":
    main()
