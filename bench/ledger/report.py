"""What a run is told with: the progress bar, the table, the JSON and the plot of latency."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from bench.faults import WELL_AGAIN
from bench.ledger.book import KINDS, Book, Violation
from bench.ledger.run import Moment, Options, Result
from bench.plot import Mark, Series, line_chart

BAR_CELLS: Final = 24
BUCKETS: Final = 120
SHOWN_OF_A_KIND: Final = 5
KEPT_OF_A_KIND: Final = 100
LINE_EVERY_SECONDS: Final = 10.0
# of the tally's returns
BACK: Final = "back"
RESYNC: Final = "resync"


def percentile(values: list[float], share: float) -> float:
    """The value that ``share`` of the values do not exceed; 0 for none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


class ProgressBar:
    """One line that is redrawn on a terminal; elsewhere a line now and then."""

    def __init__(self, out: IO[str] = sys.stderr) -> None:
        self._out = out
        self._live = out.isatty()
        self._last_line_at = 0.0
        self._width = 0
        self._recent: list[float] = []

    def __call__(self, moment: Moment) -> None:
        """Show a moment of the run."""
        self._recent = (self._recent + moment.latencies)[-500:]
        now = time.monotonic()
        if not self._live and now - self._last_line_at < LINE_EVERY_SECONDS:
            return
        self._last_line_at = now
        share = min(1.0, moment.seconds / moment.of_seconds) if moment.of_seconds else 0.0
        cells = round(share * BAR_CELLS)
        words = [
            f"{moment.phase:<7} [{'#' * cells}{'.' * (BAR_CELLS - cells)}]",
            f"{moment.seconds:.0f}/{moment.of_seconds:.0f} s",
            f"sent {moment.sent} acked {moment.acknowledged} waiting {moment.waiting}",
            f"p50 {percentile(self._recent, 0.5) * 1000:.0f} ms",
            f"p99 {percentile(self._recent, 0.99) * 1000:.0f} ms",
            f"retries {moment.retries}",
            f"sockets {moment.online}/{moment.people}",
            f"cpu {moment.cpu_share * 100:.0f} %",
        ]
        if moment.unseen is not None:
            words.append(f"unseen {moment.unseen}")
        self._write("  ".join(words))

    def end(self) -> None:
        """Go to a new line."""
        if self._live:
            self._out.write("\n")
            self._out.flush()

    def _write(self, line: str) -> None:
        if self._live:
            padding = " " * max(0, self._width - len(line))
            self._out.write(f"\r{line}{padding}")
            self._width = len(line)
        else:
            self._out.write(line + "\n")
        self._out.flush()


@dataclass(frozen=True, slots=True)
class Latencies:
    """(time.time() of the sending, seconds) of acknowledgements and of live sights."""

    acknowledged: list[tuple[float, float]]
    seen: list[tuple[float, float]]


def latencies(book: Book) -> Latencies:
    """How long each message took to its acknowledgement, and to each other person's screen.

    Only what came live over a WebSocket counts as seen here; what was fetched is in the figures.
    Messages whose sender hung up on purpose are left out of the acknowledgements.
    """
    acknowledged = [
        (sent.begun_at, sent.acknowledged_at - sent.begun_at)
        for sent in book.sent.values()
        if sent.acknowledged and not sent.hung_up
    ]
    seen: list[tuple[float, float]] = []
    for watch in book.watches.values():
        for message, sight in watch.seen.values():
            sent = book.sent.get(message.client_id)
            if sight.how == "live" and sent is not None and sent.sender != watch.subscriber:
                seen.append((sent.begun_at, sight.at - sent.begun_at))
    return Latencies(acknowledged, seen)


def read_marks(path: Path | None) -> list[tuple[float, str]]:
    """(time.time(), what happened) of a JSON-lines file; a line that is none is left out."""
    if path is None or not path.exists():
        return []
    marks = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
            if "phase" in entry:  # the ledger's own
                continue
            marks.append((float(entry["t"]), str(entry["what"])))
        except (ValueError, KeyError, TypeError):
            print(f"not a mark, left out: {line[:80]}", file=sys.stderr)
    return sorted(marks)


