"""Run every check of the project: `python3 tools/run_tests.py [--only lint,unit,…]`.

Installs what the checks need, runs the stages in lanes at the same time (what needs the test
machines, which often waits, and the rest), shows their output as it comes (and keeps it in
test-results/), and ends with one table: what ran, how long it took, what was left out and why.
With CI=true a part that cannot run is a failure. Standard library only.
"""

from __future__ import annotations

import argparse
import os
import re
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools import environment, pick_mirror, system_packages, web_build

ROOT = environment.ROOT
RESULTS = ROOT / "test-results"
BIN = ROOT / ".venv" / "bin"
CI = os.environ.get("CI") == "true"
HEARTBEAT_SECONDS = 30
# how often a stage looks whether it should end, and an unfinished line waits to be shown
LOOK_SECONDS = 1
# of a failed stage, under the closing table
LAST_LINES = 20
WIDTH = 300
LANES = ("here", "machines", "faces", "one machine")
LB_ADDRESS = "10.83.7.11"
LOCAL = ("-i", "inventories/local")
DOWN = (*LOCAL, "playbooks/local_down.yml", "-e", "local_machines_remove_all=true")


class StageFailed(Exception):
    """A step of a stage did not do what it must; the text says which."""


class LeftOut(Exception):
    """A stage cannot run on this machine; the text says why."""


@dataclass
class Stage:
    """One row of the closing table. `run` gets the stage and calls its steps."""

    name: str
    what: str
    run: Callable[[Stage], None]
    lane: str = "here"  # one of LANES, or alone: after them, with nothing beside it
    always: bool = False  # runs although an earlier stage failed (clearing up)
    needs: tuple[str, ...] = ()  # stages without which this one means nothing
    after: str = ""  # a stage of another lane that has to end first
    outcome: str = "not run"
    detail: str = ""
    seconds: float = 0.0
    counts: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def step(
        self,
        *command: str | Path,
        env: dict[str, str] | None = None,
        timeout_seconds: int = 900,
        cwd: Path = ROOT,
    ) -> str:
        """Run COMMAND, show and keep its output, return it; a bad exit is StageFailed."""
        words = [str(word) for word in command]
        shown = " ".join(word.replace(f"{ROOT}/", "") for word in words)
        SCREEN.show(self.name, f"\033[1m{shown}\033[0m")
        output = stream(
            words,
            env=os.environ | {"PYTHONUNBUFFERED": "1"} | (env or {}),
            cwd=cwd,
            log=RESULTS / f"{self.name}.log",
            timeout_seconds=timeout_seconds,
            who=self.name,
        )
        self.counts += re.findall(r"=+ (\d+ passed[^=]*?) in [\d.]+s", output)
        return output


