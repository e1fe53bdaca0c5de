"""The file of applications: what it may hold, and the sentence for everything else."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from app import config
from app.cli import main
from app.config import ConfigError, Settings
from app.gateway import applications
from app.gateway.applications import Application

SECRET = "a-secret-that-nobody-may-see"
SHOP = {"id": "shop", "key": "shop-key", "secret": SECRET}


def write(folder: Path, content: object, mode: int = 0o640) -> Path:
    path = folder / "applications.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    path.chmod(mode)
    return path


def load(settings: Settings, path: Path) -> applications.Applications:
    return applications.load(dataclasses.replace(settings, gateway_applications=str(path)))


def problems(settings: Settings, path: Path) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        load(settings, path)
    assert SECRET not in str(refused.value)
    return [
        problem.removeprefix("DESKLINE_GATEWAY_APPLICATIONS: ")
        for problem in refused.value.problems
    ]


def test_without_a_file_there_is_desklines_own_application(settings: Settings) -> None:
    found = applications.load(settings)
    assert list(found.by_key) == ["key1"]
    assert found.by_id["app1"].client_events
    assert found.by_id["app1"].allows_origin("https://anywhere.example")


def test_the_file_adds_applications_and_limits_of_desklines_own(
    settings: Settings, tmp_path: Path
) -> None:
    content = {
        "default": {"max_connections_per_address": 200, "client_events": False},
        "applications": [
            {
                **SHOP,
                "enabled": False,
                "tls_only": True,
                "allowed_origins": ["*.Shop.example"],
                "max_connections": 5,
                "max_connections_per_address": 2,
                "max_channels_per_socket": 3,
                "max_message_bytes": 5000,
                "client_events": True,
                "client_events_per_second": 4,
                "authorize_seconds": 30,
            }
        ],
    }
    found = load(settings, write(tmp_path, content))
    assert found.by_id["app1"].max_connections_per_address == 200
    assert not found.by_id["app1"].client_events
    assert found.by_id["app1"].secret == b"a-secret-for-tests-only"
    assert found.by_key["shop-key"] == Application(
        "shop",
        "shop-key",
        SECRET.encode(),
        enabled=False,
        tls_only=True,
        allowed_origins=("*.shop.example",),
        max_connections=5,
        max_connections_per_address=2,
        max_channels_per_socket=3,
        max_message_bytes=5000,
        client_events=True,
        client_events_per_second=4,
        authorize_seconds=30,
    )


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("id", "a b", "1 to 64 letters"),
        ("id", 7, "1 to 64 letters"),
        ("key", "", "1 to 64 letters"),
        ("secret", "short", "16 to 256 characters"),
        ("enabled", "yes", "true or false"),
        ("tls_only", 1, "true or false"),
        ("allowed_origins", "shop.example", "a list of at most"),
        ("allowed_origins", ["shop.example/path"], "a list of at most"),
        ("allowed_origins", ["a.*.example"], "a list of at most"),
        ("max_connections", -1, "a whole number from 0"),
        ("max_connections", True, "a whole number from 0"),
        ("max_connections_per_address", 1.5, "a whole number from 0"),
        ("max_channels_per_socket", 0, "a whole number from 1"),
        ("max_message_bytes", 999, "a whole number from 1000"),
        ("client_events", None, "true or false"),
        ("client_events_per_second", 0, "a whole number from 1"),
        ("authorize_seconds", 301, "a whole number from 0 to 300"),
    ],
)
def test_a_wrong_field_has_one_sentence(
    settings: Settings, tmp_path: Path, name: str, value: object, says: str
) -> None:
    (problem,) = problems(settings, write(tmp_path, {"applications": [{**SHOP, name: value}]}))
    assert problem.startswith(f"applications[0].{name}: should be ")
    assert says in problem


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"applications": {}}, "applications: should be a list"),
        ({"apps": []}, "apps: there is no such field"),
        ({"applications": [7]}, "applications[0]: should be a JSON object"),
        (
            {"applications": [{**SHOP, "colour": 1}]},
            "applications[0].colour: there is no such field",
        ),
        ({"applications": [{"id": "a", "key": "b"}]}, "applications[0].secret: is missing"),
        ({"applications": [SHOP, {**SHOP, "id": "b"}]}, "applications[1].key: another application"),
        ({"applications": [{**SHOP, "id": "app1"}]}, "applications[0].id: another application"),
        ({"default": {"secret": SECRET}}, "default.secret: there is no such field"),
        ({"default": []}, "default: should be a JSON object"),
        ([], "should hold one JSON object"),
        ('{"applications": [', "is no valid JSON (line 1, column"),
    ],
)
def test_a_wrong_file_has_its_sentence(
    settings: Settings, tmp_path: Path, content: Any, says: str
) -> None:
    assert says in problems(settings, write(tmp_path, content))[0]


def test_all_problems_are_told_at_once(settings: Settings, tmp_path: Path) -> None:
    content = {"default": {"enabled": 1}, "applications": [{"id": "a", "key": "b", "secret": "c"}]}
    assert len(problems(settings, write(tmp_path, content))) == 2


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o641])
def test_others_may_neither_read_nor_change_it(
    settings: Settings, tmp_path: Path, mode: int
) -> None:
    (problem,) = problems(settings, write(tmp_path, {}, mode))
    assert "should have the mode 0640 or less" in problem
    assert f"(it has {mode:04o})" in problem


def test_a_file_that_is_not_there(settings: Settings, tmp_path: Path) -> None:
    assert "cannot be read (No such file" in problems(settings, tmp_path / "none.json")[0]


def test_checkconfig_looks_into_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, {"applications": [{**SHOP, "key": "?"}]})
    env_file = tmp_path / "gateway.env"
    env_file.write_text(
        "DESKLINE_REDIS_URL=redis://127.0.0.1:1/0\nDESKLINE_PUSHER_APP_ID=a\n"
        f"DESKLINE_PUSHER_KEY=b\nDESKLINE_PUSHER_SECRET={'s' * 20}\n"
        f"DESKLINE_GATEWAY_APPLICATIONS={path}\n"
    )
    assert main(["--env-file", str(env_file), "checkconfig", "--for", "gateway"]) == 2
    assert "applications[0].key: should be 1 to 64" in capsys.readouterr().err
    write(tmp_path, {"applications": [SHOP]})
    assert main(["--env-file", str(env_file), "checkconfig", "--for", "gateway"]) == 0


def test_the_setting_must_be_an_absolute_path() -> None:
    with pytest.raises(ConfigError, match="DESKLINE_GATEWAY_APPLICATIONS: should be the absolute"):
        config.load("gateway", {"DESKLINE_GATEWAY_APPLICATIONS": "applications.json"})


@pytest.mark.parametrize(
    ("patterns", "origin", "allowed"),
    [
        ((), "", True),
        (("*",), "https://any.example", True),
        (("shop.example",), "https://shop.example", True),
        (("shop.example",), "http://shop.example:8080", True),
        (("shop.example",), "HTTPS://Shop.Example", True),
        (("shop.example",), "https://www.shop.example", False),
        (("shop.example",), "https://shopxexample", False),
        (("shop.example",), "https://evil.example/shop.example", False),
        (("shop.example",), "null", False),
        (("shop.example",), "", False),
        (("*.shop.example",), "https://a.b.shop.example", True),
        (("*.shop.example",), "https://shop.example", False),
        (("*.shop.example",), "https://evilshop.example", False),
        (("https://shop.example",), "https://shop.example", True),
        (("https://shop.example",), "http://shop.example", False),
        (("https://shop.example",), "https://shop.example:444", False),
        (("https://shop.example:444",), "https://shop.example:444", True),
        (("[::1]",), "http://[::1]:3000", True),
        (("a.example", "*.b.example"), "https://x.b.example", True),
    ],
)
def test_origins(patterns: tuple[str, ...], origin: str, allowed: bool) -> None:
    application = Application("a", "b", b"c", allowed_origins=patterns)
    assert application.allows_origin(origin) is allowed
