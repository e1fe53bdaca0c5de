"""Fuzz what reads bytes of strangers: `python tools/fuzz.py SECONDS`.

Runs tests/gateway/fuzz.py twice at once, with atheris and with hypothesis, both at the lowest
priority, and prints their figures. atheris has wheels for Linux on x86-64 and Python 3.11 to 3.13
only and is 30 MB, so it is in an environment of its own and no part of `make test`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools import environment, pick_mirror

ROOT = environment.ROOT
LOCK = ROOT / "tools" / "requirements-fuzz.txt"
LOGS = ROOT / ".cache"
# A run may take so much longer than asked for: imports, the closing repeats.
LONGER_SECONDS = 300


def start(engine: str, seconds: int, packages: str) -> subprocess.Popen[bytes]:
    """One engine, its output in .cache/fuzz-ENGINE.log."""
    with (LOGS / f"fuzz-{engine}.log").open("wb") as log:
        python = str(environment.VENV / "bin" / "python")
        return subprocess.Popen(
            ["nice", "-n", "19", python, "-m", "tests.gateway.fuzz", engine, str(seconds)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": packages},
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def figures(engine: str) -> str:
    """The closing line of a run, and what libFuzzer counted of the code that was reached."""
    text = (LOGS / f"fuzz-{engine}.log").read_text(errors="replace")
    lines = re.findall(r"^\{.*\}$", text, re.MULTILINE)
    edges = re.findall(r"\bcov: (\d+) ft: (\d+)", text)
    reached = f", edges and features reached: {' and '.join(edges[-1])}" if edges else ""
    return (lines[-1] if lines else "no figures; the end of the log says why") + reached


def main() -> int:
    """Entry point; 0 when no promise was broken."""
    seconds = int(sys.argv[1]) if len(sys.argv) == 2 else 600
    bin_folder = environment.tool_venv("fuzz", LOCK, environment.index_environment())
    packages = next((bin_folder.parent / "lib").glob("python3*/site-packages"))
    engines = ("atheris", "hypothesis")
    running = {engine: start(engine, seconds, str(packages)) for engine in engines}
    failed = []
    try:
        for engine, process in running.items():
            if process.wait(seconds + LONGER_SECONDS):
                failed.append(engine)
            print(f"{engine}: {figures(engine)}", flush=True)
    finally:
        for process in running.values():
            if process.poll() is None:
                process.kill()
                process.wait()
    for engine in failed:
        print(f"{engine} found something: see .cache/fuzz-{engine}.log", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (environment.EnvironmentFailure, pick_mirror.NoMirrorReachable) as failure:
        sys.exit(str(failure))
