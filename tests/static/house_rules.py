"""The house rules for plays and roles, as functions: each takes the root of a tree that is laid
out like this repository and returns one line for every place that breaks the rule.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

GROUPS = {"lb", "app", "realtime", "redis", "db", "db_primary", "db_replica"}
# Groups that a play may name besides: made while it runs (who is primary is asked of the servers).
FOUND_GROUPS = {"mysql_live_primary", "mysql_live_replica", "all", "localhost"}

# Roles whose tasks stop, restart or change what serves visitors or holds their data: one machine
# at a time, and the run ends with the first failure. The entry points named here only read, or
# write what no running process uses yet.
ROLLING_ROLES: dict[str, set[str]] = {
    "gateway": set(),
    "mysql": {"discover", "install", "undisturbed"},
    "mysql_replica": {"announce"},
    "nginx": set(),
    "redis": set(),
    "web": {"migrate_env", "first_content"},
    "worker": set(),
}

# Files that have a checker: one that is put in place without it could stop a running service.
CHECKED_FILES = re.compile(
    r"nginx\.conf$|nftables\.conf$|sshd_config|sudoers|\.(env|acl)$|_env_file\b|my\.cnf$"
)

# Playbooks that contact no machine of a deployment, or are the preflight itself.
WITHOUT_PREFLIGHT = {"preflight", "secrets", "local_up", "local_down"}

# Words of a play, block or task that are no module.
KEYWORDS = """
    action any_errors_fatal args always become become_user block changed_when check_mode
    connection delegate_facts delegate_to diff environment failed_when gather_facts handlers
    hosts ignore_errors ignore_unreachable listen loop loop_control max_fail_percentage
    module_defaults name no_log notify order poll post_tasks pre_tasks register rescue retries
    delay roles run_once serial strategy tags tasks throttle timeout until vars vars_files
    when async become_method local_action
"""
COMMANDS = {f"ansible.builtin.{name}" for name in ("command", "shell", "raw", "script", "expect")}
INCLUDES = {f"ansible.builtin.{verb}_role" for verb in ("include", "import")}
SECRET_NAME = re.compile(r"(password|passwd|secret|secret_key|token|salt)$")
# A literal that is public on purpose.
PUBLIC_LITERALS = {"password123"}


class Loader(yaml.SafeLoader):
    """Knows Ansible's own tags."""


def _tagged(loader: Loader, suffix: str, node: yaml.Node) -> object:
    return f"!{suffix}" if suffix == "vault" else loader.construct_scalar(node)  # type: ignore[arg-type]


Loader.add_multi_constructor("!", _tagged)


def load(path: Path) -> Any:
    """The content of a YAML file, as plain Python values."""
    return yaml.load(path.read_text(), Loader=Loader)  # noqa: S506  a SafeLoader with two more tags


@dataclass(frozen=True)
class Item:
    """A play, block or task, and where it stands."""

    place: str
    value: dict[str, Any]
    kind: str  # play, block, task

    @property
    def module(self) -> str | None:
        """The task's module, or None for a play or block."""
        if self.kind != "task":
            return None
        found = [
            key for key in self.value if key not in KEYWORDS.split() and not key.startswith("with_")
        ]
        return found[0] if found else None

    @property
    def arguments(self) -> Any:
        """What the module is given."""
        return self.value.get(self.module or "", None)


def _walk(place: str, entries: Any, kind: str) -> Iterator[Item]:
    for entry in entries or []:
        is_block = kind == "task" and "block" in entry
        yield Item(place, entry, "block" if is_block else kind)
        for key in ("tasks", "pre_tasks", "post_tasks", "handlers", "block", "rescue", "always"):
            if isinstance(entry.get(key), list):
                yield from _walk(place, entry[key], "task")


def playbooks(root: Path) -> list[Path]:
    """site.yml and the verbs."""
    return [
        path
        for path in (root / "site.yml", *sorted((root / "playbooks").glob("*.yml")))
        if path.exists()
    ]


def plays(root: Path) -> Iterator[Item]:
    """Every play and playbook import."""
    for path in playbooks(root):
        yield from (
            item
            for item in _walk(str(path.relative_to(root)), load(path), "play")
            if item.kind == "play"
        )


