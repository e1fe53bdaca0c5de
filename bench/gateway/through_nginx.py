"""Hold many sockets through Nginx on several gateway processes, with messages flowing.

Everything is on loopback and configured by the roles (deployed.py); as root in a network of its
own, which has the kernel settings of the role base and no way out. The sockets are in pairs, most
of them on two gateways; three generators publish at a steady rate and check every delivery for
loss, doubling and order. Ends with 0 when nobody was dropped and nothing was lost, 1 when not,
2 when it could not be measured. At the end all sockets drop at once and come back.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import yaml

from bench.gateway import processes
from bench.gateway.deployed import Deployed, deployed
from bench.gateway.processes import KINDS, OURS, ROOT, BenchFailed, Generator
from bench.gateway.report import between_marks
from bench.plot import Series, line_chart
from tools import system_packages

Figures = dict[str, Any]

RESULTS: Final = ROOT / "bench" / "results"
GENERATORS: Final = 3
IN_FLIGHT: Final = 60  # handshakes at once, of each generator
INTERVAL_SECONDS: Final = 10.0
SETTLE_SECONDS: Final = 10.0  # how long a delivery may take before it counts as lost
CONNECT_SECONDS: Final = 150.0
CPU_NAMES: Final = (("gateways", "gateway"), ("nginx", "Nginx"), ("redis", "Redis"))
PAGE: Final = ROOT / "docs" / "engineers" / "scaling.md"
COUNTED: Final = ("deliveries", "wanted", "lost", "doubled", "disordered", "strange", "ended")


def as_the_role_sets_it() -> dict[str, str]:
    """Give our own network the kernel settings of the role base; gives those that it has now."""
    defaults = yaml.safe_load((ROOT / "roles/base/defaults/main.yml").read_text(encoding="utf-8"))
    settings = {}
    for name, value in defaults["base_sysctl_network"].items():
        path = Path("/proc/sys") / name.replace(".", "/")
        path.write_text(f"{value}\n", encoding="ascii")
        settings[name] = " ".join(path.read_text(encoding="ascii").split())
    return settings


@contextmanager
def generator(one: Deployed, number: int) -> Iterator[Generator]:
    """A load generator that comes through Nginx, on whatever core is free."""
    everywhere = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    kind = KINDS[OURS]
    words = [str(processes.BUILT / "load"), str(one.port), str(one.redis_port), str(number)]
    words += [kind.dialect, kind.path, processes.KEY, processes.SECRET, processes.TOPIC_PREFIX]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with processes.running(words, cpu=everywhere, **pipes) as process:
        yield Generator(process)


class Measurement:
    """One run. ``say`` shows a line of progress."""

    def __init__(self, one: Deployed, sockets: int, say: Callable[[str], None]) -> None:
        self._one = one
        self._sockets = sockets
        self._say = say
        self._loads: list[Generator] = []

    def run(self, seconds: float, deliveries_per_second: float) -> Figures:
        """Open, hold while messages flow, count, storm."""
        before = self._memory()
        with ExitStack() as stack:
            self._loads = [
                stack.enter_context(generator(self._one, number)) for number in range(GENERATORS)
            ]
            figures: Figures = {"opened": self._open()}
            figures["intervals"] = self._hold(seconds, deliveries_per_second, figures)
            figures["memory"] = self._memory_figures(before)
            figures["total"] = self._total(figures["intervals"])
            figures["of_gateways"] = self._gateways()
            figures["nginx_complaints"] = self._one.complaints()
            figures["storm"] = self._storm()
        return figures

    def _all(self, commands: list[str], seconds: float) -> list[Figures]:
        """Give each generator its command, then wait for all answers."""
        for load, command in zip(self._loads, commands, strict=True):
            load.tell(command)
        return [load.answer(seconds) for load in self._loads]

    def _cpu(self) -> dict[str, float]:
        pids = {"nginx": ["nginx"], "gateways": self._one.gateways, "redis": ["redis"]}
        return {
            kind: sum(processes.cpu_seconds(self._one.pid(name)) for name in names)
            for kind, names in pids.items()
        }

    def _cpu_each(self, before: dict[str, float], count: float) -> dict[str, float]:
        return {
            kind: round((used - before[kind]) / max(count, 1) * 1e6, 1)
            for kind, used in self._cpu().items()
        }

    def _open(self) -> Figures:
        # pairs: an even number for each generator
        each = self._sockets // GENERATORS // 2 * 2
        counts = [each] * (GENERATORS - 1) + [self._sockets - each * (GENERATORS - 1)]
        cpu, started = self._cpu(), time.monotonic()
        answers = self._all([f"connect {n} {IN_FLIGHT} pairs" for n in counts], CONNECT_SECONDS)
        took = time.monotonic() - started
        opened, failed = (sum(answer[name] for answer in answers) for name in ("open", "failed"))
        self._say(f"{opened:,} sockets subscribed in {took:.1f} s, {failed} attempts failed")
        if opened != self._sockets:
            raise BenchFailed(f"{opened} of {self._sockets} sockets could be subscribed.")
        return {
            "seconds": round(took, 2),
            "per_second": round(opened / took),
            "failed_attempts": failed,
            "cpu_us_each": self._cpu_each(cpu, opened),
        }

    def _hold(self, seconds: float, rate: float, figures: Figures) -> list[Figures]:
        intervals: list[Figures] = []
        cpu, started = self._cpu(), time.monotonic()
        command = f"run {rate / 2 / GENERATORS:.3f} {{:.3f}} {SETTLE_SECONDS} 0"
        while (left := seconds - (time.monotonic() - started)) > 0.5:
            length = min(INTERVAL_SECONDS, left)
            answers = self._all([command.format(length)] * GENERATORS, length + 60)
            states = self._all(["status"] * GENERATORS, 30)
            interval: Figures = {
                "at": round(time.monotonic() - started, 1),
                "open": sum(state["open"] for state in states),
                "deliveries_per_second": round(
                    sum(answer["deliveries"] / answer["seconds"] for answer in answers)
                ),
                # of the worst generator
                **{name: max(answer[name] for answer in answers)
                   for name in ("p50_ms", "p99_ms", "max_ms")},
                "overloaded": any(answer["overloaded"] for answer in answers),
                **{name: sum(answer[name] for answer in answers) for name in COUNTED},
            }  # fmt: skip
            intervals.append(interval)
            self._say(
                f"{interval['open']:,} open, {interval['deliveries_per_second']:,} deliveries/s, "
                f"p99 {interval['p99_ms']:.1f} ms, lost {interval['lost']}, "
                f"dropped {interval['ended']}"
            )
        delivered = sum(interval["deliveries"] for interval in intervals)
        figures["cpu_us_per_delivery"] = self._cpu_each(cpu, delivered)
        took = time.monotonic() - started
        figures["cpu_share_while_held"] = {
            kind: round((used - cpu[kind]) / took, 3) for kind, used in self._cpu().items()
        }
        return intervals

    def _total(self, intervals: list[Figures]) -> Figures:
        total: Figures = {name: sum(each[name] for each in intervals) for name in COUNTED}
        total["seconds"] = intervals[-1]["at"]
        total["open_at_the_end"] = intervals[-1]["open"]
        total["p99_ms_worst_interval"] = max(each["p99_ms"] for each in intervals)
        total["max_ms"] = max(each["max_ms"] for each in intervals)
        return total

    def _gateways(self) -> list[Figures]:
        wanted = ("connections", "deliveries_total", "slow_readers_total")
        found = []
        for name in self._one.gateways:
            metrics = self._one.metrics(name)
            found.append({
                each: metrics[full]
                for each in wanted
                if (full := f"deskline_gateway_{each}") in metrics
            })  # fmt: skip
        return found

    def _storm(self) -> Figures:
        cpu, started = self._cpu(), time.monotonic()
        answers = self._all(["storm"] * GENERATORS, CONNECT_SECONDS)
        took = time.monotonic() - started
        opened = sum(answer["open"] for answer in answers)
        self._say(f"storm: {opened:,} of {self._sockets:,} back and subscribed after {took:.1f} s")
        return {
            "back": opened,
            "seconds": round(took, 2),
            "per_second": round(opened / took),
            "cpu_us_each": self._cpu_each(cpu, opened),
        }

    # --- memory

    def _memory(self) -> Figures:
        """Bytes, now; what Nginx's workers share is counted in parts."""
        workers = processes.tree(self._one.pid("nginx"))[1:]
        return {
            "gateways": [processes.resident_bytes(self._one.pid(g)) for g in self._one.gateways],
            "nginx_workers": [_proportional_bytes(pid) for pid in workers],
            "redis": processes.resident_bytes(self._one.pid("redis")),
            "kernel_slab": _kernel_bytes("Slab"),
        }

    def _memory_figures(self, before: Figures) -> Figures:
        now = self._memory()
        count = self._sockets

        def each(kind: str) -> int:
            return round((_total(now[kind]) - _total(before[kind])) / count)

        return {
            "before": before,
            "held": now,
            "bytes_per_socket": {
                "gateway": each("gateways"),
                "nginx": each("nginx_workers"),
                "redis": each("redis"),
                # four ends of two connections are on this machine: client, Nginx twice, gateway
                "kernel_slab_of_four_ends": each("kernel_slab"),
            },
        }


