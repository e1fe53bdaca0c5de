"""Which Deskline this is."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path


@cache
def version() -> str:
    """The version of the release, from its VERSION file; of the source tree in a checkout."""
    beside = Path(__file__).resolve().parents[1]
    try:
        return (beside / "VERSION").read_text(encoding="utf-8").strip()
    except OSError:
        pass
    try:
        project = tomllib.loads((beside / "pyproject.toml").read_text(encoding="utf-8"))
        return str(project["project"]["version"])
    except (OSError, KeyError, ValueError):
        return "unknown"
