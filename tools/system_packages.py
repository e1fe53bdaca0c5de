"""Install the system packages of the named lists: `python3 tools/system_packages.py cluster tests`.

A list is tools/packages-NAME.txt, one Debian package a line. As root missing ones are installed by
the package manager; otherwise one sentence says what to install. Standard library only.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
TIMEOUT_SECONDS = 900


class PackagesMissing(Exception):
    """Packages are missing and could not be installed; the text says what to do."""


def wanted(lists: list[str]) -> list[str]:
    """The package names in tools/packages-NAME.txt of each NAME, in order, each once."""
    names: dict[str, None] = {}
    for name in lists:
        for line in (FOLDER / f"packages-{name}.txt").read_text().splitlines():
            package = line.partition("#")[0].strip()
            if package:
                names[package] = None
    return list(names)


def missing(packages: list[str]) -> list[str]:
    """Those of PACKAGES that dpkg does not have installed."""
    if not packages:
        return []
    asked = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", *packages],
        capture_output=True,
        text=True,
        check=False,
    )
    there = {
        line.split()[0] for line in asked.stdout.splitlines() if line.split()[1:] == ["installed"]
    }
    return [package for package in packages if package not in there]


def install(lists: list[str]) -> None:
    """Install what LISTS name and is missing. Raises PackagesMissing."""
    packages = wanted(lists)
    if shutil.which("dpkg-query") is None:
        raise PackagesMissing(
            "This is not a Debian or Ubuntu machine: install what matches these packages, then go"
            f" on by hand: {' '.join(packages)}"
        )
    absent = missing(packages)
    if not absent:
        return
    if os.geteuid() != 0:
        raise PackagesMissing(f"Please install: sudo apt-get install {' '.join(absent)}")
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    print(f"Installing system packages: {' '.join(absent)} …", flush=True)
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-qq", "--no-install-recommends", "-o", "Dpkg::Use-Pty=0", *absent],
    ):
        done = subprocess.run(
            command, env=env, check=False, timeout=TIMEOUT_SECONDS, stdout=subprocess.DEVNULL
        )
        if done.returncode:
            raise PackagesMissing(
                f"`{' '.join(command[:2])}` ended with code {done.returncode}: the lines above say"
                f" why. Wanted: {' '.join(absent)}"
            )


def main() -> int:
    """Entry point; 0 when all are there, 2 with one sentence when not."""
    if len(sys.argv) < 2:
        print(f"usage: {sys.argv[0]} LIST …", file=sys.stderr)
        return 2
    try:
        install(sys.argv[1:])
    except (PackagesMissing, FileNotFoundError) as failure:
        print(failure, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