def _total(value: int | list[int]) -> int:
    return sum(value) if isinstance(value, list) else value


def _proportional_bytes(pid: int) -> int:
    """The PSS of a process: what it shares with others is counted in parts (proc(5), smaps)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise BenchFailed(f"/proc/{pid}/smaps_rollup tells no Pss.")


def _kernel_bytes(name: str) -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise BenchFailed(f"/proc/meminfo tells no {name}.")


def measure(
    sockets: int, seconds: float, rate: float, gateways: int, say: Callable[[str], None]
) -> Figures:
    """All of it, with the parts that it needs. Raises :class:`BenchFailed`."""
    processes.check_loopback()
    processes.build()
    with (
        tempfile.TemporaryDirectory(prefix="deskline-bench-") as folder,
        deployed(Path(folder), gateways=gateways, sockets=sockets) as one,
    ):
        figures = Measurement(one, sockets, say).run(seconds, rate)
        return {
            "machine": {
                "date": datetime.now(UTC).date().isoformat(),
                "cpus": os.cpu_count(),
                "kernel": platform.release(),
                "python": platform.python_version(),
                "load_1_minute": round(os.getloadavg()[0], 1),
            },
            "settings": {
                "sockets": sockets,
                "gateways": gateways,
                "nginx_workers": one.workers,
                "open_files_of_a_process": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
                "deliveries_per_second_wanted": rate,
            },
            **figures,
        }


def problems(figures: Figures) -> list[str]:
    """A sentence for each thing that must not be; empty when all was kept."""
    total = figures["total"]
    found = [
        f"{what}: {total[name]}"
        for name, what in (
            ("ended", "sockets dropped"),
            ("lost", "deliveries lost"),
            ("doubled", "deliveries doubled"),
            ("disordered", "deliveries out of order"),
            ("strange", "frames that nobody sent"),
        )
        if total[name]
    ]
    if total["open_at_the_end"] != figures["settings"]["sockets"]:
        found.append(f"open at the end: {total['open_at_the_end']}")
    if not total["deliveries"] or total["deliveries"] != total["wanted"]:
        found.append(f"delivered {total['deliveries']} of {total['wanted']}")
    if figures["storm"]["back"] != figures["settings"]["sockets"]:
        found.append(f"came back after the storm: {figures['storm']['back']}")
    found += [f"Nginx: {line}" for line in figures["nginx_complaints"][:5]]
    return found


def plot(figures: Figures) -> str:
    """Sockets, deliveries a second and p99 over time, on one logarithmic axis."""
    names = (
        ("open", "sockets open"),
        ("deliveries_per_second", "deliveries/s"),
        ("p99_ms", "p99 of a delivery, ms"),
    )
    series = [
        Series(text, [(each["at"], max(each[name], 0.1)) for each in figures["intervals"]])
        for name, text in names
    ]
    settings = figures["settings"]
    title = f"{settings['sockets']:,} sockets through Nginx on {settings['gateways']} gateways"
    return line_chart(title, "seconds", "see the names", series, y_log=True)


def write(figures: Figures, folder: Path) -> None:
    """Write through-nginx.json and through-nginx.svg; with our own folder, the page's table too."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(figures, indent=1) + "\n"
    (folder / "through-nginx.json").write_text(text, encoding="utf-8")
    (folder / "through-nginx.svg").write_text(plot(figures), encoding="utf-8")
    if folder.resolve() == RESULTS:
        between_marks(PAGE, "figures of many sockets", table(figures))


