"""Settings: every wrong one is named, says what it should be, and shows no secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from app import cli, config
from app.config import ConfigError
from tests.unit.conftest import SECRETS

WEB = {**SECRETS, "DESKLINE_DATABASE_URL": "mysql+pymysql://u:p@db/deskline"}


def problems(process: str, env: dict[str, str]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config.load(process, env)
    return caught.value.problems


def test_defaults_and_derived_values() -> None:
    settings = config.load("web", WEB)
    assert (settings.web_host, settings.web_port) == ("127.0.0.1", 8000)
    assert settings.node
    assert settings.ws_public_url == "ws://chat.example"
    assert (settings.ws_host, settings.ws_port) == ("chat.example", 80)
    assert settings.cookie_secure is False
    assert settings.trusted_proxies == ()
    assert settings.is_demo is False


def test_https_makes_cookies_secure_and_sockets_encrypted() -> None:
    settings = config.load("web", {**WEB, "DESKLINE_PUBLIC_URL": "https://chat.example/"})
    assert settings.cookie_secure
    assert settings.ws_force_tls
    assert (settings.public_url, settings.ws_port) == ("https://chat.example", 443)


@pytest.mark.parametrize("process", config.PROCESSES)
def test_every_missing_setting_is_listed_at_once(process: str) -> None:
    named = {problem.partition(":")[0] for problem in problems(process, {})}
    required = {s.name for s in config.SETTINGS if process in s.required_by}
    assert named == required
    assert named


def test_a_process_may_lack_what_it_does_not_need() -> None:
    gateway = config.load("gateway", {k: v for k, v in SECRETS.items() if "SECRET_KEY" not in k})
    assert (gateway.database_url, gateway.secret_key) == ("", "")
    migrate = config.load("migrate", {"DESKLINE_DATABASE_URL": WEB["DESKLINE_DATABASE_URL"]})
    assert migrate.redis_url == ""


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ENV", "staging", "production, demo"),
        ("NODE", "a b", "letters"),
        ("DATABASE_URL", "postgres://u:hunter2@db/x", "mysql+pymysql://"),
        ("DATABASE_URL", "sqlite:///relative.db", "sqlite:////absolute/path"),
        ("DATABASE_URL", "mysql+pymysql://u:hunter2@db", "mysql+pymysql://"),
        ("DATABASE_URL", "mysql+pymysql://u:hunter2@db:port/x", "mysql+pymysql://"),
        ("DATABASE_REPLICA_URL", "hunter2", "mysql+pymysql://"),
        ("DATABASE_REPLICA_URL", "sqlite:////x.db", "same kind"),
        ("REDIS_URL", "http://:hunter2@redis", "redis://"),
        ("REDIS_URL", "embedded://", "python -m app run"),
        ("SECRET_KEY", "hunter2", "32 characters"),
        ("PUSHER_APP_ID", "a/b", "letters"),
        ("PUSHER_SECRET", "hunter2", "16 characters"),
        ("PUBLIC_URL", "chat.example", "http://HOST"),
        ("PUBLIC_URL", "https://chat.example/path", "without a path"),
        ("WS_PUBLIC_URL", "http://chat.example", "ws://HOST"),
        ("WEB_PORT", "80 80", "from 1 to 65535"),
        ("WEB_PORT", "65536", "from 1 to 65535"),
        ("WEB_PORT", "0", "from 1 to 65535"),
        ("WEB_HOST", "http://x", "address"),
        ("TRUSTED_PROXIES", "10.0.0.1,proxy", "'proxy'"),
        ("LOG_LEVEL", "chatty", "debug"),
        ("DRAIN_SECONDS", "-1", "from 0 to 3600"),
        ("RATE_LIMITS", "off", "enforce, observe"),
        ("RATE_LIMIT_SENDS", "many", "whole number"),
        ("SMTP_URL", "smtp://u:hunter2@", "smtp://USER"),
        ("SMTP_URL", "http://u:hunter2@mail", "smtp://USER"),
        ("SMTP_URL", "smtp://u@mail", "smtp://USER"),
        ("SMTP_URL", "smtp://u:hunter2@mail?starttls=perhaps", "smtp://USER"),
        ("SMTP_URL", "smtps://u:hunter2@mail?starttls=none", "smtp://USER"),
        ("MAIL_FROM", "support", "support@example.com"),
        ("MAIL_FROM", "Shop\n<a@example.com>", "support@example.com"),
        ("ATTACHMENT_MAX_BYTES", "10M", "whole number"),
        ("ATTACHMENT_MAX_BYTES", "0", "from 1 to 25165824"),
        ("ATTACHMENT_MAX_BYTES", "25165825", "from 1 to 25165824"),
        ("MESSAGE_EDIT_SECONDS", "-1", "from 0 to 31622400"),
        ("LONG_POLLS", "100001", "from 0 to 100000"),
        ("WEBHOOK_ALLOW_PRIVATE", "yes", "true or false"),
        ("ATTACHMENT_TYPES", "image/png,pictures", "'pictures'"),
        ("ATTACHMENT_TYPES", "image/svg+xml", "run scripts"),
        ("ATTACHMENT_SCANNER", "clamdscan -", "absolute path"),
        ("ATTACHMENT_SCANNER", "/usr/bin/scan 'x", "program"),
    ],
)
def test_a_wrong_value_is_named_and_says_what_it_should_be(
    name: str, value: str, words: str
) -> None:
    (problem,) = problems("web", {**WEB, f"DESKLINE_{name}": value})
    assert problem.startswith(f"DESKLINE_{name}: ")
    assert words in problem
    assert "hunter2" not in problem


def test_plain_sockets_on_an_https_page_are_refused() -> None:
    env = {
        **WEB,
        "DESKLINE_PUBLIC_URL": "https://chat.example",
        "DESKLINE_WS_PUBLIC_URL": "ws://chat.example",
    }
    assert problems("web", env)[0].startswith("DESKLINE_WS_PUBLIC_URL: ")


def test_the_two_ports_of_the_gateway_differ() -> None:
    env = {**SECRETS, "DESKLINE_GATEWAY_CONTROL_PORT": "9000", "DESKLINE_GATEWAY_PORT": "9000"}
    (problem,) = problems("gateway", env)
    assert problem.startswith("DESKLINE_GATEWAY_CONTROL_PORT: should differ")


def test_no_secret_in_repr() -> None:
    settings = config.load("web", {**WEB, "DESKLINE_REDIS_URL": "redis://u:hunter2@r/0"})
    text = repr(settings)
    for secret in ("hunter2", "k" * 40, "a-secret-for-tests-only", "u:p@db"):
        assert secret not in text


def test_the_table_is_complete() -> None:
    fields = set(config.Settings.__dataclass_fields__) - {"process"}
    assert {setting.attribute for setting in config.SETTINGS} == fields
    assert all(setting.meaning and setting.kind for setting in config.SETTINGS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A=1\nB=2", {"A": "1", "B": "2"}),
        ("# c\n; c\n\n  \nA=1\n", {"A": "1"}),
        ("no equals sign\nA=1", {"A": "1"}),
        ('A="x y"', {"A": "x y"}),
        ("A='x \\ $y'", {"A": "x \\ $y"}),
        ('A="q\\"b\\\\s\\$d\\n"', {"A": 'q"b\\s$d\\n'}),
        ("A=  two words  ", {"A": "two words"}),
        ("A=one\\\ntwo", {"A": "onetwo"}),
        ('A="one\ntwo"', {"A": "one\ntwo"}),
        ("A=a\\ b\\'", {"A": "a b'"}),
        ("A=$B#c", {"A": "$B#c"}),
        ("A=\nB=''", {"A": "", "B": ""}),
        ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("1A=x\nB C=y\nD=z", {"D": "z"}),
        ("A=1\nA=2", {"A": "2"}),
        ('A="mysql+pymysql://u:p%40=@h/d?x=1"', {"A": "mysql+pymysql://u:p%40=@h/d?x=1"}),
    ],
)
def test_env_files_are_read_as_systemd_reads_them(text: str, expected: dict[str, str]) -> None:
    assert config.parse_env_file(text) == expected


def test_checkconfig_names_misspelt_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "web.env"
    lines = [f'{name}="{value}"' for name, value in WEB.items()]
    file.write_text("\n".join(lines), encoding="utf-8")
    assert cli.main(["--env-file", str(file), "checkconfig", "--for", "web"]) == 0
    file.write_text("\n".join([*lines, "DESKLINE_WEB_PRT=1"]), encoding="utf-8")
    assert cli.main(["--env-file", str(file), "checkconfig", "--for", "web"]) == 2
    said = capsys.readouterr().err
    assert "DESKLINE_WEB_PRT" in said
    assert "DESKLINE_WEB_PORT" in said


def test_a_missing_env_file_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--env-file", "/nowhere/x.env", "checkconfig"]) == 2
    assert "/nowhere/x.env" in capsys.readouterr().err


def test_an_smtp_url_says_how_mail_is_handed_over() -> None:
    parsed = config.smtp_server("smtp://a%40b:p%3A%2F@mail.example")
    assert (parsed.host, parsed.port, parsed.tls) == ("mail.example", 587, "required")
    assert (parsed.user, parsed.password) == ("a@b", "p:/")
    assert "p:/" not in repr(parsed)
    assert config.smtp_server("smtps://mail.example").port == 465
    assert config.smtp_server("smtps://mail.example").tls == "implicit"
    assert config.smtp_server("smtp://relay:25?starttls=none").port == 25


def test_mail_needs_a_sender_and_the_worker_a_server() -> None:
    worker = {**SECRETS, "DESKLINE_DATABASE_URL": WEB["DESKLINE_DATABASE_URL"]}
    url = {"DESKLINE_SMTP_URL": "smtp://u:hunter2@mail"}
    sender = {"DESKLINE_MAIL_FROM": "Shop <a@example.com>"}
    assert config.load("worker", worker).smtp is None
    assert config.load("worker", {**worker, **url, **sender}).smtp is not None
    # a web node need not know the account of the mail server
    assert config.load("web", {**WEB, **sender}).mail_from == "Shop <a@example.com>"
    (problem,) = problems("worker", {**worker, **url})
    assert problem.startswith("DESKLINE_MAIL_FROM: is missing")
    (problem,) = problems("worker", {**worker, **sender})
    assert problem.startswith("DESKLINE_SMTP_URL: is missing")
