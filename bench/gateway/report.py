"""The report: JSON, plots, and the tables in the documents."""

# ruff: noqa: RUF001  the punctuation of Chinese

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.gateway.processes import LIMIT, OURS, ROOT
from bench.plot import Series, line_chart

RESULTS = ROOT / "bench" / "results"
PAGE = ROOT / "docs" / "engineers" / "performance.md"
FRONT_PAGES = {
    ROOT / "README.md": (
        "one process, one core",
        "KB an idle socket",
        "subscribed per second",
        "1 → 1,000, deliveries/s",
        "pairs, messages/s",
        "10,000 back after",
    ),
    ROOT / "README.zh-TW.md": (
        "單一行程、單一核心",
        "每個閒置連線 KB",
        "每秒完成訂閱",
        "1 → 1,000，每秒投遞",
        "兩人頻道，每秒訊息",
        "10,000 個連線全部恢復",
    ),
}
NOTHING = "-"
PLOTS = {
    "one_1000": "One channel, 1,000 subscribers",
    "one_5000": "One channel, 5,000 subscribers",
    "pairs": "5,000 sockets in pairs",
}

Figures = dict[str, Any]


def _at(figures: Figures, *keys: str) -> Any:
    """What is at the end of the keys; None when it was not measured."""
    found: Any = figures
    for key in keys:
        if not isinstance(found, dict) or found.get(key) is None:
            return None
        found = found[key]
    return found


def _cell(value: Any, form: str = "{:,.0f}", scale: float = 1.0) -> str:
    return NOTHING if value is None else form.format(value * scale)


def _two(figures: Figures, *keys: str) -> str:
    step = _at(figures, *keys)
    return NOTHING if step is None else f"{step['p50_ms']:.1f} / {step['p99_ms']:.1f}"


def _kilobytes(one: Figures, count: int) -> str:
    return _cell(_at(one, "idle", f"at_{count}", "bytes_each"), "{:.1f}", 1 / 1024)


def _end(one: Figures) -> str:
    end = _at(one, "stalled", "end")
    if end is None:
        return NOTHING
    return f"closed, {end['code']}" if end["code"] else str(end["how"]).replace("open", "left open")


def _others(one: Figures) -> str:
    others = _at(one, "stalled", "others")
    if others is None:
        return NOTHING
    lost = f", {others['lost']:,} of {others['wanted']:,} not delivered" if others["lost"] else ""
    return f"p99 {others['p99_ms']:.0f} ms{lost}"


