"""The plays and roles keep the house rules, and each rule finds what breaks it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.static import house_rules

ROOT = Path(__file__).resolve().parents[2]
Rule = Callable[[Path], list[str]]

TASK = "roles/web/tasks/main.yml"
PLAY = "playbooks/deploy.yml"
ROLE = {
    "roles/web/defaults/main.yml": "web_port: 1\n",
    "roles/web/meta/argument_specs.yml": (
        "argument_specs: {main: {options: {web_port: {type: int, description: Port.}}}}\n"
    ),
}
HOSTS = "all: {children: {" + ", ".join(f"{group}: {{}}" for group in house_rules.GROUPS) + "}}\n"
ROLLING = "- name: P\n  hosts: app\n  serial: 1\n  any_errors_fatal: true\n  roles: [web]\n"

# rule, files of a tree that keeps it, files that break it
CASES: list[tuple[Rule, dict[str, str], dict[str, str]]] = [
    (
        house_rules.unnamed,
        {TASK: "- name: Go\n  block:\n    - name: Do\n      a.b.c:\n"},
        {TASK: "- name: Go\n  block:\n    - a.b.c:\n"},
    ),
    (house_rules.unnamed, {PLAY: "- name: P\n  hosts: all\n"}, {PLAY: "- hosts: all\n"}),
    (house_rules.unnamed, {}, {"roles/web/handlers/main.yml": "- name: lower\n  a.b.c:\n"}),
    (
        house_rules.errors_ignored,
        {TASK: "- name: T\n  a.b.c:\n  failed_when: r.rc > 1\n"},
        {TASK: "- name: T\n  a.b.c:\n  failed_when: false\n"},
    ),
    (house_rules.errors_ignored, {}, {TASK: "- name: T\n  a.b.c:\n  ignore_errors: true\n"}),
    (house_rules.errors_ignored, {}, {TASK: "- name: T\n  a.b.c:\n  failed_when: 'False'\n"}),
    (
        house_rules.short_module_names,
        {TASK: "- name: T\n  ansible.builtin.copy: {}\n"},
        {TASK: "- name: T\n  copy: {}\n"},
    ),
    (
        house_rules.commands_without_changed_when,
        {TASK: "- name: T\n  ansible.builtin.command: {argv: [a], creates: /b}\n"},
        {TASK: "- name: T\n  ansible.builtin.command: a\n"},
    ),
    (
        house_rules.not_one_after_the_other,
        {PLAY: ROLLING},
        {PLAY: ROLLING.replace("serial: 1", "serial: 2")},
    ),
    (
        house_rules.not_one_after_the_other,
        {PLAY: ROLLING},
        {PLAY: ROLLING.replace("any_errors_fatal: true", "any_errors_fatal: false")},
    ),
    (
        house_rules.not_one_after_the_other,
        {
            PLAY: "- name: P\n  hosts: db\n  tasks:\n    - name: T\n"
            "      ansible.builtin.include_role: {name: mysql, tasks_from: discover}\n"
        },
        {
            PLAY: "- name: P\n  hosts: db\n  tasks:\n    - name: T\n      block:\n"
            "        - name: U\n          ansible.builtin.include_role:\n"
            "            {name: mysql, tasks_from: restart}\n"
        },
    ),
    (
        house_rules.going_on_without_a_machine,
        {PLAY: ROLLING},
        {PLAY: "- name: P\n  hosts: app:lb\n  roles: [deskline_release]\n"},
    ),
    (
        house_rules.unknown_groups,
        {PLAY: "- name: P\n  hosts: app[0]:!db\n"},
        {PLAY: "- name: P\n  hosts: webservers\n"},
    ),
    (
        house_rules.without_preflight,
        {PLAY: "- name: P\n  ansible.builtin.import_playbook: preflight.yml\n"},
        {PLAY: "- name: P\n  hosts: all\n"},
    ),
    (
        house_rules.undocumented_playbooks,
        {PLAY: "---\n# Deploys.\n- name: P\n", "docs/operators/a.md": "`playbooks/deploy.yml`"},
        {PLAY: "---\n# Deploys.\n- name: P\n", "docs/operators/a.md": ""},
    ),
    (house_rules.undocumented_playbooks, {}, {PLAY: "- name: P\n", "docs/operators/a.md": PLAY}),
    (house_rules.role_faces, ROLE, {"roles/web/defaults/main.yml": "web_port: 1\n"}),
    (house_rules.role_faces, ROLE, {**ROLE, "roles/web/defaults/main.yml": "port: 1\n"}),
    (
        house_rules.role_faces,
        ROLE,
        {**ROLE, "roles/web/defaults/main.yml": "web_port: 1\nweb_a: 1\n"},
    ),
    (house_rules.role_faces, ROLE, {**ROLE, "roles/web/defaults/main.yml": "{}\n"}),
    (house_rules.role_faces, ROLE, {**ROLE, "roles/web/vars/main.yml": "web_internal: 1\n"}),
    (
        house_rules.inventories_without_a_group,
        {"inventories/a/hosts.yml": HOSTS},
        {"inventories/a/hosts.yml": HOSTS.replace("redis", "redys")},
    ),
    (house_rules.inventories_without_a_group, {}, {"inventories/a/group_vars/all.yml": "a: 1\n"}),
    (
        house_rules.unchecked_files,
        {
            TASK: "- name: T\n  ansible.builtin.template:\n    dest: /etc/nginx/nginx.conf\n"
            "    validate: nginx -t -c %s\n"
        },
        {TASK: "- name: T\n  ansible.builtin.template:\n    dest: /etc/nginx/nginx.conf\n"},
    ),
    (
        house_rules.secret_literals,
        {"inventories/a/group_vars/all/a.yml": "web_password: '{{ vault_web_password }}'\n"},
        {"inventories/a/group_vars/all/a.yml": "web_password: hunter2\n"},
    ),
    (
        house_rules.secret_literals,
        {TASK: "- name: T\n  a.b.c: {login_password: !vault 'x'}\n"},
        {TASK: "- name: T\n  a.b.c: {login_password: hunter2}\n"},
    ),
]
RULES = list(dict.fromkeys(rule for rule, _, _ in CASES))


def tree(root: Path, files: dict[str, str]) -> Path:
    for folder in ("playbooks", "roles", "inventories", "docs/operators"):
        (root / folder).mkdir(parents=True)
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_repository_keeps_the_rule(rule: Rule) -> None:
    assert not rule(ROOT)


@pytest.mark.parametrize(
    ("rule", "good", "bad"), CASES, ids=[f"{n}-{c[0].__name__}" for n, c in enumerate(CASES)]
)
def test_the_rule_finds_what_breaks_it(
    rule: Rule, good: dict[str, str], bad: dict[str, str], tmp_path: Path
) -> None:
    assert rule(tree(tmp_path / "good", good)) == []
    assert rule(tree(tmp_path / "bad", bad)) != []


def test_the_rules_see_the_whole_tree() -> None:
    """A wrong path would make every rule pass in silence."""
    assert len(list(house_rules.items(ROOT))) > 150
    assert len(list(house_rules.plays(ROOT))) > 25
    assert len(list((ROOT / "roles").iterdir())) >= 10
    assert {path.name for path in (ROOT / "inventories").iterdir()} >= {
        *("example", "local", "single", "vagrant")
    }


def test_no_secret_of_an_inventory_is_in_git() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "inventories"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert tracked
    assert not [name for name in tracked if "/secrets/" in name or "vault" in Path(name).name]


def test_vagrant_and_local_describe_the_same_machines() -> None:
    texts = [
        "".join(
            line
            for line in (ROOT / f"inventories/{name}/hosts.yml").read_text().splitlines(True)
            if not line.startswith("#")
        )
        for name in ("local", "vagrant")
    ]
    assert texts[0].replace("10.83.7.", "192.168.56.") == texts[1]