class Screen:
    """The terminal that the lanes share: whole lines, each with the name of its stage."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def show(self, who: str, text: str) -> None:
        """Print the lines of TEXT; the last one need not be ended."""
        with self._lock:
            for line in text.splitlines():
                sys.stdout.write(f"[{who}] {line}\n")
            sys.stdout.flush()


SCREEN = Screen()
STOPPING = threading.Event()


def stream(
    words: list[str],
    *,
    env: dict[str, str],
    cwd: Path,
    log: Path,
    timeout_seconds: int,
    who: str,
) -> str:
    """Run WORDS in a session of their own with the output shown as it comes, and return it."""
    begun = time.monotonic()
    process = subprocess.Popen(
        words,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None  # noqa: S101  PIPE was asked for
    kept: list[str] = []
    unfinished = ""
    try:
        with log.open("a", encoding="utf-8") as sink, selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            last_sign = begun
            while True:
                now = time.monotonic()
                if STOPPING.is_set():
                    raise StageFailed("interrupted")
                if now - begun > timeout_seconds:
                    raise StageFailed(f"`{words[0]}` took longer than {timeout_seconds} s")
                if not selector.select(timeout=LOOK_SECONDS):
                    if now - last_sign > HEARTBEAT_SECONDS:
                        # the dots of a row of tests, if there are some
                        SCREEN.show(who, unfinished or f"running for {now - begun:.0f} s …")
                        unfinished, last_sign = "", now
                    continue
                chunk = os.read(process.stdout.fileno(), 65536)
                if not chunk:
                    break
                last_sign = now
                text = chunk.decode(errors="replace")
                kept.append(text)
                sink.write(text)
                whole, newline, unfinished = (unfinished + text).rpartition("\n")
                SCREEN.show(who, whole + newline)
        code = process.wait(timeout=30)
    finally:
        SCREEN.show(who, unfinished)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if code:
        raise StageFailed(f"`{Path(words[0]).name} {' '.join(words[1:4])}` ended with code {code}")
    return "".join(kept)


# The stages -----------------------------------------------------------------------------------


INSTALLING = threading.Lock()  # dpkg has one of its own and refuses the second


def install(group: str) -> None:
    """Install the system packages of GROUP; LeftOut when they cannot be had."""
    with INSTALLING:
        try:
            system_packages.install([group])
        except system_packages.PackagesMissing as missing:
            raise LeftOut(str(missing)) from missing


def prepare(stage: Stage) -> None:
    """System packages, the Python environment, the web build."""
    python = sys.executable
    stage.step(python, "tools/environment.py", "dev")
    stage.step(python, "tools/web_build.py")
    try:
        install("tests")
    except LeftOut as missing:
        stage.detail = str(missing)
        if CI:
            raise
        SCREEN.show(stage.name, str(missing))


def npm(stage: Stage, script: str) -> None:
    """Run the npm SCRIPT of web/."""
    stage.step(
        *("npm", "--prefix", "web", "run", "--silent", script), env=web_build.node_environment()
    )


def lint(stage: Stage) -> None:
    """Every static check; all of them run, then the failed ones are named."""
    python_trees = ("app", "tools", "tests", "bench")
    checks: list[tuple[str, Callable[[], object]]] = [
        ("ruff", lambda: stage.step(BIN / "ruff", "check", *python_trees)),
        ("ruff format", lambda: stage.step(BIN / "ruff", "format", "--check", *python_trees)),
        ("mypy", lambda: stage.step(BIN / "mypy")),
        ("import-linter", lambda: stage.step(BIN / "lint-imports", "--no-cache")),
        ("yamllint", lambda: stage.step(BIN / "yamllint", "--strict", ".")),
        ("ansible-lint", lambda: stage.step(BIN / "ansible-lint", "--strict", "--offline")),
        ("eslint", lambda: npm(stage, "lint")),
        ("vue-tsc", lambda: npm(stage, "typecheck")),
        ("generated docs", lambda: stage.step(BIN / "python", "tools/docs.py", "--check")),
    ]
    failed = []
    for name, check in checks:
        try:
            check()
        except StageFailed:
            failed.append(name)
    if failed:
        raise StageFailed(f"not clean: {', '.join(failed)}")
    stage.detail = f"{len(checks)} checks clean"


def pytest(stage: Stage, *arguments: str, env: dict[str, str] | None = None) -> None:
    """Run pytest; a run that selected no test is a failure (exit code 5)."""
    stage.step(BIN / "python", "-m", "pytest", *arguments, env=env, timeout_seconds=1500)


def unit(stage: Stage) -> None:
    """Tests that need no server of ours, and the web's own."""
    pytest(stage, "tests/unit", "tests/static")
    npm(stage, "test")


def mysql(stage: Stage) -> None:
    """Tests on a real MySQL primary and replica: failures, delays, many writers at once."""
    install("mysql")
    if os.geteuid() != 0:
        raise LeftOut("not root: unpacking a private MySQL needs it (sudo make test)")
    stage.step(BIN / "python", "tools/private_mysql.py", "prepare")
    pytest(stage, "tests/mysql")


def run_cold(stage: Stage) -> None:
    """`make run` from a fresh clone, timed, then a second time, then its refusals."""
    pytest(stage, "tests/run", "-s")


def lxc_or_left_out() -> None:
    """Raise LeftOut with the reason where the local cluster cannot be made."""
    if os.geteuid() != 0:
        raise LeftOut("not root: system containers need it (sudo make test)")
    install("cluster")


def playbook(stage: Stage, *arguments: str, timeout_seconds: int = 1500) -> str:
    """Run ansible-playbook; returns its output."""
    return stage.step(
        BIN / "ansible-playbook",
        *arguments,
        env={"ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"},
        timeout_seconds=timeout_seconds,
    )


RECAP = re.compile(
    r"^(?P<host>\S+)\s+: ok=(?P<ok>\d+)\s+changed=(?P<changed>\d+)"
    r"\s+unreachable=(?P<unreachable>\d+)\s+failed=(?P<failed>\d+)",
    re.MULTILINE,
)


def recap(output: str) -> dict[str, dict[str, int]]:
    """The PLAY RECAP of OUTPUT: {host: {ok, changed, unreachable, failed}}."""
    return {
        found["host"]: {key: int(found[key]) for key in ("ok", "changed", "unreachable", "failed")}
        for found in RECAP.finditer(output)
    }


