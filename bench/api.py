"""Measure the send path and the hot reads of one web process on a real MySQL, against references.

Starts a private MySQL (sync_binlog=1, innodb_flush_log_at_trx_commit=1) and a private Redis on one
core, one web process on another, and offers load with wrk. The references (bench/reference.py) are
the same routes with one SQLAlchemy transaction per message, or one SQLAlchemy query, in a thread.
Everything runs in one sitting, in short turns one after another, several times; the figures are
medians. Loopback only. Writes api.json, SVG plots and the table of docs/engineers/performance.md.

Needs root the first time (tools/private_mysql.py). Run by `make bench-api`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from plot import Series, line_chart
from sqlalchemy import insert

from app import clock, embedded
from app.chat import accounts
from app.db import engines, migrate, schema
from tools import private_mysql, system_packages
from tools.private_mysql import Servers

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
PAGE = ROOT / "docs" / "engineers" / "performance.md"
WEB_CPU, OTHER_CPU = "0", "1"
IN_FLIGHT = (1, 32, 256)
AGENTS, SESSIONS = 32, 64
INBOXES = 4
SEND_CONVERSATIONS = 512  # ids from 1
READ_CONVERSATIONS = 200  # the ids after them
HISTORY_MESSAGES = 120
BODY = "Your parcel left the warehouse this morning and should arrive tomorrow \U0001f4e6"
SECRET_KEY = "k" * 40
START_SECONDS = 60.0
SETTLE_SECONDS, SETTLE_LOOKS = 0.5, 40


@dataclass(frozen=True)
class Route:
    """One thing to measure: a route of one of the servers."""

    name: str
    server: str
    method: str
    prefix: str
    suffix: str
    stores: bool = False
    read: bool = False  # of the conversations with a long history
    body: str = BODY


@dataclass(frozen=True)
class Turn:
    """What one turn of load gave."""

    rate: float
    p50_ms: float
    p99_ms: float
    web_cpu_us: float
    mysql_cpu_us: float


SENDS = (
    Route("Deskline", "deskline", "SEND", "/api/v1/conversations/", "/messages", stores=True),
    Route("Core, login by Core", "core", "SEND", "/core/conversations/", "/messages", stores=True),
    Route("Core", "mixed", "SEND", "/core/conversations/", "/messages", stores=True),
    Route("ORM", "mixed", "SEND", "/orm/conversations/", "/messages", stores=True),
    Route("bare route", "mixed", "SEND", "/bare/conversations/", "/messages"),
)
HISTORY = (
    Route("Deskline", "deskline", "GET", "/api/v1/conversations/", "/messages?limit=50", read=True),
    Route(
        "Core, login by Core",
        "core",
        "GET",
        "/core/conversations/",
        "/messages?limit=50",
        read=True,
    ),
    Route("Core", "mixed", "GET", "/core/conversations/", "/messages?limit=50", read=True),
)
# measured when the server has them
OTHERS = (
    Route("list of 100 conversations", "deskline", "GET", "/api/v1/conversations", "?limit=100"),
    Route("search", "deskline", "GET", "/api/v1/search", "?q=warehouse"),
    Route(
        "sync: 20 conversations, 2 new messages each",
        "deskline",
        "POST",
        "/api/v1/sync",
        "",
        body=json.dumps(
            {
                "known": {
                    str(SEND_CONVERSATIONS + number): HISTORY_MESSAGES - 2
                    for number in range(1, 21)
                }
            }
        ),
    ),
)


class BenchFailed(Exception):
    """The measurement cannot be made or means nothing; the text says why."""


# --- the servers --------------------------------------------------------------------------------


@contextmanager
def web_server(env: dict[str, str], *command: str, folder: Path) -> Iterator[tuple[str, int]]:
    """A server pinned to one core; gives its address and process id."""
    port, output = embedded._free_port(), folder / f"server-{len(list(folder.iterdir()))}.txt"
    with output.open("wb") as sink:
        process = subprocess.Popen(
            ["taskset", "--cpu-list", WEB_CPU, sys.executable, *command],
            cwd=ROOT,
            env={**env, "DESKLINE_WEB_PORT": str(port), "DESKLINE_WEB_HOST": "127.0.0.1"},
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        give_up_at = time.monotonic() + START_SECONDS
        while not _answers(f"{url}/readyz"):
            if process.poll() is not None or time.monotonic() > give_up_at:
                said = output.read_text(errors="replace")[-2000:]
                raise BenchFailed(f"`{' '.join(command)}` did not start:\n{said}")
            time.sleep(0.1)
        yield url, process.pid
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310  our own address
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, with that of threads that have ended (proc(5), stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- data ---------------------------------------------------------------------------------------


def seed(url: str, sessions_file: Path) -> None:
    """Inboxes, agents with sessions, conversations to write in, conversations with a history."""
    engine = engines.make_engine(url, pool_size=1)
    now = clock.now()
    lines = []
    with engines.write_transaction(engine) as connection:
        for number in range(1, INBOXES + 1):
            connection.execute(
                insert(schema.inboxes).values(
                    id=number,
                    key=f"inbox{number}",
                    name=f"Shop {number}",
                    greeting="Hi",
                    color="#0f766e",
                    languages="en",
                    created_at=now,
                )
            )
        for number in range(1, AGENTS + 1):
            accounts.create(
                connection,
                email=f"agent{number}@bench.example",
                name=f"Agent {number}",
                role="admin" if number == 1 else "agent",
                password="x" * 12,
            )
        users = [row.id for row in connection.execute(schema.users.select())]
        for number in range(SESSIONS):
            token = clock.token()
            token_hash = accounts.hash_token(token)
            connection.execute(
                insert(schema.sessions).values(
                    token_hash=token_hash,
                    user_id=users[number % len(users)],
                    created_at=now,
                    expires_at=now + timedelta(days=14),
                )
            )
            lines.append(f"{token}\t{accounts.csrf_token(SECRET_KEY, token_hash)}\n")
    sessions_file.write_text("".join(lines))
    total = SEND_CONVERSATIONS + READ_CONVERSATIONS
    with engines.write_transaction(engine) as connection:
        connection.execute(
            insert(schema.visitors),
            [
                {
                    "id": number,
                    "inbox_id": number % INBOXES + 1,
                    "name": f"Visitor {number}",
                    "first_seen_at": now,
                    "last_seen_at": now,
                }
                for number in range(1, total + 1)
            ],
        )
        connection.execute(
            insert(schema.conversations),
            [
                {
                    "id": number,
                    "inbox_id": number % INBOXES + 1,
                    "visitor_id": number,
                    "status": "open",
                    "last_seq_public": HISTORY_MESSAGES if number > SEND_CONVERSATIONS else 0,
                    "last_seq_staff": 0,
                    "version": 0,
                    "created_at": now,
                    "updated_at": now,
                }
                for number in range(1, total + 1)
            ],
        )
    for conversation in range(SEND_CONVERSATIONS + 1, total + 1):
        with engines.write_transaction(engine) as connection:
            connection.execute(
                insert(schema.messages),
                [
                    {
                        "conversation_id": conversation,
                        "stream": schema.PUBLIC,
                        "seq": seq,
                        "client_id": clock.uuid(),
                        "sender_type": "agent" if seq % 2 else "visitor",
                        "sender_id": users[seq % len(users)] if seq % 2 else conversation,
                        "kind": "text",
                        "body": BODY,
                        "created_at": now,
                    }
                    for seq in range(1, HISTORY_MESSAGES + 1)
                ],
            )
    engine.dispose()


# --- load ---------------------------------------------------------------------------------------


@dataclass
class Bench:
    """The running parts."""

    mysql: Servers
    servers: dict[str, tuple[str, int]]
    sessions: Path
    seconds: float
    warm_up_seconds: float

    def load(self, route: Route, in_flight: int, seconds: float) -> dict[str, float]:
        """One run of wrk; its own result."""
        url, _ = self.servers[route.server]
        first, last = 1, SEND_CONVERSATIONS
        if route.read:
            first, last = SEND_CONVERSATIONS + 1, SEND_CONVERSATIONS + READ_CONVERSATIONS
        done = subprocess.run(
            [
                *("taskset", "--cpu-list", OTHER_CPU),
                *("wrk", "--threads", "1", "--connections", str(in_flight)),
                *("--duration", f"{max(1, round(seconds))}s", "--timeout", "20s"),
                *("--script", str(ROOT / "bench" / "load.lua"), url, "--"),
                *(route.method, route.prefix, route.suffix, str(first), str(last)),
                *(str(self.sessions), route.body),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds + 60,
        )
        found = re.search(r"^RESULT (.*)$", done.stdout, re.MULTILINE)
        if found is None:
            raise BenchFailed(f"wrk said: {done.stdout}{done.stderr}")
        result: dict[str, float] = json.loads(found[1])
        if result["refused"] or result["broken"]:
            raise BenchFailed(f"{route.name} at {in_flight} in flight: not all answered: {result}")
        return result

    def turn(self, route: Route, in_flight: int) -> Turn:
        """Warm up, then measure; what counts as stored is what the database holds."""
        self.load(route, in_flight, self.warm_up_seconds)
        web, mysqld = self.servers[route.server][1], self.mysql.primary.pid
        before = self._messages() if route.stores else 0
        web_before, mysql_before = cpu_seconds(web), cpu_seconds(mysqld)
        result = self.load(route, in_flight, self.seconds)
        web_cpu = cpu_seconds(web) - web_before
        mysql_cpu = cpu_seconds(mysqld) - mysql_before
        count = result["requests"]
        if route.stores:
            stored = self._messages() - before
            # at the end wrk drops what is in flight: that is stored, but it counts no answer
            if not count <= stored <= count + in_flight:
                raise BenchFailed(f"{route.name}: {count} answers, {stored} messages stored")
            count = stored
        return Turn(
            rate=result["requests"] / result["seconds"],
            p50_ms=result["p50_ms"],
            p99_ms=result["p99_ms"],
            web_cpu_us=web_cpu / count * 1e6,
            mysql_cpu_us=mysql_cpu / count * 1e6,
        )

    def _messages(self) -> int:
        """How many are stored once nothing more comes: what wrk dropped may still be under way."""
        last = -1
        for _ in range(SETTLE_LOOKS):
            rows = self.mysql.primary.sql("SELECT COUNT(*) AS n FROM deskline.messages")
            count = int(rows[0]["n"])
            if count == last:
                return count
            last = count
            time.sleep(SETTLE_SECONDS)
        raise BenchFailed("messages are stored although nobody sends any")


def median(turns: list[Turn]) -> dict[str, float]:
    """The median of each figure."""
    names = asdict(turns[0])
    return {
        name: round(statistics.median(getattr(turn, name) for turn in turns), 2) for name in names
    }


def measure(
    bench: Bench, routes: tuple[Route, ...], in_flight: tuple[int, ...], repeats: int, title: str
) -> dict[str, dict[str, dict[str, float]]]:
    """{route: {in flight: medians}}; the routes take turns, so that a slow moment hits all."""
    turns: dict[tuple[str, int], list[Turn]] = {}
    # alone in flight a turn has the fewest requests, and the most noise: it gets two each time
    rounds = [many for many in in_flight for _ in range(2 if many == 1 else 1)]
    total, number = repeats * len(rounds) * len(routes), 0
    for _ in range(repeats):
        for many in rounds:
            for route in routes:
                number += 1
                turn = bench.turn(route, many)
                turns.setdefault((route.name, many), []).append(turn)
                print(
                    f"{title} {number}/{total}  {route.name:<22} {many:>3} in flight "
                    f"{turn.rate:>8.0f}/s  p50 {turn.p50_ms:>7.2f} ms  p99 {turn.p99_ms:>7.2f} ms  "
                    f"CPU {turn.web_cpu_us:>5.0f} + {turn.mysql_cpu_us:>4.0f} us",
                    flush=True,
                )
    return {
        route.name: {str(many): median(turns[route.name, many]) for many in in_flight}
        for route in routes
    }


# --- the report ---------------------------------------------------------------------------------


def table(figures: dict[str, dict[str, dict[str, float]]], what: str) -> list[str]:
    """The figures as a Markdown table."""
    flights = list(next(iter(figures.values())))
    head = [what]
    for many in flights:
        head += [f"{many} in flight: per second", "p50 / p99 ms"]
    head.append(f"CPU µs each at {flights[-1]} (web + mysqld)")
    rows = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, by_flight in figures.items():
        cells = [name]
        for many in flights:
            one = by_flight[many]
            cells += [f"{one['rate']:,.0f}", f"{one['p50_ms']:.1f} / {one['p99_ms']:.1f}"]
        top = by_flight[flights[-1]]
        cells.append(f"{top['web_cpu_us']:.0f} + {top['mysql_cpu_us']:.0f}")
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def verdicts(result: dict[str, Any]) -> list[str]:
    """The targets of the project, and what was reached.

    Besides the rates stands the CPU time of the web process: one that has a core for itself is
    bound by it, and on a machine that does other things it is the figure to trust. There a
    process with 16 runnable threads also gets more of its core than one with a single thread.
    """
    send, history = result["send"], result["history"]
    lines = []
    for reference in ("Core, login by Core", "Core"):
        ours, theirs = send["Deskline"]["256"], send[reference]["256"]
        alone = send["Deskline"]["1"]["rate"] / send[reference]["1"]["rate"]
        rate, cpu = ours["rate"] / theirs["rate"], theirs["web_cpu_us"] / ours["web_cpu_us"]
        read = {
            many: (
                one["rate"] / history[reference][many]["rate"],
                history[reference][many]["web_cpu_us"] / one["web_cpu_us"],
            )
            for many, one in history["Deskline"].items()
        }
        told = ", ".join(f"{rate:.1f} ({cpu:.1f}) at {many}" for many, (rate, cpu) in read.items())
        lines += [
            f"- Send, 256 in flight, against *{reference}*: {rate:.1f} times the rate (target 4), "
            f"CPU of the web process {cpu:.1f} times less; p99 {ours['p99_ms']:.0f} ms, "
            f"their p50 {theirs['p50_ms']:.0f} ms (target: lower).",
            f"- Send, 1 in flight, against *{reference}*: {alone:.2f} times the rate (target 1).",
            f"- History of 50 against *{reference}*, times the rate and, in brackets, times less "
            f"CPU: {told} in flight (target 2.5).",
        ]
    return lines


def write_report(result: dict[str, Any], folder: Path, page: Path | None) -> None:
    """The JSON file, the plots, and the figures between the marks of the page."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "api.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for key, title in (("send", "Messages sent to one web process"), ("history", "History of 50")):
        for figure, name in (("rate", "per second"), ("p99_ms", "p99, ms")):
            lines = [
                Series(route, [(float(many), one[figure]) for many, one in by_flight.items()])
                for route, by_flight in result[key].items()
                if route != "bare route"
            ]
            chart = line_chart(title, "requests in flight", name, lines)
            (folder / f"api-{key}-{figure.removesuffix('_ms')}.svg").write_text(chart)
    lines = [*table(result["send"], "send"), "", *table(result["history"], "history of 50"), ""]
    if result["others"]:
        lines += [*table(result["others"], "Deskline's other reads"), ""]
    lines += [*verdicts(result), ""]
    machine = result["machine"]
    lines.append(
        f"{machine['date']}, {machine['cpus']} cores, Python {machine['python']}, "
        f"MySQL {machine['mysql']}, medians of {machine['repeats']} or more turns of "
        f"{machine['seconds']:g} s, load of the machine before the run {machine['load_1_minute']}."
    )
    text = "\n".join(lines)
    print(text)
    for key, what in (("send", "a send"), ("history", "a page of history")):
        for figure, name in (("rate", "the rate"), ("p99", "the p99")):
            text += f"\n![{name} of {what}](../../bench/results/api-{key}-{figure}.svg)"
    if page is not None:
        before, _, rest = page.read_text(encoding="utf-8").partition("<!-- figures -->\n")
        _, _, after = rest.partition("<!-- end of figures -->")
        page.write_text(
            f"{before}<!-- figures -->\n{text}\n<!-- end of figures -->{after}", encoding="utf-8"
        )


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="of each turn")
    parser.add_argument("--quick", action="store_true", help="one turn of each, written nowhere")
    parser.add_argument("--only", choices=("send", "history", "others"))
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder to write")
    arguments = parser.parse_args()
    repeats = 1 if arguments.quick else arguments.repeats
    load = round(os.getloadavg()[0], 1)
    try:
        if (os.cpu_count() or 1) < 2:
            raise BenchFailed("Two cores are needed: one for the web process, one for the rest.")
        system_packages.install(["bench"])
        with ExitStack() as stack:
            bench = start(stack, arguments.seconds)
            parts = {
                "send": lambda: measure(bench, SENDS, IN_FLIGHT, repeats, "send"),
                "history": lambda: measure(bench, HISTORY, (1, 32, 256), repeats, "history"),
                "others": lambda: measure(
                    bench, known(bench), (1, 32), max(1, repeats - 1), "others"
                ),
            }
            figures = {
                name: run()
                for name, run in parts.items()
                if arguments.only in {None, name} and not (name == "others" and not known(bench))
            }
            version = bench.mysql.primary.sql("SELECT @@version AS v")[0]["v"]
    except (
        BenchFailed,
        private_mysql.MysqlMissing,
        private_mysql.MysqlFailed,
        system_packages.PackagesMissing,
    ) as failure:
        print(failure, file=sys.stderr)
        return 2
    if arguments.quick or arguments.only:
        print(json.dumps(figures, indent=2))
        return 0
    machine = {
        "date": clock.now().date().isoformat(),
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "mysql": version,
        "repeats": repeats,
        "seconds": arguments.seconds,
        "load_1_minute": load,
    }
    result = {"machine": machine, "others": {}, **figures}
    write_report(result, arguments.out, PAGE if arguments.out == RESULTS else None)
    return 0


