"""Rules about the plays and roles that no linter has; bad samples show that each can fail."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from app import config

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOKS = [ROOT / "site.yml", *sorted((ROOT / "playbooks").glob("*.yml"))]
ROLES = sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir())
INVENTORIES = sorted(path for path in (ROOT / "inventories").iterdir() if path.is_dir())
TASK_FILES = sorted((ROOT / "roles").glob("*/tasks/*.yml")) + sorted(
    (ROOT / "roles").glob("*/handlers/*.yml")
)
GROUPS = {"lb", "app", "realtime", "redis", "db", "db_primary", "db_replica"}
SERVICE_GROUPS = ("app", "realtime")  # a rolling group: one node at a time
VERBS_WITH_A_PAGE = {"database", "deploy", "migrate", "replica_bootstrap"}
# settings that no role gives to a machine, and why
NOT_RENDERED = {
    "DESKLINE_WS_PUBLIC_URL": "Nginx takes WebSockets at the address of the pages, the default",
    "DESKLINE_WEB_ROOT": "Nginx serves the web files",
    "DESKLINE_DATA_DIR": "only the embedded mode has one",
}
FREE_FORM = {"ansible.builtin.command", "ansible.builtin.shell"}
NOT_MODULES = {
    *("name", "when", "vars", "register", "loop", "loop_control", "changed_when", "failed_when"),
    *("notify", "tags", "become", "become_user", "check_mode", "diff", "no_log", "delegate_to"),
    *("run_once", "until", "retries", "delay", "environment", "listen", "args", "throttle"),
    *("block", "rescue", "always", "any_errors_fatal", "delegate_facts", "async", "poll"),
    *("connection", "module_defaults", "timeout", "with_items"),
}


class _Loader(yaml.SafeLoader):
    """Reads Ansible's own tags as plain values."""


_Loader.add_multi_constructor("!", lambda loader, _, node: loader.construct_scalar(node))


def load(path: Path) -> Any:
    """The YAML of PATH."""
    return yaml.load(path.read_text(), Loader=_Loader)  # noqa: S506  a SafeLoader with one more tag


def tasks_in(items: list[dict[str, Any]] | None) -> Iterator[dict[str, Any]]:
    """Every task of a list, those of its blocks included."""
    for item in items or []:
        yield item
        for part in ("block", "rescue", "always"):
            yield from tasks_in(item.get(part))


def tasks_of_play(play: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for part in ("pre_tasks", "tasks", "post_tasks", "handlers"):
        yield from tasks_in(play.get(part))


def module_of(task: dict[str, Any]) -> str | None:
    """The module that TASK calls, or None for a block."""
    found = [key for key in task if key not in NOT_MODULES]
    return found[0] if found else None


def wrong_with_task(task: dict[str, Any]) -> list[str]:
    """What the house rules have against TASK; empty when nothing."""
    wrong = []
    module = module_of(task)
    if not task.get("name"):
        wrong.append("has no name")
    if "ignore_errors" in task:
        wrong.append("has ignore_errors")
    if task.get("failed_when") is False and not task.get("register"):
        wrong.append("has failed_when: false and keeps no result that could be judged")
    if module is not None and "." not in module:
        wrong.append(f"calls {module} without its collection")
    if module in FREE_FORM and "changed_when" not in task:
        creates = (task.get("args") or {}).get("creates") or (
            isinstance(task[module], dict) and task[module].get("creates")
        )
        if not creates:
            wrong.append("is a command without changed_when")
    return wrong


def wrong_with_play(play: dict[str, Any]) -> list[str]:
    """What the house rules have against PLAY (not its tasks)."""
    wrong = []
    if not play.get("name"):
        wrong.append("has no name")
    if "ansible.builtin.import_playbook" in play:
        return wrong
    if "ignore_errors" in play:
        wrong.append("has ignore_errors")
    starts_service = any(
        str((task.get(module_of(task) or "") or {}).get("name")) in {"web", "worker", "gateway"}
        and not (task.get(module_of(task) or "") or {}).get("tasks_from")
        for task in tasks_of_play(play)
        if isinstance(task.get(module_of(task) or ""), dict)
        and (module_of(task) or "").endswith(("import_role", "include_role"))
    )
    if starts_service and not (play.get("serial") == 1 and play.get("any_errors_fatal")):
        wrong.append("restarts service nodes without serial: 1 and any_errors_fatal")
    return wrong


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: path.name)
def test_plays_keep_the_house_rules(path: Path) -> None:
    plays = load(path)
    assert plays
    wrong = [f"{play.get('name')}: {one}" for play in plays for one in wrong_with_play(play)]
    for play in plays:
        wrong += [
            f"{task.get('name')}: {one}"
            for task in tasks_of_play(play)
            for one in wrong_with_task(task)
        ]
    assert not wrong


@pytest.mark.parametrize("path", TASK_FILES, ids=lambda path: str(path.relative_to(ROOT / "roles")))
def test_tasks_of_roles_keep_the_house_rules(path: Path) -> None:
    wrong = [
        f"{task.get('name')}: {one}"
        for task in tasks_in(load(path))
        for one in wrong_with_task(task)
    ]
    assert not wrong


