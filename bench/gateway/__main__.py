"""Measure one gateway process and its peers, one core each, on loopback: `make bench`.

Everything runs in one sitting: the server on one core, the load generator (load.c) and Redis on
another. ``--only`` and ``--peers`` choose a part; then the report is only printed, unless ``--out``
names a folder. Bounded: every step has an end, the whole run takes about 20 minutes.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from app import embedded
from bench.gateway import processes, report
from bench.gateway.processes import KINDS, LIMIT, OURS, BenchFailed
from bench.gateway.work import Work
from tools import environment, pick_mirror, system_packages

PARTS = ("idle", "one_1000", "one_5000", "pairs", "storm", "stalled", "spread")
PAUSE_SECONDS = {OURS: 60.0, LIMIT: 0.0}
PEER_PAUSE_SECONDS = 10.0


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", help=f"of {', '.join(PARTS)}, separated by commas")
    parser.add_argument("--peers", help=f"of {', '.join(KINDS)}; 'none' for {OURS} alone")
    parser.add_argument("--pause-seconds", type=float, help="of the watch for pauses")
    parser.add_argument("--out", type=Path, help="folder to write; none for a part of the whole")
    arguments = parser.parse_args()
    parts = tuple(arguments.only.split(",")) if arguments.only else PARTS
    names = tuple(KINDS)
    if arguments.peers:
        names = (OURS,) if arguments.peers == "none" else tuple(arguments.peers.split(","))
    if unknown := (set(parts) - set(PARTS)) | (set(names) - set(KINDS)):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    out = arguments.out
    if out is None and not arguments.only and not arguments.peers:
        out = report.RESULTS
    load = os.getloadavg()[0]
    began = time.monotonic()
    try:
        if (os.cpu_count() or 1) < 2:
            raise BenchFailed("Two cores are needed: one for the server, one for the rest.")
        if not processes.is_inside():
            system_packages.install(["gateway-bench"])
            processes.build()
            processes.prepare_peers()
        processes.enter_own_network("bench.gateway")
        processes.check_loopback()
        os.sched_setaffinity(0, {int(processes.OTHER_CPU)})  # Redis inherits it
        figures = {}
        with tempfile.TemporaryDirectory(prefix="deskline-bench-") as folder:
            for number, name in enumerate(names, 1):
                with (
                    embedded.private_redis(Path(folder)) as redis_url,
                    (processes.BUILT / "servers.log").open("ab") as log,
                ):

                    def say(text: str, head: str = f"{number}/{len(names)} {name}") -> None:
                        passed = time.monotonic() - began
                        print(f"[{passed:5.0f} s] {head:<16} {text}", flush=True)

                    redis_port = int(redis_url.rpartition(":")[2].partition("/")[0])
                    pause = PAUSE_SECONDS.get(name, PEER_PAUSE_SECONDS)
                    if arguments.pause_seconds is not None:
                        pause = arguments.pause_seconds
                    work = Work(KINDS[name], redis_port, log, say)
                    figures[name] = work.run(frozenset(parts), pause)
    except (
        BenchFailed,
        environment.EnvironmentFailure,
        pick_mirror.NoMirrorReachable,
        system_packages.PackagesMissing,
    ) as failure:
        print(failure, file=sys.stderr)
        return 2
    machine = {
        "date": datetime.now(UTC).date().isoformat(),
        "cpus": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "node": _version("node"),
        "redis": _version("redis-server"),
        "load_1_minute": round(load, 1),
        "minutes": round((time.monotonic() - began) / 60, 1),
    }
    report.write({"machine": machine, "servers": figures}, out)
    return 0


def _version(program: str) -> str:
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "none"
    return done.stdout.strip()[:40]


if __name__ == "__main__":
    sys.exit(main())