def known(bench: Bench) -> tuple[Route, ...]:
    """Those of OTHERS that this Deskline has."""
    url, _ = bench.servers["deskline"]
    with urllib.request.urlopen(f"{url}/openapi.json", timeout=10) as answer:  # noqa: S310  ours
        paths = json.load(answer)["paths"]
    return tuple(route for route in OTHERS if route.prefix in paths)


def start(stack: ExitStack, seconds: float) -> Bench:
    """Start and fill everything; stopped by ``stack``."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="deskline-bench-")))
    mysql = stack.enter_context(private_mysql.servers(folder / "mysql", cpus=OTHER_CPU))
    migrate.upgrade(mysql.primary.url("migrate"), say=lambda _line: None)
    sessions = folder / "sessions.txt"
    seed(mysql.primary.url("app"), sessions)
    (folder / "redis").mkdir()
    os.sched_setaffinity(0, {int(OTHER_CPU)})  # Redis inherits it
    redis_url = stack.enter_context(embedded.private_redis(folder / "redis"))
    env = {
        **{name: value for name, value in os.environ.items() if "DESKLINE" not in name},
        "DESKLINE_SECRET_KEY": SECRET_KEY,
        "DESKLINE_PUSHER_APP_ID": "bench",
        "DESKLINE_PUSHER_KEY": "bench-key",
        "DESKLINE_PUSHER_SECRET": "a-secret-for-the-bench-only",
        "DESKLINE_PUBLIC_URL": "http://chat.example",
        "DESKLINE_DATABASE_URL": mysql.primary.url("app"),
        "DESKLINE_REDIS_URL": redis_url,
        # the limits are counted as always; one address sends all this
        "DESKLINE_RATE_LIMITS": "observe",
    }
    logs = folder / "logs"
    logs.mkdir()
    servers = {
        "deskline": ("-m", "app", "web"),
        "core": ("bench/reference.py", "--login", "core"),
        "mixed": ("bench/reference.py", "--login", "deskline"),
    }
    running = {
        name: stack.enter_context(web_server(env, *command, folder=logs))
        for name, command in servers.items()
    }
    return Bench(mysql, running, sessions, seconds, warm_up_seconds=1)


if __name__ == "__main__":
    sys.exit(main())