def must_not_change(output: str, *, hosts_at_least: int) -> None:
    """Raise StageFailed unless the recap names enough hosts and none changed or failed."""
    rows = recap(output)
    if len(rows) < hosts_at_least:
        raise StageFailed(f"the recap names {len(rows)} hosts, expected {hosts_at_least} or more")
    bad = {
        host: row
        for host, row in rows.items()
        if row["changed"] or row["failed"] or row["unreachable"]
    }
    if bad:
        raise StageFailed(f"a second run must change nothing, but: {bad}")


def cluster_up(stage: Stage) -> None:
    """The machines, from nothing; a dry run on them while they are fresh; the deployment."""
    lxc_or_left_out()
    # What an earlier checkout left running has other secrets than this one.
    playbook(stage, *DOWN)
    stage.step(BIN / "python", "tools/build_release.py")
    playbook(stage, *LOCAL, "playbooks/local_up.yml")
    playbook(stage, *LOCAL, "site.yml", "--check", "--diff")
    playbook(stage, *LOCAL, "site.yml")


def cluster_again(stage: Stage) -> None:
    """A second run and a dry run of the deployment change nothing."""
    must_not_change(playbook(stage, *LOCAL, "site.yml"), hosts_at_least=8)
    must_not_change(playbook(stage, *LOCAL, "site.yml", "--check", "--diff"), hosts_at_least=8)
    stage.detail = "changed=0 on every host, twice"


def cluster_tests(stage: Stage) -> None:
    """testinfra on the machines, then the API and browser tests through their Nginx."""
    pytest(stage, "tests/cluster")


def cluster_faces(stage: Stage) -> None:
    """The API and browser tests of the embedded mode, through the cluster's Nginx."""
    way = stage.step("ip", "route", "get", LB_ADDRESS)
    if "dev deskline0" not in way:
        raise StageFailed("the balancer's address does not lead to the bridge: nothing is sent")
    url = f"http://{LB_ADDRESS}"
    pytest(stage, "tests/api", "tests/e2e", env={"DESKLINE_TEST_URL": url})


def cluster_down(stage: Stage) -> None:
    """Remove the machines, twice: the second time finds nothing and is fine."""
    lxc_or_left_out()
    playbook(stage, *DOWN)
    playbook(stage, *DOWN)
    pytest(stage, "tests/local")


def single(stage: Stage) -> None:
    """Molecule: everything on one machine, converge, idempotence, verify, destroy."""
    lxc_or_left_out()
    stage.step(
        *(BIN / "molecule", "test", "--scenario-name", "single"),
        # molecule looks for ansible-playbook on the path
        env={"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"},
        timeout_seconds=1500,
    )


def stages() -> list[Stage]:
    """All stages, in the order in which they run."""

    def tests(*arguments: str) -> Callable[[Stage], None]:
        return lambda stage: pytest(stage, *arguments)

    machines: dict[str, Any] = {"lane": "machines", "needs": ("cluster-up",)}
    return [
        Stage("prepare", "environment, web build, system packages", prepare),
        Stage("lint", "static checks: Python, Ansible, web", lint),
        Stage("unit", "pytest tests/unit tests/static, vitest", unit),
        Stage("api", "HTTP API against the embedded mode", tests("tests/api")),
        Stage("mysql", "real MySQL primary and replica", mysql),
        Stage("contract", "schemathesis as each role", tests("tests/contract")),
        Stage("gateway", "gateway, real Redis, real clients", tests("tests/gateway")),
        Stage("ledger", "every message accounted for", tests("tests/ledger")),
        Stage("browser", "Chromium against the embedded mode", tests("tests/e2e")),
        Stage("cluster-up", "8 machines, --check, site.yml", cluster_up, lane="machines"),
        Stage("cluster-again", "site.yml again, --check --diff", cluster_again, **machines),
        # a second run of the deployment must not disturb those who use it
        Stage(
            *("cluster-faces", "API and Chromium through Nginx", cluster_faces, "faces"),
            needs=("cluster-up",),
            after="cluster-up",
        ),
        Stage(
            *("chaos", "ledger while parts break", tests("tests/chaos", "-s")),
            after="cluster-faces",
            **machines,
        ),
        Stage("cluster", "testinfra, failures, bootstrap", cluster_tests, **machines),
        # on the same bridge, which cluster-up makes anew
        Stage("single", "molecule: all on one", single, "one machine", after="cluster-again"),
        # its promises are seconds
        Stage("run", "`make run` in a fresh clone", run_cold, lane="alone"),
        Stage("cluster-down", "every trace removed, twice", cluster_down, "alone", always=True),
    ]