def table(figures: Figures) -> str:
    """The figures for the page."""
    total, each, settings = (
        figures["total"],
        figures["memory"]["bytes_per_socket"],
        figures["settings"],
    )
    held, machine = figures["memory"]["held"], figures["machine"]
    early = sum(interval["overloaded"] for interval in figures["intervals"])
    ends = each["kernel_slab_of_four_ends"]
    slow = sum(interval["p99_ms"] > 100 for interval in figures["intervals"])

    def cpu(of: Figures) -> str:
        return ", ".join(f"{of[kind]:.0f} {name}" for kind, name in CPU_NAMES)

    rows = [
        ("sockets held for", f"{settings['sockets']:,} for {total['seconds']:.0f} s"),
        ("gateways, workers of Nginx", f"{settings['gateways']}, {settings['nginx_workers']}"),
        ("dropped", f"{total['ended']:,}"),
        ("deliveries wanted, made", f"{total['wanted']:,}, {total['deliveries']:,}"),
        ("lost, doubled, out of order", " ".join(
            f"{total[name]:,}" for name in ("lost", "doubled", "disordered"))),
        (
            "intervals, with p99 over 100 ms, ended early",
            f"{len(figures['intervals'])}, {slow}, {early}",
        ),
        ("opened and subscribed", f"{figures['opened']['per_second']:,} a second"),
        ("CPU of that, µs each", cpu(figures["opened"]["cpu_us_each"])),
        ("CPU of a delivery, µs", cpu(figures["cpu_us_per_delivery"])),
        ("resident memory of each gateway", " ".join(_mb(one) for one in held["gateways"])),
        ("of each worker of Nginx", " ".join(_mb(one) for one in held["nginx_workers"])),
        ("of Redis", _mb(held["redis"])),
        ("for each socket: gateway, Nginx, Redis", ", ".join(
            f"{each[kind] / 1000:.1f} KB" for kind in ("gateway", "nginx", "redis"))),
        ("the kernel, for each of its four ends", f"{ends / 4000:.1f} KB"),
        ("storm: all back and subscribed", f"{figures['storm']['back']:,} of "
            f"{settings['sockets']:,} after {figures['storm']['seconds']:.1f} s"),
    ]  # fmt: skip
    lines = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows), ""]
    lines.append(
        f"{machine['date']}, {machine['cpus']} cores, kernel {machine['kernel']}, load of the "
        f"machine at the end {machine['load_1_minute']}."
    )
    return "\n".join(lines)