def outages(
    returns: Sequence[tuple[float, str, str]], marks: list[tuple[float, str]]
) -> list[dict[str, Any]]:
    """What each mark did to the sockets until the next one, and when everybody was back.

    ``returns`` are those of the tally. Back means: connected, every channel confirmed, and what was
    missed fetched. Seconds are counted from the mark; None when somebody never came back.
    """
    found = []
    for number, (began, what) in enumerate(marks):
        if what == WELL_AGAIN:
            continue
        later = [at for at, each in marks[number + 1 :] if each != WELL_AGAIN]
        until = later[0] if later else float("inf")
        mine = [each for each in returns if began <= each[0] < until]
        away: dict[str, float] = {}
        back: list[float] = []
        for at, who, happened in mine:
            if happened != BACK:
                away.setdefault(who, at)
            elif who in away:
                back.append(at - away.pop(who))
        seconds = [at - began for at, _, happened in mine if happened == BACK]
        closed = [happened for _, _, happened in mine if happened not in (BACK, RESYNC)]
        found.append({
            "what": what,
            "sockets_closed": dict(Counter(closed)),
            "resyncs": sum(happened == RESYNC for _, _, happened in mine),
            "everybody_back_after_seconds": (
                None if away else round(max(seconds, default=0.0), 2)
            ),
            "away_seconds": {
                "p50": round(percentile(back, 0.5), 3),
                "max": round(percentile(back, 1.0), 3),
            },
        })  # fmt: skip
    return found


def document(options: Options, result: Result, marks: list[tuple[float, str]]) -> dict[str, Any]:
    """The JSON of a run. Times are seconds since its first message, latencies milliseconds."""
    times = latencies(result.book)
    verdict = result.verdict
    return {
        "verdict": "clean" if verdict.clean else "not clean",
        "counts": verdict.counts,
        "figures": verdict.figures,
        "violations": [
            {"kind": violation.kind, "text": violation.text}
            for violation in _first_of_each_kind(verdict.violations, KEPT_OF_A_KIND)
        ],
        "options": {
            "url": options.url,
            "inbox": options.inbox_key,
            "visitors": options.visitors,
            "agents": options.agents,
            "rate": options.rate,
            "seconds": options.seconds,
            "seed": options.seed,
            "duplicate": options.habits.duplicate,
            "abort": options.habits.abort,
            "poll_seconds": options.habits.poll_seconds,
        },
        "latency_ms": {
            "sent_to_acknowledged": _spread([took for _, took in times.acknowledged]),
            "sent_to_seen_live": _spread([took for _, took in times.seen]),
        },
        "longest_without_acknowledgement_seconds": round(result.longest_silence_seconds, 3),
        "acknowledged_per_second": round(
            verdict.figures["acknowledged"] / max(result.talked_seconds, 1e-9), 1
        ),
        "settled_after_seconds": round(result.settled_seconds, 1),
        "compared_with_database": result.compared_with_database,
        "on_the_way": dict(sorted(result.tally.counts.items())),
        "notes": result.notes,
        "outages": outages(result.tally.returns, marks),
        "marks": [{"at": round(at - result.began, 1), "what": what} for at, what in marks],
        "began": round(result.began, 3),
        "requests": result.requests,
        "own_cpu_share": round(result.cpu_share, 3),
        "machine": {
            "cpus": os.cpu_count(),
            "machine": platform.machine(),
            "python": platform.python_version(),
            "load_1_minute": round(os.getloadavg()[0], 1),
        },
        "conversations": sorted(result.book.conversations()),
    }


def _first_of_each_kind(violations: Sequence[Violation], limit: int) -> list[Violation]:
    taken: Counter[str] = Counter()
    kept = []
    for violation in violations:
        taken[violation.kind] += 1
        if taken[violation.kind] <= limit:
            kept.append(violation)
    return kept


def _spread(seconds: list[float]) -> dict[str, float]:
    shares = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0))
    spread = {name: round(percentile(seconds, share) * 1000, 1) for name, share in shares}
    return {"count": len(seconds), **spread}