def execute(stage: Stage, failed: set[str]) -> None:
    """Run one stage and note how it went."""
    missing = [need for need in stage.needs if need in failed]
    if missing:
        stage.outcome, stage.detail = "FAILED", f"not run: {', '.join(missing)} did not succeed"
        return
    begun = time.monotonic()
    try:
        stage.run(stage)
        stage.outcome = "ok"
    except LeftOut as reason:
        stage.outcome, stage.detail = ("FAILED" if CI else "left out"), str(reason)
    except (StageFailed, subprocess.TimeoutExpired) as failure:
        stage.outcome, stage.detail = "FAILED", str(failure)
    stage.seconds = time.monotonic() - begun


def run_lane(lane: list[Stage], failed: set[str]) -> None:
    """Run the stages of one lane; those that failed are added to FAILED, which lanes share."""
    for stage in lane:
        if STOPPING.is_set():
            return
        if "prepare" in failed and not stage.always:
            stage.outcome, stage.detail = "FAILED", "not run: prepare did not succeed"
        else:
            execute(stage, failed)
        if stage.outcome != "ok":
            failed.add(stage.name)
        stage.ended.set()


def run_all(chosen: list[Stage]) -> None:
    """Prepare; then the lanes at the same time; then what wants to be alone."""
    failed: set[str] = set()
    by_name = {stage.name: stage for stage in chosen}

    def lane(name: str) -> list[Stage]:
        return [stage for stage in chosen if stage.lane == name and stage.name != "prepare"]

    def waiting(stages_here: list[Stage]) -> None:
        for stage in stages_here:
            if stage.after in by_name:
                while not by_name[stage.after].ended.wait(LOOK_SECONDS):
                    if STOPPING.is_set():
                        return
            run_lane([stage], failed)

    run_lane([by_name["prepare"]], failed)
    with ThreadPoolExecutor(len(LANES)) as pool:
        lanes = [pool.submit(waiting, lane(name)) for name in LANES]
        try:
            for running in lanes:
                running.result()
        except BaseException:
            STOPPING.set()
            raise
    run_lane(lane("alone"), failed)


def table(rows: list[Stage], seconds: float) -> str:
    """The closing table, one line a stage; SECONDS is how long all of it took."""
    lines = [f"{'stage':<14} {'outcome':<9} {'time':>7}  what"]
    for row in rows:
        note = "; ".join(filter(None, [row.detail, *row.counts]))
        took = f"{row.seconds // 60:.0f}:{row.seconds % 60:04.1f}" if row.seconds else "-"
        lines.append(f"{row.name:<14} {row.outcome:<9} {took:>7}  {row.what}")
        if note:
            lines.append(f"{'':<33} {note}")
    lines.append(f"{'all':<14} {'':<9} {seconds // 60:.0f}:{seconds % 60:04.1f}  in lanes")
    return "\n".join(lines)


def last_words(stage: Stage) -> list[str]:
    """What a failed stage said of its failures, then the end of its log: lines to print."""
    log = RESULTS / f"{stage.name}.log"
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    named = [line for line in lines if re.match(r"(FAILED|ERROR|E  |fatal:)", line)]
    return [
        f"[{stage.name}] {line[:WIDTH]}"
        for line in [*named[-LAST_LINES:], "… and at the end:", *lines[-LAST_LINES:]]
    ]


def main() -> int:
    """Entry point: 0 when everything that had to run was fine."""
    every = stages()
    names = [stage.name for stage in every]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", help=f"comma list of: {', '.join(names)}")
    arguments = parser.parse_args()
    wanted = arguments.only.split(",") if arguments.only else names
    unknown = [name for name in wanted if name not in names]
    if unknown:
        parser.error(f"no stage {', '.join(unknown)}; there are: {', '.join(names)}")
    RESULTS.mkdir(exist_ok=True)
    for log in RESULTS.glob("*.log"):
        log.unlink()
    chosen = [stage for stage in every if stage.name in wanted or stage.name == "prepare"]
    begun = time.monotonic()
    try:
        run_all(chosen)
    except pick_mirror.NoMirrorReachable as failure:
        print(failure, file=sys.stderr)
        return 2
    finally:
        print(f"\n{table(chosen, time.monotonic() - begun)}", flush=True)
    failed = [stage for stage in chosen if stage.outcome == "FAILED"]
    print("\n".join(line for stage in failed for line in last_words(stage)))
    bad = [stage.name for stage in failed]
    good = [stage.name for stage in chosen if stage.outcome == "ok"]
    if bad:
        print(f"\nFAILED: {', '.join(bad)} (output: {RESULTS.name}/<stage>.log)")
    print(f"stages: {len(good)} passed, {len(bad)} failed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
