"""The ledger through the deployed Nginx while Redis is restarted, a gateway killed, one drained.

Everything is on loopback: a web process and a worker on SQLite, a private Redis, two gateways and
an Nginx that the roles configure (deployed.py). The ledger holds conversations through Nginx,
without the slow poll that would hide a lost event, and accounts for every message; what its people
went through tells how long each fault kept them away. Ends with 0 when every message is accounted
for, everybody came back, and the drain closed nobody before its turn.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx

from app.gateway.drain import LEAST_PER_SECOND
from bench import faults
from bench.faults import Fault, Marks
from bench.gateway import processes
from bench.gateway.deployed import Deployed
from bench.gateway.processes import APP_ID, HOST, KEY, ROOT, SECRET, BenchFailed
from bench.gateway.report import between_marks
from tools import environment, pick_mirror, system_packages

RESULTS: Final = ROOT / "bench" / "results"
PAGE: Final = ROOT / "docs" / "engineers" / "ledger.md"
GATEWAYS: Final = 2
DRAIN_SECONDS: Final = 20
COME_IN_SECONDS: Final = 120.0
AROUND_SECONDS: Final = 240.0
RECONNECT: Final = "closed 4200"


class Whole(Deployed):
    """Besides what is in :class:`Deployed`: a web process and a worker, with the demo's data."""

    def __init__(self, folder: Path, *, sockets: int) -> None:
        self.web_port = processes.free_port()
        self.worker_port = processes.free_port()
        self.database_url = f"sqlite:///{folder}/deskline.db"
        super().__init__(
            folder,
            gateways=GATEWAYS,
            sockets=sockets,
            web_nodes=[f"{HOST}:{self.web_port}"],
            gateway_drain_seconds=DRAIN_SECONDS,
        )
        self.url = f"http://{HOST}:{self.port}"

    def names(self) -> list[str]:
        """What is started, in that order."""
        return ["redis", "web", *self.gateways, "worker", "nginx"]

    def prepare(self) -> None:
        """Write all settings, make the database and the demo's data."""
        self.render()
        settings = {
            "ENV": "demo",
            "DATABASE_URL": self.database_url,
            "REDIS_URL": f"redis://{HOST}:{self.redis_port}/0",
            "SECRET_KEY": secrets.token_urlsafe(48),
            "PUSHER_APP_ID": APP_ID,
            "PUSHER_KEY": KEY,
            "PUSHER_SECRET": SECRET,
            "PUBLIC_URL": self.url,
            "WEB_PORT": str(self.web_port),
            "WORKER_PORT": str(self.worker_port),
            "TRUSTED_PROXIES": HOST,
        }
        lines = "".join(f'DESKLINE_{name}="{value}"\n' for name, value in settings.items())
        for name in ("web", "worker"):
            path = self.folder / f"{name}.env"
            path.touch(mode=0o600)
            path.write_text(lines, encoding="utf-8")
        for verb in ("migrate", "demo"):
            subprocess.run([*self.command("web")[:-1], verb], cwd=ROOT, timeout=60, check=True)

    def ready(self) -> bool:
        """Whether everything may get traffic, seen from this side of Nginx for the web process."""
        try:
            for url in (f"{self.url}/readyz", f"http://{HOST}:{self.worker_port}/readyz"):
                httpx.get(url, timeout=2).raise_for_status()
        except httpx.HTTPError:
            return False
        return super().ready()

    def restarted(self, name: str, what: str, number: signal.Signals, outage: float) -> Fault:
        """The fault that one is sent a signal that ends it, and is started after a while."""

        def strike() -> None:
            self.signal(name, number)
            self.wait(name, DRAIN_SECONDS + 15)

        return Fault(what, strike, lambda: self.start(name), self.ready, outage)

    def plan(self) -> list[Fault]:
        """The three faults."""
        first, second = self.gateways[0], self.gateways[1]
        return [
            self.restarted("redis", "Redis restarted", signal.SIGTERM, 1.0),
            self.restarted(first, "one gateway of two killed with -9", signal.SIGKILL, 2.0),
            self.restarted(second, "the other gateway drained and restarted", signal.SIGTERM, 0.0),
        ]


def run(folder: Path, *, visitors: int, agents: int, rate: float, seconds: float) -> dict[str, Any]:
    """One run; gives the ledger's document with ``problems``. Raises :class:`BenchFailed`."""
    whole = Whole(folder, sockets=2 * (visitors + agents))
    whole.prepare()
    marks = Marks(folder / "marks.jsonl")
    words = [
        *(sys.executable, "-m", "bench.ledger", "--url", whole.url, "--out", str(folder)),
        *("--visitors", str(visitors), "--agents", str(agents), "--rate", str(rate)),
        *("--seconds", str(seconds), "--poll", "0", "--settle", "20", "--until-faults-are-over"),
        *("--marks", str(folder / "marks.jsonl"), "--database-url", whole.database_url),
    ]
    try:
        whole.start_all()
        ledger = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.DEVNULL)
        try:
            began = faults.wait_for_talk(
                marks, seconds=COME_IN_SECONDS, alive=lambda: ledger.poll() is None
            )
            plan = whole.plan()
            troubles = faults.run(plan, marks, began=began, seconds=seconds)
            code = ledger.wait(timeout=AROUND_SECONDS + 3 * seconds)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            raise BenchFailed(str(error)) from None
        finally:
            if ledger.poll() is None:
                ledger.kill()
                ledger.wait(10)
    finally:
        whole.stop()
    document = folder / "ledger.json"
    if not document.exists():
        raise BenchFailed(f"The ledger ended with {code}: see its output above.")
    told: dict[str, Any] = json.loads(document.read_text(encoding="utf-8"))
    told["drain"] = drain_told(folder / f"{whole.gateways[1]}.log")
    told["problems"] = problems(told, code, troubles, [fault.name for fault in plan])
    return told