def table(told: dict[str, Any]) -> str:
    """The end of a run for people to read."""
    figures, latency = told["figures"], told["latency_ms"]
    lines = ["", f"{'count':>7}  violation", f"{'-' * 7}  {'-' * 60}"]
    for kind, meaning in KINDS.items():
        lines.append(f"{told['counts'][kind]:>7}  {kind.replace('_', ' '):<16} {meaning}")
    lines += ["", f"{'figure':<44} {'value':>12}", f"{'-' * 44} {'-' * 12}"]
    rows: list[tuple[str, Any]] = [
        ("messages sent / acknowledged", f"{figures['sent']} / {figures['acknowledged']}"),
        (
            "stored in those conversations / by the system",
            f"{figures['stored']} / {figures['stored_by_system']}",
        ),
        ("shown to subscribers", figures["shown"]),
        ("… live over WebSocket", figures["live"]),
        ("… by the acknowledgement, to their sender", figures["own_acknowledgement"]),
        ("… by catching up (hole, subscribed, resync)", figures["by_catching_up"]),
        ("… only by the slow poll", figures["only_by_poll"]),
        ("acknowledged per second", told["acknowledged_per_second"]),
        ("longest time without one, s", told["longest_without_acknowledgement_seconds"]),
    ]
    for name, key in (("acknowledged", "sent_to_acknowledged"), ("seen live", "sent_to_seen_live")):
        spread = latency[key]
        rows += [(f"sent to {name}, {share}, ms", spread[share]) for share in ("p50", "p99", "max")]
    rows += [
        ("everybody had seen everything after, s", told["settled_after_seconds"]),
        ("own CPU, share of one core", told["own_cpu_share"]),
        ("compared with the database itself", "yes" if told["compared_with_database"] else "no"),
    ]
    rows += [
        (f"everybody back after s: {each['what']}"[:44], each["everybody_back_after_seconds"])
        for each in told["outages"]
    ]
    lines += [f"{name:<44} {value!s:>12}" for name, value in rows]
    lines += [f"note: {note}" for note in told["notes"]]
    lines.append("")
    for kind, count in told["counts"].items():
        texts = [found["text"] for found in told["violations"] if found["kind"] == kind]
        lines += [f"{kind.upper()}: {text}" for text in texts[:SHOWN_OF_A_KIND]]
        if count > SHOWN_OF_A_KIND:
            lines.append(f"… and {count - SHOWN_OF_A_KIND} more of that kind, see the JSON file")
    if told["verdict"] == "clean":
        lines.append("CLEAN: every message is accounted for.")
    elif told["violations"]:
        lines.append("NOT CLEAN: see the violations above.")
    else:
        lines.append(
            "NOT CLEAN: nothing was acknowledged or shown live, so nothing was proved "
            f"(acknowledged {figures['acknowledged']}, live {figures['live']})."
        )
    return "\n".join(lines)


def plot(result: Result, marks: list[tuple[float, str]]) -> str:
    """Latency over time as SVG: median and 99th percentile of each bucket, logarithmic."""
    times = latencies(result.book)
    width = max(1.0, result.talked_seconds / BUCKETS)
    series = []
    for name, points in (("acknowledged", times.acknowledged), ("seen live", times.seen)):
        buckets: dict[int, list[float]] = defaultdict(list)
        for at, took in points:
            if at >= result.began:
                buckets[int((at - result.began) / width)].append(took * 1000)
        for label, share in (("p50", 0.5), ("p99", 0.99)):
            line = [
                ((number + 0.5) * width, max(0.1, percentile(values, share)))
                for number, values in sorted(buckets.items())
            ]
            series.append(Series(f"sent to {name}, {label}", line))
    shown = [
        Mark(at - result.began, what)
        for at, what in marks
        if 0 <= at - result.began <= result.talked_seconds + 60
    ]
    return line_chart(
        f"Latency by the time of sending, {width:.0f} s each",
        "seconds",
        "milliseconds",
        series,
        marks=shown,
        y_log=True,
    )


def write(
    folder: Path, options: Options, result: Result, marks: list[tuple[float, str]]
) -> dict[str, Any]:
    """Write ledger.json, ledger.svg and acknowledged.tsv into the folder; gives the document."""
    folder.mkdir(parents=True, exist_ok=True)
    told = document(options, result, marks)
    (folder / "ledger.json").write_text(
        json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    (folder / "ledger.svg").write_text(plot(result, marks), encoding="utf-8")
    rows = sorted(
        {
            (answer.conversation_id, answer.stream, answer.seq, answer.client_id, answer.digest)
            for sent in result.book.sent.values()
            for answer in sent.acknowledged
        }
    )
    with (folder / "acknowledged.tsv").open("w", encoding="utf-8") as out:
        out.write("conversation\tstream\tseq\tclient_id\tbody_sha256_16\n")
        out.writelines("\t".join(map(str, row)) + "\n" for row in rows)
    return told
