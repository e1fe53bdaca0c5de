"""The documents tell the truth: links lead somewhere, commands exist, both READMEs say the same."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    path
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
    if not path.name.startswith(".")
)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def make_targets() -> set[str]:
    """The targets that `make help` lists."""
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(re.findall(r"^  make (\S+)", done.stdout, re.MULTILINE))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file(document: Path) -> None:
    targets = [link for link in LINK.findall(document.read_text()) if "://" not in link]
    gone = [
        link
        for link in targets
        if not link.startswith("#") and not (document.parent / link.partition("#")[0]).exists()
    ]
    assert not gone


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_make_target_and_playbook_that_is_named_exists(document: Path) -> None:
    text = document.read_text()
    named = set(re.findall(r"`(?:sudo )?make ([a-z][a-z-]*)", text))
    for _, block in FENCE.findall(text):
        named |= set(re.findall(r"^(?:sudo )?make ([a-z][a-z-]*)", block, re.MULTILINE))
    assert named <= make_targets()
    playbooks = set(re.findall(r"playbooks/[a-z_]+\.yml", text))
    assert not [name for name in playbooks if not (ROOT / name).exists()]


def test_both_readmes_have_the_same_commands_headings_and_links() -> None:
    english = (ROOT / "README.md").read_text()
    chinese = (ROOT / "README.zh-TW.md").read_text()

    def commands(text: str) -> list[str]:
        return [re.sub(r"\s*#.*", "", block).strip() for _, block in FENCE.findall(text)]

    def levels(text: str) -> list[int]:
        return [len(marks) for marks in re.findall(r"^(#+) ", FENCE.sub("", text), re.MULTILINE)]

    def links(text: str) -> list[str]:
        return [link.replace(".zh-TW", "") for link in LINK.findall(text)]

    assert commands(english) == commands(chinese)
    assert len(commands(english)) >= 4
    assert levels(english) == levels(chinese)
    assert links(english) == links(chinese)


def test_the_readmes_commands_are_what_ci_runs() -> None:
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    blocks = [block for _, block in FENCE.findall((ROOT / "README.md").read_text())]
    assert any("make run" in block for block in blocks)
    assert any(block.strip() == "make test" for block in blocks)