def items(root: Path) -> Iterator[Item]:
    """Every play, block, task and handler of playbooks, roles and Molecule."""
    for path in (*playbooks(root), *sorted((root / "molecule").glob("*.yml"))):
        yield from _walk(str(path.relative_to(root)), load(path), "play")
    for folder in ("tasks", "handlers"):
        for path in sorted((root / "roles").glob(f"*/{folder}/**/*.yml")):
            yield from _walk(str(path.relative_to(root)), load(path), "task")


def label(item: Item) -> str:
    """Where an item stands and what it is called."""
    return f"{item.place}: {item.value.get('name', item.value)!s:.90}"


def unnamed(root: Path) -> list[str]:
    """Plays, blocks and tasks without a name that begins with a capital letter."""
    return [
        label(item)
        for item in items(root)
        if not re.match(r"[A-Z]", str(item.value.get("name", "")))
    ]


def errors_ignored(root: Path) -> list[str]:
    """Tasks that go on after any error whatever, and keep nothing that could be judged later."""
    return [
        label(item)
        for item in items(root)
        if item.value.get("ignore_errors")
        or item.value.get("ignore_unreachable")
        or (
            str(item.value.get("failed_when")).lower() in {"false", "['false']", "[false]"}
            and "register" not in item.value
        )
    ]


def short_module_names(root: Path) -> list[str]:
    """Tasks whose module is not written with its collection."""
    return [
        label(item)
        for item in items(root)
        if item.kind == "task" and len((item.module or "").split(".")) < 3
    ]


def commands_without_changed_when(root: Path) -> list[str]:
    """Commands that do not say whether they changed something."""
    return [
        label(item)
        for item in items(root)
        if item.module in COMMANDS
        and "changed_when" not in item.value
        and not {"creates", "removes"} & set(_dictionary(item.arguments))
        and not {"creates", "removes"} & set(item.value.get("args", {}))
    ]