Column = tuple[str, Callable[[Figures], str]]
IDLE_COLUMNS: tuple[Column, ...] = (
    ("KB a socket at 10,000", lambda one: _kilobytes(one, 10_000)),
    ("at 19,000", lambda one: _kilobytes(one, 19_000)),
    (
        "50,100 on three processes, MB",
        lambda one: _cell(_at(one, "spread", "resident_bytes"), scale=1e-6),
    ),
    ("subscribed/s", lambda one: _cell(_at(one, "idle", "at_10000", "subscribed_per_second"))),
    (
        "on three processes",
        lambda one: _cell(_at(one, "spread", "subscribed_per_second")),
    ),
    ("storm of 10,000, s", lambda one: _cell(_at(one, "storm", "seconds"), "{:.1f}")),
    (
        "worst answer to a ping, ms (watched for, s)",
        lambda one: (
            _cell(_at(one, "idle", "pauses", "pong_max_ms"), "{:.0f}")
            + _cell(_at(one, "idle", "pauses", "probed_seconds"), " ({:.0f})").replace(NOTHING, "")
        ),
    ),
    (
        "a socket that never reads: memory, MB",
        lambda one: _cell(_at(one, "stalled", "grown_bytes"), "+{:.0f}", 1e-6),
    ),
    ("its end", _end),
    ("the others then", _others),
)
BUSY_COLUMNS: tuple[Column, ...] = (
    (
        "1 → 1,000: deliveries/s",
        lambda one: _cell(_at(one, "one_1000", "best", "deliveries_per_second")),
    ),
    ("p50 / p99 ms then", lambda one: _two(one, "one_1000", "best")),
    ("at half of it", lambda one: _two(one, "one_1000", "half")),
    ("10 events/s: p50 / p99 ms", lambda one: _two(one, "one_1000", "low_rate")),
    (
        "1 → 5,000: deliveries/s",
        lambda one: _cell(_at(one, "one_5000", "best", "deliveries_per_second")),
    ),
    ("p50 / p99 ms then", lambda one: _two(one, "one_5000", "best")),
    ("at half of it", lambda one: _two(one, "one_5000", "half")),
    ("pairs: messages/s", lambda one: _cell(_at(one, "pairs", "best", "events_per_second"))),
    ("p50 / p99 ms then", lambda one: _two(one, "pairs", "best")),
    ("at half of it", lambda one: _two(one, "pairs", "half")),
)
SHORT_COLUMNS: tuple[Callable[[Figures], str], ...] = (
    lambda one: _kilobytes(one, 10_000),
    lambda one: _cell(_at(one, "idle", "at_10000", "subscribed_per_second")),
    lambda one: _cell(_at(one, "one_1000", "best", "deliveries_per_second")),
    lambda one: _cell(_at(one, "pairs", "best", "events_per_second")),
    lambda one: _cell(_at(one, "storm", "seconds"), "{:.1f} s"),
)


def _table(heads: list[str], rows: list[list[str]]) -> list[str]:
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def tables(servers: Figures) -> list[str]:
    """The two tables of the engineers' page."""
    lines: list[str] = []
    for columns in (IDLE_COLUMNS, BUSY_COLUMNS):
        rows = [[name, *(cell(one) for _, cell in columns)] for name, one in servers.items()]
        lines += [*_table(["server", *(head for head, _ in columns)], rows), ""]
    return lines


def verdicts(servers: Figures) -> list[str]:
    """The targets of the project and what was reached, one line each."""
    ours = servers.get(OURS, {})
    lines = []

    def judge(what: str, value: float | None, limit: float, form: str, *, least: bool) -> None:
        if value is None:
            return
        reached = value >= limit if least else value <= limit
        bound = f"target: {'at least' if least else 'at most'} {form.format(limit)}"
        share = value / limit if limit else 0.0
        missed = "" if reached else f"; **missed**, {share:.2f} of it"
        lines.append(f"- {what}: {form.format(value)} ({bound}{missed}).")

    for count in (10_000, 19_000):
        each = _at(ours, "idle", f"at_{count}", "bytes_each")
        if each is not None:
            judge(
                f"Memory of an idle socket at {count:,}", each / 1024, 4, "{:.1f} KB", least=False
            )
    spread = _at(ours, "spread", "resident_bytes")
    if spread is not None:
        judge("50,100 sockets on three processes", spread / 1e6, 350, "{:.0f} MB", least=False)
    rate = _at(ours, "idle", "at_10000", "subscribed_per_second")
    judge("Handshake and private subscription", rate, 12_000, "{:,.0f}/s", least=True)
    for name, subscribers, wanted, p99 in (
        ("one_1000", "1,000", 900_000, 20),
        ("one_5000", "5,000", 300_000, 100),
    ):
        steps = [
            step["deliveries_per_second"]
            for step in _at(ours, name, "steps") or []
            if step["kept"] and step["p99_ms"] <= p99
        ]
        what = f"1 → {subscribers} with p99 of at most {p99} ms, deliveries"
        judge(what, max(steps, default=None), wanted, "{:,.0f}/s", least=True)
    low, node = (
        _at(servers.get(name, {}), "one_1000", "low_rate", "p99_ms") for name in (OURS, "Node ws")
    )
    if node is not None:
        judge("10 events/s to 1,000, p99 against Node ws's", low, node, "{:.1f} ms", least=False)
    pause = _at(ours, "idle", "pauses", "pong_max_ms")
    judge("Longest pause, 10,000 sockets", pause, 20, "{:.1f} ms", least=False)
    pairs, limit = (
        _at(servers.get(name, {}), "pairs", "best", "events_per_second") for name in (OURS, LIMIT)
    )
    wanted = min(80_000, 0.7 * limit) if limit else 80_000
    judge("Pairs, messages (80,000 or 0.7 of C's)", pairs, wanted, "{:,.0f}/s", least=True)
    storm = _at(ours, "storm", "seconds")
    judge("Storm, 10,000 sockets back", storm, 3, "{:.1f} s", least=False)
    return lines


