"""The Vagrantfile is valid and describes the machines of the inventory beside it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(
    shutil.which("vagrant") is None and os.environ.get("CI") != "true",
    reason="vagrant is not installed: apt-get install vagrant vagrant-libvirt",
)


def vagrant(folder: Path, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["vagrant", *arguments],
        cwd=folder,
        env={**os.environ, "VAGRANT_HOME": str(home), "VAGRANT_DEFAULT_PROVIDER": "libvirt"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The Vagrantfile and the inventory that it reads: vagrant leaves a folder beside them."""
    folder = tmp_path / "copy"
    (folder / "inventories/vagrant").mkdir(parents=True)
    shutil.copy(ROOT / "Vagrantfile", folder)
    shutil.copy(ROOT / "inventories/vagrant/hosts.yml", folder / "inventories/vagrant")
    return folder


def test_it_is_valid(copy: Path, tmp_path: Path) -> None:
    answer = vagrant(copy, tmp_path / "home", "validate")
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_validation_finds_a_mistake(copy: Path, tmp_path: Path) -> None:
    """The test above can fail: for a wrong setting, and for a wrong provider setting."""
    text = (copy / "Vagrantfile").read_text()
    for right, wrong in (("machine.vm.hostname", "machine.vm.hostnam"), (".cpus", ".cpuz")):
        (copy / "Vagrantfile").write_text(text.replace(right, wrong))
        assert vagrant(copy, tmp_path / "home", "validate").returncode != 0, wrong


def test_it_names_every_machine_of_the_inventory(copy: Path, tmp_path: Path) -> None:
    groups = yaml.safe_load((copy / "inventories/vagrant/hosts.yml").read_text())["all"]["children"]
    wanted = set()
    todo = list(groups.values())
    while todo:
        group = todo.pop()
        wanted |= set(group.get("hosts") or {})
        todo += (group.get("children") or {}).values()
    status = vagrant(copy, tmp_path / "home", "status", "--machine-readable").stdout
    named = {
        line.split(",")[1] for line in status.splitlines() if line.split(",")[2:3] == ["state"]
    }
    assert named == wanted