def _dictionary(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def roles_of(play: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The (role, entry point) pairs that a play runs."""
    for entry in play.get("roles", []):
        role = entry if isinstance(entry, str) else entry.get("role", entry.get("name"))
        yield str(role), "main"
    for item in _walk("", [play], "play"):
        if item.module in INCLUDES:
            arguments = _dictionary(item.arguments)
            yield str(arguments.get("name")), str(arguments.get("tasks_from", "main"))


def not_one_after_the_other(root: Path) -> list[str]:
    """Plays that touch what serves visitors or holds data on several machines at once."""
    wrong = []
    for item in plays(root):
        touched = [
            f"{role}:{entry}"
            for role, entry in roles_of(item.value)
            if role in ROLLING_ROLES and entry not in ROLLING_ROLES[role]
        ]
        one = item.value.get("serial") == 1 and item.value.get("any_errors_fatal") is True
        if touched and not one:
            wrong.append(f"{label(item)} runs {', '.join(touched)}")
    return wrong


def going_on_without_a_machine(root: Path) -> list[str]:
    """Plays on machines of a deployment that go on after one of them failed."""
    return [
        label(item)
        for item in plays(root)
        if set(roles_of(item.value))
        and item.value.get("hosts") not in ("localhost", "all")
        and item.value.get("any_errors_fatal") is not True
    ]


def unknown_groups(root: Path) -> list[str]:
    """Plays whose hosts are no group of ours."""
    wrong = []
    for item in plays(root):
        for name in re.split(r"[:,]", str(item.value.get("hosts", "all"))):
            if re.sub(r"\[.*\]$|^[!&]", "", name) not in GROUPS | FOUND_GROUPS:
                wrong.append(f"{label(item)} names {name}")
    return wrong


def without_preflight(root: Path) -> list[str]:
    """Verbs whose first play is not the preflight."""
    wrong = []
    for path in playbooks(root):
        if path.stem in WITHOUT_PREFLIGHT:
            continue
        imported = load(path)[0].get("ansible.builtin.import_playbook", "")
        if Path(imported).name != "preflight.yml":
            wrong.append(str(path.relative_to(root)))
    return wrong


def undocumented_playbooks(root: Path) -> list[str]:
    """Verbs without a comment at their head, or that no operators' page names."""
    pages = "\n".join(path.read_text() for path in sorted((root / "docs/operators").glob("*.md")))
    wrong = []
    for path in playbooks(root):
        name = str(path.relative_to(root))
        if not re.match(r"(---\n)?# \S", path.read_text()):
            wrong.append(f"{name} does not say at its head what it does")
        if name not in pages:
            wrong.append(f"{name} is in no page of docs/operators")
    return wrong


def role_faces(root: Path) -> list[str]:
    """Roles whose defaults and argument_specs are missing, differ, or bear foreign names."""
    wrong = []
    for role in sorted(path for path in (root / "roles").iterdir() if path.is_dir()):
        defaults_file, specs_file = role / "defaults/main.yml", role / "meta/argument_specs.yml"
        if not defaults_file.exists() or not specs_file.exists():
            wrong.append(f"{role.name}: defaults/main.yml or meta/argument_specs.yml is missing")
            continue
        defaults = set(load(defaults_file) or {})
        specs = load(specs_file)["argument_specs"]
        options = {
            name: option
            for spec in specs.values()
            for name, option in (spec.get("options") or {}).items()
        }
        # What only another entry point takes is an argument of that call, like a function's.
        of_main = set(specs.get("main", {}).get("options") or {})
        wrong += [
            f"{role.name}: {name} does not start with {role.name}_"
            for name in sorted(defaults | set(options))
            if not name.startswith(f"{role.name}_")
        ]
        wrong += [
            f"{role.name}: {name} stands in defaults and not in argument_specs"
            for name in sorted(defaults - set(options))
        ]
        wrong += [
            f"{role.name}: {name} is neither required nor in defaults"
            for name, option in sorted(options.items())
            if name in of_main
            and name not in defaults
            and not option.get("required")
            and "default" not in option
        ]
        wrong += [
            f"{role.name}: {name} is not explained"
            for name, option in sorted(options.items())
            if not option.get("description") or not option.get("type")
        ]
        variables = role / "vars/main.yml"
        wrong += [
            f"{role.name}: the internal {name} does not start with __{role.name}_"
            for name in sorted(set(load(variables) or {}) if variables.exists() else [])
            if not name.startswith(f"__{role.name}_")
        ]
    return wrong


def inventories_without_a_group(root: Path) -> list[str]:
    """Inventories in which a group of ours is missing."""
    wrong = []
    for folder in sorted(path for path in (root / "inventories").iterdir() if path.is_dir()):
        hosts = folder / "hosts.yml"
        if not hosts.exists():
            wrong.append(f"{folder.name}: hosts.yml is missing")
            continue
        names: set[str] = set()
        todo = [load(hosts)["all"]]
        while todo:
            children = todo.pop().get("children") or {}
            names |= set(children)
            todo += [child or {} for child in children.values()]
        wrong += [f"{folder.name}: {group} is missing" for group in sorted(GROUPS - names)]
    return wrong


def unchecked_files(root: Path) -> list[str]:
    """Files with a checker that are put in place unchecked."""
    return [
        label(item)
        for item in items(root)
        if item.module in {"ansible.builtin.template", "ansible.builtin.copy"}
        and CHECKED_FILES.search(str(_dictionary(item.arguments).get("dest", "")))
        and "validate" not in _dictionary(item.arguments)
    ]


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, below in value.items():
            yield from _leaves(below, str(key))
    elif isinstance(value, list):
        for below in value:
            yield from _leaves(below, name)
    else:
        yield name, value


def secret_literals(root: Path) -> list[str]:
    """Values of variables that are called like a secret and are written out."""
    files = [
        *playbooks(root),
        *sorted((root / "roles").glob("*/*/**/*.yml")),
        *(
            path
            for path in sorted((root / "inventories").glob("**/*.yml"))
            if "secrets" not in path.parts
        ),
    ]
    return [
        f"{path.relative_to(root)}: {name}"
        for path in files
        if path.parent.name != "meta"
        for name, value in _leaves(load(path))
        if SECRET_NAME.search(name)
        and isinstance(value, str)
        and value not in {"", "!vault"} | PUBLIC_LITERALS
        and "{{" not in value
    ]