def _plots(servers: Figures, folder: Path) -> list[str]:
    links = []
    for part, title in PLOTS.items():
        lines = []
        for name, one in servers.items():
            by_rate = {
                step["deliveries_per_second"]: max(0.1, step["p99_ms"])
                for step in _at(one, part, "steps") or []
                if step["kept"]
            }
            lines.append(
                Series(name, [(float(rate), p99) for rate, p99 in sorted(by_rate.items())])
            )
        lines = [line for line in lines if line.points]
        if lines:
            file = f"gateway-{part.replace('_', '-')}.svg"
            chart = line_chart(title, "deliveries per second", "p99, ms", lines, y_log=True)
            (folder / file).write_text(chart, encoding="utf-8")
            links.append(f"![{title}: p99 over deliveries per second](../../bench/results/{file})")
    lines = []
    for name, one in servers.items():
        points_at = [
            (count, _at(one, "idle", f"at_{count}", "resident_bytes")) for count in (10_000, 19_000)
        ]
        known = [(0.0, _at(one, "idle", "bytes_before"))] + [(float(n), v) for n, v in points_at]
        found = [(n, value / 1e6) for n, value in known if value is not None]
        if len(found) > 1:
            lines.append(Series(name, found))
    if lines:
        chart = line_chart("Memory with idle sockets", "sockets", "resident, MB", lines)
        (folder / "gateway-memory.svg").write_text(chart, encoding="utf-8")
        links.append("![memory over idle sockets](../../bench/results/gateway-memory.svg)")
    return links


def between_marks(page: Path, name: str, text: str) -> None:
    """Put ``text`` where ``page`` has the marks of that name. Raises ValueError without them."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    before, begun, rest = page.read_text(encoding="utf-8").partition(begin)
    _, ended, after = rest.partition(end)
    if not (begun and ended):
        raise ValueError(f"{page} has lost the marks around its {name}")
    page.write_text(f"{before}{begin}{text}\n{end}{after}", encoding="utf-8")


def write(result: Figures, folder: Path | None) -> None:
    """Print the report; with ``folder``, write JSON and plots there.

    When that is the project's own folder of results, the documents' tables are written as well.
    """
    servers, machine = result["servers"], result["machine"]
    lines = [*tables(servers), *verdicts(servers), ""]
    lines.append(
        f"{machine['date']}, {machine['cpus']} cores, kernel {machine['kernel']}, Python"
        f" {machine['python']}, Node.js {machine['node']}, {machine['minutes']:g} minutes, load of"
        f" the machine before the run {machine['load_1_minute']}."
    )
    print("\n".join(lines))
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gateway.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    links = _plots(servers, folder)
    if folder.resolve() != RESULTS:
        return
    between_marks(PAGE, "gateway figures", "\n".join([*lines, *links]))
    for page, heads in FRONT_PAGES.items():
        rows = [[name, *(cell(one) for cell in SHORT_COLUMNS)] for name, one in servers.items()]
        between_marks(page, "gateway figures", "\n".join(_table(list(heads), rows)))


if __name__ == "__main__":  # write plots and tables again from what was measured
    write(json.loads((RESULTS / "gateway.json").read_text(encoding="utf-8")), RESULTS)