def _mb(value: float) -> str:
    return f"{value / 1e6:.0f} MB"


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sockets", type=int, default=40_000, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=600.0, help="default: %(default)s")
    parser.add_argument("--rate", type=float, default=2_000.0, help="deliveries a second")
    parser.add_argument("--gateways", type=int, default=3, help="processes, default: %(default)s")
    parser.add_argument("--out", type=Path, help="folder to write, as bench/results")
    given = parser.parse_args()
    if not 2 * GENERATORS <= given.sockets <= GENERATORS * processes.MAX_OPEN_PER_PROCESS:
        parser.error(f"--sockets: from {2 * GENERATORS} to {3 * processes.MAX_OPEN_PER_PROCESS}")
    if given.sockets % 2:
        parser.error("--sockets: they come in pairs, so give an even number")
    try:
        if not processes.is_inside():
            system_packages.install(["gateway-bench", "tests"])
            processes.build()
    except (BenchFailed, system_packages.PackagesMissing) as missing:
        print(missing, file=sys.stderr)
        return 2
    processes.enter_own_network("bench.gateway.through_nginx")
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:5.0f} s] {text}", flush=True)

    try:
        kernel = as_the_role_sets_it() if processes.is_inside() else {}
        figures = measure(given.sockets, given.seconds, given.rate, given.gateways, say)
    except BenchFailed as failure:
        print(failure, file=sys.stderr)
        return 2
    figures["settings"]["kernel"] = kernel
    found = problems(figures)
    figures["problems"] = found
    if given.out is not None:
        write(figures, given.out)
    shown = {name: figures[name] for name in figures if name not in ("intervals", "memory")}
    print(
        json.dumps({**shown, "bytes_per_socket": figures["memory"]["bytes_per_socket"]}, indent=1)
    )
    print("\n".join(found) or "Nobody was dropped, nothing was lost, doubled or out of order.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
