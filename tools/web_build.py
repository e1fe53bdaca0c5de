"""Build the web files into web/dist: `python3 tools/web_build.py [--install-only]`.

Uses the machine's Node.js when it is new enough, else one from a Python wheel (.cache/node).
Nothing happens when web/dist was built from the same sources. Standard library only.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools import environment, pick_mirror

ROOT = environment.ROOT
WEB = ROOT / "web"
MODULES = WEB / "node_modules"
BUILD_STAMP = ROOT / ".cache" / "web-build.stamp"
NODE_LOCK = ROOT / "tools" / "requirements-node.txt"
NODE_AT_LEAST = (20, 19)
NOT_SOURCES = {"node_modules", "dist"}


def node_version(node: str) -> tuple[int, ...]:
    """The version of the executable NODE, e.g. (20, 19, 2); () when it does not run."""
    asked = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)
    if asked.returncode:
        return ()
    return tuple(int(part) for part in asked.stdout.strip().lstrip("v").split("-")[0].split("."))


def node_environment() -> dict[str, str]:
    """An environment whose PATH leads to a Node.js and npm that can build."""
    env = dict(os.environ)
    node = shutil.which("node")
    if node and shutil.which("npm") and node_version(node) >= NODE_AT_LEAST:
        return env
    wanted = ".".join(str(part) for part in NODE_AT_LEAST)
    print(f"No Node.js {wanted} or newer here: taking one from a Python wheel …", flush=True)
    bin_folder = environment.tool_venv("node", NODE_LOCK, environment.index_environment())
    env["PATH"] = f"{bin_folder}{os.pathsep}{env.get('PATH', os.defpath)}"
    return env


def source_digest() -> str:
    """The identity of everything that the build reads."""
    digest = hashlib.sha256()
    for folder, names, files in os.walk(WEB):
        names[:] = sorted(name for name in names if name not in NOT_SOURCES)
        for name in sorted(files):
            path = Path(folder, name)
            digest.update(f"{path.relative_to(WEB)}\0{path.stat().st_mode & 0o111}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def install_modules(env: dict[str, str]) -> None:
    """`npm ci`, unless node_modules already is what the lock says."""
    stamp = MODULES / ".deskline-lock"
    wanted = hashlib.sha256((WEB / "package-lock.json").read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print("Installing the web packages (npm ci) …", flush=True)
    environment.run(
        *("npm", "--prefix", WEB, "ci", "--no-audit", "--no-fund", "--loglevel=error"), env=env
    )
    stamp.write_text(wanted)


def build() -> None:
    """Bring web/dist to the sources' state. Raises environment.EnvironmentFailure."""
    digest = source_digest()
    if BUILD_STAMP.exists() and BUILD_STAMP.read_text() == digest and (WEB / "dist").is_dir():
        return
    env = node_environment()
    install_modules(env)
    print("Building the web files …", flush=True)
    BUILD_STAMP.unlink(missing_ok=True)
    environment.run("npm", "--prefix", WEB, "run", "--silent", "build", env=env)
    BUILD_STAMP.parent.mkdir(exist_ok=True)
    BUILD_STAMP.write_text(digest)


def main() -> int:
    """Entry point; 0 when the files are there, 2 with one sentence when not."""
    try:
        if sys.argv[1:] == ["--install-only"]:
            install_modules(node_environment())
        elif sys.argv[1:]:
            print(f"usage: {sys.argv[0]} [--install-only]", file=sys.stderr)
            return 2
        else:
            build()
    except (environment.EnvironmentFailure, pick_mirror.NoMirrorReachable) as failure:
        print(failure, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
