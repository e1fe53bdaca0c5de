"""Build the release archive: `python3 tools/build_release.py`.

Makes `dist/deskline-VERSION.tar.gz`, the one file that the servers get: the Python package, its
locked wheels for every Python that a target may have, and the built web files. A server that has
it needs neither a compiler nor a package index. VERSION is the version of pyproject.toml and a
digest of the content, so the same sources make the same archive, byte for byte, and nothing is
built when it is there. `dist/LATEST` holds the newest archive's name. Standard library only.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import io
import os
import shutil
import sys
import tarfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools import environment, pick_mirror, web_build

ROOT = environment.ROOT
LOCK = environment.LOCKS["app"]
DIST = ROOT / "dist"
WEB_DIST = ROOT / "web" / "dist"
WHEEL_CACHE = ROOT / ".cache" / "wheels"
# Debian 12 has 3.11, Ubuntu 24.04 3.12, Debian 13 3.13.
TARGET_PYTHONS = ("3.11", "3.12", "3.13")
# Debian 12, the oldest target, has glibc 2.36; newest first, as pip prefers them.
PLATFORMS = tuple(
    f"manylinux{tag}_x86_64"
    for tag in ("_2_36", "_2_34", "_2_31", "_2_28", "_2_24", "_2_17", "2014", "_2_12", "_2_5", "1")
)
KEPT_ARCHIVES = 3
# Raise it when the archive's layout changes: it is part of the version's digest.
LAYOUT = "2"


class ReleaseFailure(Exception):
    """The archive could not be built; the text says what to do."""


def files_below(folder: Path, name: str) -> Iterator[tuple[str, Path]]:
    """(name in the archive, file) for each file below FOLDER; compiled Python is left out."""
    for parent, folders, files in os.walk(folder):
        folders[:] = [each for each in folders if each != "__pycache__"]
        for each in files:
            path = Path(parent, each)
            if path.suffix != ".pyc":
                yield f"{name}/{path.relative_to(folder)}", path


def sources() -> dict[str, Path]:
    """What goes in besides the wheels and VERSION: {name in the archive: file}, sorted by name."""
    found = dict(files_below(ROOT / "app", "app"))
    found |= dict(files_below(WEB_DIST, "web"))
    found[LOCK.name] = LOCK
    return dict(sorted(found.items()))


def content_digest(content: dict[str, Path]) -> str:
    """Ten hex digits for CONTENT and for the wheels, which the lock's hashes stand for."""
    digest = hashlib.sha256("\0".join((LAYOUT, *TARGET_PYTHONS, *PLATFORMS)).encode())
    for name, path in content.items():
        executable = bool(path.stat().st_mode & 0o100)
        digest.update(f"\0{name}\0{executable:d}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:10]


def release_version(content: dict[str, Path]) -> str:
    """E.g. `0.1.0+3f2a9c01de`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return f"{project['version']}+{content_digest(content)}"


def lock_without_markers(lock: str) -> str:
    """LOCK with every requirement unconditional.

    pip judges the markers by the interpreter that runs it, not by --python-version, so it would
    leave out what only a target needs (a 3.11.2 needs one package more than a 3.11.9).
    """
    lines = []
    for line in lock.splitlines():
        requirement, marker, _ = line.partition(" ; ")
        lines.append(f"{requirement} \\" if marker else line)
    return "\n".join(lines) + "\n"


def wheels() -> list[Path]:
    """The locked wheels for all targets, downloaded unless an earlier build did; sorted by name."""
    lock = lock_without_markers(LOCK.read_text())
    key = hashlib.sha256("\0".join((lock, *TARGET_PYTHONS, *PLATFORMS)).encode()).hexdigest()[:12]
    folder = WHEEL_CACHE / key
    if not folder.is_dir():
        partial = WHEEL_CACHE / f"{key}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        wanted = WHEEL_CACHE / f"{key}.txt"
        wanted.write_text(lock)
        env = environment.index_environment()
        # The environment that is made without pip (uv makes it) cannot download; this one can.
        python = environment.tool_venv("uv", environment.UV_LOCK, env) / "python"
        for count, target in enumerate(TARGET_PYTHONS, 1):
            print(f"[{count}/{len(TARGET_PYTHONS)}] wheels for Python {target} …", flush=True)
            download_wheels(python, target, wanted, partial, env)
        partial.rename(folder)
        for stale in WHEEL_CACHE.iterdir():
            if stale.name.partition(".")[0] != key:
                shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
    return sorted(folder.glob("*.whl"))


def download_wheels(
    python: Path, target: str, wanted: Path, folder: Path, env: dict[str, str]
) -> None:
    """Download the wheels of WANTED for CPython TARGET into FOLDER. Raises ReleaseFailure."""
    tag = target.replace(".", "")
    tags = [word for name in (f"cp{tag}", "abi3", "none") for word in ("--abi", name)]
    tags += [word for name in PLATFORMS for word in ("--platform", name)]
    try:
        environment.run(
            *(python, "-m", "pip", "download", "-qq", "--no-deps", "--require-hashes"),
            *("--only-binary=:all:", "--implementation=cp", f"--python-version={tag}", *tags),
            *("--requirement", wanted, "--dest", folder),
            env=env,
        )
    except environment.EnvironmentFailure as failure:
        raise ReleaseFailure(
            f"The wheels for Python {target} could not be downloaded. Where the lines above name a"
            " package without a matching distribution, that release of it has no wheel for"
            " Linux x86_64: choose another one in pyproject.toml and run `make lock`."
        ) from failure


def time_of(content: bytes) -> int:
    """A time between 2001 and 2010 that stands for CONTENT, in seconds since 1970.

    Nginx makes a page's ETag of its time and size. With one time for all files, a page whose new
    version has the same length would pass for the old one, which browsers have in their caches.
    """
    return 1_000_000_000 + int(hashlib.sha256(content).hexdigest()[:7], 16)


def add(archive: tarfile.TarFile, name: str, content: bytes, *, executable: bool = False) -> None:
    """Add one file whose entry depends on nothing but its name and CONTENT."""
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    entry.mode = 0o755 if executable else 0o644
    entry.mtime = time_of(content)
    archive.addfile(entry, io.BytesIO(content))


def write_archive(target: Path, version: str, content: dict[str, Path]) -> None:
    """Write TARGET, a gzip-compressed tar of CONTENT and VERSION, the same for the same input."""
    with (
        target.open("wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        add(archive, "VERSION", f"{version}\n".encode())
        for name, path in sorted(content.items()):
            add(archive, name, path.read_bytes(), executable=bool(path.stat().st_mode & 0o100))


def web_files_are_current() -> bool:
    """Whether web/dist is what tools/web_build.py would make of the present sources."""
    stamp = web_build.BUILD_STAMP
    return WEB_DIST.is_dir() and stamp.exists() and stamp.read_text() == web_build.source_digest()


def build() -> tuple[Path, bool]:
    """Give the archive of the present sources, and whether it was built now."""
    if not web_files_are_current():
        raise ReleaseFailure(
            "The web files in web/dist are missing or older than their sources: run"
            " `make release`, which builds them first."
        )
    content = sources()
    version = release_version(content)
    archive = DIST / f"deskline-{version}.tar.gz"
    built = not archive.exists()
    if built:
        begun = time.monotonic()
        found = wheels()
        print(f"Packing {len(content)} files and {len(found)} wheels …", flush=True)
        partial = archive.with_suffix(".partial")
        write_archive(partial, version, content | {f"wheels/{each.name}": each for each in found})
        partial.rename(archive)
        size_mb = archive.stat().st_size / 1e6
        print(f"{size_mb:.0f} MB in {time.monotonic() - begun:.0f} s", flush=True)
    archive.touch()  # the newest by time is the one in use: the oldest ones go
    (DIST / "LATEST").write_text(f"{archive.name}\n")
    made = sorted(DIST.glob("deskline-*.tar.gz"), key=lambda each: each.stat().st_mtime)
    for stale in made[:-KEPT_ARCHIVES]:
        stale.unlink()
    return archive, built


def main() -> int:
    """Entry point; 0 when the archive is there, 2 with one sentence when not."""
    try:
        DIST.mkdir(exist_ok=True)
        with (DIST / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            archive, built = build()
    except (ReleaseFailure, environment.EnvironmentFailure, pick_mirror.NoMirrorReachable) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"release: {'built' if built else 'unchanged'} {archive.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
