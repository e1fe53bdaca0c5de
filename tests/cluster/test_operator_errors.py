"""What operators are told about a missing mirror, inventory or variable, or a strange system."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.cluster.conftest import BIN, ROOT, PlayResult

UNREACHABLE = {
    "url": "http://127.0.0.1:9/debian",
    "security_url": "http://127.0.0.1:9/debian-security",
}
REACHABLE = {
    "url": "http://deb.debian.org/debian",
    "security_url": "http://deb.debian.org/debian-security",
}
ONE_MACHINE = ("--limit", "redis1,localhost")


def candidates(*mirrors: dict[str, str]) -> tuple[str, str]:
    """The extra variable that names MIRRORS, in order."""
    return ("-e", json.dumps({"apt_mirror_candidates": mirrors}))


def one_line(output: str) -> str:
    """Ansible folds long messages: OUTPUT with every run of white space as one space."""
    return re.sub(r"\s+", " ", output)


def test_an_unreachable_first_mirror_is_skipped_and_named(play: Callable[..., PlayResult]) -> None:
    done = play("playbooks/bootstrap.yml", *ONE_MACHINE, *candidates(UNREACHABLE, REACHABLE))
    assert done.code == 0, done.output
    assert f"skipped {UNREACHABLE['url']}" in one_line(done.output)
    assert f"using {REACHABLE['url']}" in one_line(done.output)
    assert done.changed == 0


def test_no_reachable_mirror_is_one_clear_error(play: Callable[..., PlayResult]) -> None:
    done = play("playbooks/bootstrap.yml", *ONE_MACHINE, *candidates(UNREACHABLE))
    assert done.code != 0
    assert "None of 1 mirrors can be reached" in one_line(done.output)
    assert "The list is the variable apt_mirror_candidates." in one_line(done.output)
    assert len(re.findall(r"^fatal: ", done.output, re.MULTILINE)) == 1


def test_an_unsupported_system_is_one_sentence(play: Callable[..., PlayResult]) -> None:
    only_ubuntu = json.dumps({"preflight_supported_systems": {"Ubuntu": ["24.04"]}})
    done = play("site.yml", *ONE_MACHINE, "-e", only_ubuntu)
    assert done.code != 0
    assert re.search(r"redis1 runs Debian 13\S*: use a machine with ", one_line(done.output))
    assert done.changed == 0


def newcomer(*arguments: str | Path) -> str:
    """What `ansible-playbook ARGUMENTS site.yml` says; it must refuse and change nothing."""
    done = subprocess.run(
        [BIN / "ansible-playbook", *arguments, "site.yml"],
        cwd=ROOT,
        env=os.environ | {"ANSIBLE_NOCOLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode != 0
    assert not re.search(r"changed=[1-9]", done.stdout)
    assert len(re.findall(r"^fatal: ", done.stdout, re.MULTILINE)) == 1, done.stdout
    return one_line(done.stdout + done.stderr)


def test_without_an_inventory_one_sentence_says_what_to_do() -> None:
    assert "There are no machines: name an inventory" in newcomer()


def test_a_missing_variable_is_one_sentence(tmp_path: Path) -> None:
    inventory = tmp_path / "mine"
    shutil.copytree(ROOT / "inventories" / "example", inventory)
    named = re.compile(r"^deskline_public_url:.*\n(?:[ \t]+.*\n)*", re.MULTILINE)
    lines = 0
    for path in inventory.rglob("*.yml"):
        text, found = named.subn("", path.read_text())
        lines += found
        path.write_text(text)
    assert lines >= 1
    said = newcomer("-i", inventory)
    assert "deskline_public_url is not set: set it in group_vars/all/" in said
