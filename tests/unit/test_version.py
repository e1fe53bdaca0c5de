"""The version that the program tells."""

from __future__ import annotations

import tomllib

from app.version import version
from tests.conftest import ROOT


def test_a_checkout_tells_the_version_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert version() == project["version"]