def drain_told(log: Path) -> dict[str, Any]:
    """What a gateway that was drained wrote of it: sockets, cut_off and seconds."""
    for line in log.read_text(encoding="utf-8").splitlines():
        told: dict[str, Any] = json.loads(line) if line.startswith("{") else {}
        if told.get("event") == "gateway drained":
            return {name: told[name] for name in ("sockets", "cut_off", "seconds")}
    raise BenchFailed("The gateway that was drained does not tell of it.")


def problems(
    told: dict[str, Any], code: int, troubles: Sequence[str], names: Sequence[str]
) -> list[str]:
    """A sentence for each thing that must not be; empty when all was kept."""
    found = [*troubles]
    if code:
        found.append(f"the ledger ended with {code}: {told['counts']}")
    outages = {each["what"]: each for each in told["outages"]}
    for name in names:
        if name not in outages:
            found.append(f"{name}: not in the ledger's report")
        elif outages[name]["everybody_back_after_seconds"] is None:
            found.append(f"{name}: somebody did not come back")
        elif not outages[name]["sockets_closed"] and not outages[name]["resyncs"]:
            found.append(f"{name}: nobody noticed it, so nothing was proved")
    drained = outages.get(names[-1], {})
    if set(drained.get("sockets_closed", {})) != {RECONNECT}:
        found.append(f"the drain: closed otherwise than by its turn: {drained}")
    drain = told["drain"]
    # with a step of the drain to spare
    if drain["cut_off"] or drain["seconds"] + 0.2 < (drain["sockets"] - 1) / LEAST_PER_SECOND:
        found.append(f"the drain: cut off, or too quick: {drain}")
    return found


def write(told: dict[str, Any], plot: Path, folder: Path) -> None:
    """Write gateway-outages.json and gateway-outages.svg; with our own folder, the page's table."""
    left_out = {"conversations", "notes", "violations", "machine"}
    kept = {name: value for name, value in told.items() if name not in left_out}
    kept["machine"] = {
        "date": datetime.now(UTC).date().isoformat(),
        "kernel": platform.release(),
        **told["machine"],
    }
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(kept, indent=1, ensure_ascii=False) + "\n"
    (folder / "gateway-outages.json").write_text(text, encoding="utf-8")
    (folder / "gateway-outages.svg").write_text(plot.read_text(), encoding="utf-8")
    if folder.resolve() == RESULTS:
        between_marks(PAGE, "figures of the outages", table(kept))


def table(told: dict[str, Any]) -> str:
    """The figures for the page."""
    options, figures, counts = told["options"], told["figures"], told["counts"]
    lines = [
        "| | sockets that closed | told to resync | away, p50 / max | everybody back after |",
        "|---|---|---|---|---|",
    ]
    for each in told["outages"]:
        closed = ", ".join(
            f"{number} with {code.removeprefix('closed ')}"
            for code, number in each["sockets_closed"].items()
        )
        away = each["away_seconds"]
        lines.append(
            f"| {each['what']} | {closed or 'none'} | {each['resyncs']} | {away['p50']:.2f} / "
            f"{away['max']:.2f} s | {each['everybody_back_after_seconds']} s |"
        )
    lines += [
        "",
        f"{options['visitors']} visitors and {options['agents']} agents, "
        f"{figures['acknowledged']:,} messages acknowledged and stored, "
        f"{figures['shown']:,} showings ({figures['live']:,} live, "
        f"{figures['by_catching_up']:,} by catching up, none by a poll): "
        f"lost {counts['lost']}, doubled {counts['doubled']}, out of order "
        f"{counts['out_of_order']}, holes {counts['holes']}, never delivered "
        f"{counts['never_delivered']}. {told['machine']['date']}, {told['machine']['cpus']} cores, "
        f"load {told['machine']['load_1_minute']}.",
    ]
    return "\n".join(lines)


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--visitors", type=int, default=60, help="default: %(default)s")
    parser.add_argument("--agents", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--rate", type=float, default=15.0, help="messages a second")
    parser.add_argument("--seconds", type=float, default=75.0, help="default: %(default)s")
    parser.add_argument("--out", type=Path, help="folder to write, as bench/results")
    given = parser.parse_args()
    began = time.monotonic()
    try:
        system_packages.install(["tests"])
        with tempfile.TemporaryDirectory(prefix="deskline-bench-") as folder:
            told = run(
                Path(folder),
                visitors=given.visitors,
                agents=given.agents,
                rate=given.rate,
                seconds=given.seconds,
            )
            if given.out is not None:
                write(told, Path(folder) / "ledger.svg", given.out)
    except (
        BenchFailed,
        environment.EnvironmentFailure,
        pick_mirror.NoMirrorReachable,
        system_packages.PackagesMissing,
    ) as failure:
        print(failure, file=sys.stderr)
        return 2
    print(json.dumps(told["outages"], indent=1))
    print(f"{time.monotonic() - began:.0f} s, load {os.getloadavg()[0]:.1f}")
    print("\n".join(told["problems"]) or "Nothing lost, nothing doubled, everybody back.")
    return 1 if told["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
