"""Make the project's Python environment: `python3 tools/environment.py app|deploy|dev`.

The three levels are the three locks: `app` is what a server runs, `deploy` adds Ansible, `dev` adds
the tests and checks. Nothing happens when the environment already holds the wanted lock. Runs with
the standard library only, because it runs before anything is installed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools import pick_mirror

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
LOCKS = {
    "app": ROOT / "requirements-app.txt",
    "deploy": ROOT / "requirements.txt",
    "dev": ROOT / "requirements-dev.txt",
}
LEVELS = tuple(LOCKS)
UV_LOCK = ROOT / "tools" / "requirements-uv.txt"
TIMEOUT_SECONDS = 1200


class EnvironmentFailure(Exception):
    """The environment could not be made; the text says what to do."""


def digest(level: str) -> str:
    """The identity of what LEVEL installs: its lock and the interpreter's version."""
    content = LOCKS[level].read_bytes() + UV_LOCK.read_bytes() + sys.version.encode()
    return hashlib.sha256(content).hexdigest()


def is_current(level: str) -> bool:
    """Whether the environment already holds LEVEL or a level that includes it."""
    for candidate in LEVELS[LEVELS.index(level) :]:
        stamp = VENV / f".deskline-{candidate}"
        if stamp.exists() and stamp.read_text() == digest(candidate):
            return (VENV / "bin" / "python").exists()
    return False


def run(*command: str | Path, env: dict[str, str] | None = None) -> None:
    """Run COMMAND, its output to this terminal; a failure is an EnvironmentFailure."""
    done = subprocess.run(
        [str(word) for word in command], cwd=ROOT, env=env, check=False, timeout=TIMEOUT_SECONDS
    )
    if done.returncode:
        raise EnvironmentFailure(
            f"`{' '.join(str(word) for word in command[:4])} …` ended with code {done.returncode};"
            " the lines above say why."
        )


def index_environment() -> dict[str, str]:
    """This process's environment, with the first reachable package index set for pip and uv."""
    env = dict(os.environ)
    index = pick_mirror.python_index()
    env["PIP_INDEX_URL"] = env["UV_DEFAULT_INDEX"] = index
    env.setdefault("UV_SYSTEM_CERTS", "1")
    env["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    return env


def installed_level() -> str | None:
    """The level that an earlier run made, whatever its lock was then."""
    found = [level for level in LEVELS if (VENV / f".deskline-{level}").exists()]
    return found[-1] if found else None


def make(level: str) -> None:
    """Bring `.venv` to LEVEL, or keep the higher one it has. Raises EnvironmentFailure."""
    if importlib.util.find_spec("ensurepip") is None:
        raise EnvironmentFailure(
            "This Python has no ensurepip, so it cannot make a virtual environment: install it"
            " (Debian, Ubuntu: apt-get install python3-venv) and run make again."
        )
    if not os.access(ROOT, os.W_OK):
        raise EnvironmentFailure(
            f"Cannot write in {ROOT}: run make as the folder's owner, or clone it elsewhere."
        )
    level = max(level, installed_level() or level, key=LEVELS.index)
    env = index_environment()
    print(f"Making the Python environment ({level}) in .venv …", flush=True)
    uv = tool_venv("uv", UV_LOCK, env) / "uv"
    python = VENV / "bin" / "python"
    for stamp in VENV.glob(".deskline-*"):
        stamp.unlink()
    if not same_interpreter(python):
        run(sys.executable, "-m", "venv", "--clear", "--without-pip", VENV, env=env)
    run(
        *(uv, "pip", "sync", "--quiet", "--python", python),
        *("--require-hashes", LOCKS[level]),
        env=env,
    )
    (VENV / f".deskline-{level}").write_text(digest(level))


def same_interpreter(python: Path) -> bool:
    """Whether PYTHON exists and is of the version that runs this."""
    if not python.exists():
        return False
    asked = subprocess.run(
        [python, "-c", "import sys; print(sys.version)"],
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.returncode == 0 and asked.stdout.strip() == sys.version


def tool_venv(name: str, lock: Path, env: dict[str, str]) -> Path:
    """The bin folder of `.cache/NAME`, a private environment that holds LOCK; made when missing."""
    folder = ROOT / ".cache" / name
    stamp = folder / ".deskline-lock"
    if not stamp.exists() or stamp.read_bytes() != lock.read_bytes():
        run(sys.executable, "-m", "venv", "--clear", folder, env=env)
        run(
            *(folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--require-hashes"),
            *("-r", lock),
            env=env,
        )
        stamp.write_bytes(lock.read_bytes())
    return folder / "bin"


def main() -> int:
    """Entry point; 0 when the environment is there, 2 with one sentence when not."""
    if len(sys.argv) != 2 or sys.argv[1] not in LOCKS:
        print(f"usage: {sys.argv[0]} {'|'.join(LEVELS)}", file=sys.stderr)
        return 2
    level = sys.argv[1]
    try:
        if not is_current(level):
            make(level)
    except (EnvironmentFailure, pick_mirror.NoMirrorReachable) as failure:
        print(failure, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