@pytest.mark.parametrize("role", ROLES, ids=lambda path: path.name)
def test_a_result_that_may_be_a_failure_is_judged_later(role: Path) -> None:
    files = [*role.rglob("*.yml"), *role.rglob("*.j2")]
    text = "\n".join(path.read_text() for path in files)
    unjudged = [
        f"{task['name']}: {task['register']}"
        for path in (role / "tasks").glob("*.yml")
        for task in tasks_in(load(path))
        if task.get("failed_when") is False
        and len(re.findall(rf"\b{task['register']}\b", text)) < 2
    ]
    assert not unjudged


@pytest.mark.parametrize(
    ("sample", "complaint"),
    [
        ("ansible.builtin.ping:", "has no name"),
        ("{name: A, ansible.builtin.ping: {}, ignore_errors: true}", "has ignore_errors"),
        ("{name: A, ansible.builtin.ping: {}, failed_when: false}", "keeps no result"),
        ("{name: A, ping: {}}", "without its collection"),
        ("{name: A, ansible.builtin.command: ls}", "without changed_when"),
    ],
)
def test_a_bad_task_is_found(sample: str, complaint: str) -> None:
    assert complaint in " ".join(wrong_with_task(yaml.safe_load(sample)))


def test_a_bad_play_is_found() -> None:
    rolling = yaml.safe_load(
        "{name: A, hosts: app, tasks: [{name: B, ansible.builtin.import_role: {name: web}}]}"
    )
    assert "without serial: 1" in " ".join(wrong_with_play(rolling))
    assert not wrong_with_play(rolling | {"serial": 1, "any_errors_fatal": True})
    assert wrong_with_play({"hosts": "all", "ignore_errors": True}) == [
        "has no name",
        "has ignore_errors",
    ]


def test_the_service_groups_roll_in_some_play() -> None:
    serial = {
        play["hosts"]
        for path in PLAYBOOKS
        for play in load(path)
        if play.get("serial") == 1 and play.get("any_errors_fatal")
    }
    for group in SERVICE_GROUPS:
        assert any(group in str(hosts) for hosts in serial), group


@pytest.mark.parametrize("role", ROLES, ids=lambda path: path.name)
def test_every_role_explains_and_types_its_variables(role: Path) -> None:
    defaults = role / "defaults" / "main.yml"
    specs = role / "meta" / "argument_specs.yml"
    assert specs.exists()
    typed: set[str] = set()
    for entry in load(specs)["argument_specs"].values():
        assert entry.get("short_description")
        for name, option in (entry.get("options") or {}).items():
            assert option.get("type"), name
            assert option.get("description"), name
            typed.add(name)
    for name in load(defaults) or {} if defaults.exists() else {}:
        assert name.startswith((f"{role.name}_", f"__{role.name}_")), name
        assert name.startswith("__") or name in typed, f"{name} has no argument spec"


def test_every_setting_reaches_the_machines() -> None:
    files = [
        path
        for folder in (ROOT / "roles", ROOT / "templates")
        for path in folder.rglob("*")
        if path.suffix in {".yml", ".j2"} and path.parent.name in {"vars", "templates"}
    ]
    rendered = {
        name
        for path in files
        for name in re.findall(r"^\s*(DESKLINE_[A-Z_]+)\s*[:=]", path.read_text(), re.MULTILINE)
    }
    names = {setting.name for setting in config.SETTINGS}
    assert names - rendered == set(NOT_RENDERED)
    assert not rendered - names


@pytest.mark.parametrize("inventory", INVENTORIES, ids=lambda path: path.name)
def test_every_inventory_has_every_group(inventory: Path) -> None:
    def groups(children: dict[str, Any]) -> Iterator[str]:
        for name, child in children.items():
            yield name
            yield from groups((child or {}).get("children") or {})

    hosts = load(inventory / "hosts.yml")
    assert set(groups(hosts["all"]["children"])) >= GROUPS


def test_no_secret_stands_in_the_tree() -> None:
    literal = re.compile(
        r"^\s*(?!.*password123)[\w.]*(?:password|secret|salt|token)\s*:"
        r"\s*['\"]?[A-Za-z0-9+/_-]{12,}['\"]?\s*$",
        re.IGNORECASE | re.MULTILINE,
    )
    assert literal.search("vault_admin_password: Zk39vjs0wlA83hsk")
    files = [
        path
        for folder in ("roles", "playbooks", "inventories", "molecule", "templates")
        for path in (ROOT / folder).rglob("*.yml")
        if "secrets" not in path.parts[len(ROOT.parts) + 1 :]
    ]
    found = {str(path): literal.findall(path.read_text()) for path in files}
    assert not {path: lines for path, lines in found.items() if lines}


@pytest.mark.parametrize("verb", sorted(VERBS_WITH_A_PAGE))
def test_every_verb_has_a_page(verb: str) -> None:
    assert (ROOT / "playbooks" / f"{verb}.yml").exists()
    assert (ROOT / "docs" / "operators" / f"{verb}.md").exists()
