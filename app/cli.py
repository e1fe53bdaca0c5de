"""The command line: ``python -m app <command>``.

Settings come from the environment, or from ``--env-file`` (which wins, so that a command does
what the file says). Secrets are read from stdin or the environment, never from arguments.
"""

# each command imports only what it needs: the gateway must start without the database's drivers
# ruff: noqa: PLC0415

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from app import config, log
from app.config import ConfigError, Settings
from app.serving import Listener, StartError
from app.version import version

if TYPE_CHECKING:
    from sqlalchemy import Connection

DEMO_EMAIL: Final = "admin@demo.com"
# a second account, so that a demo can show two agents claiming one conversation
DEMO_AGENT_EMAIL: Final = "agent@demo.com"
DEMO_PASSWORD: Final = "password123"  # noqa: S105  the demo account, refused outside of demos
DEMO_INBOX_KEY: Final = "demo"

Environment = Mapping[str, str]


class CliError(Exception):
    """A command cannot do its work; the text is one sentence for the operator."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit status (0 done, 1 check failed, 2 cannot start)."""
    arguments = parser().parse_args(argv)
    try:
        env, file_names = _environment(arguments.env_file)
        arguments.file_names = file_names
        status: int = arguments.handler(arguments, env)
    except ConfigError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return 2
    except (CliError, StartError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return status


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; the documentation is made from it as well."""
    made = argparse.ArgumentParser(
        prog="python -m app", description="Deskline, a self-hosted live support chat."
    )
    made.add_argument("--version", action="version", version=f"Deskline {version()}")
    made.add_argument(
        "--env-file",
        metavar="PATH",
        type=Path,
        help="read settings from this file (systemd EnvironmentFile syntax); it wins over the "
        "environment",
    )
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="everything in one process, with SQLite and demo data")
    run.add_argument("--port", type=_port, default=8000, help="port of the pages and the API")
    run.add_argument("--gateway-port", type=_port, default=8080, help="port of the WebSockets")
    run.add_argument("--data-dir", type=Path, help="folder for the data (default: data)")
    run.add_argument(
        "--api-only", action="store_true", help="start even when the web files are not built"
    )
    run.set_defaults(handler=_run)

    commands.add_parser("web", help="serve the HTTP API").set_defaults(handler=_web)
    commands.add_parser("gateway", help="serve WebSockets").set_defaults(handler=_gateway)
    commands.add_parser("worker", help="run background jobs").set_defaults(handler=_worker)
    commands.add_parser(
        "migrate", help="bring the database to the newest schema; a second run waits"
    ).set_defaults(handler=_migrate)

    user = commands.add_parser("user", help="staff accounts")
    verbs = user.add_subparsers(dest="verb", required=True, metavar="VERB")
    create_user = verbs.add_parser("create", help="make an account, unless the address has one")
    create_user.add_argument("--email", required=True)
    create_user.add_argument("--name", required=True)
    create_user.add_argument("--role", choices=("admin", "agent"), default="agent")
    create_user.add_argument(
        "--password-stdin", action="store_true", required=True, help="read the password from stdin"
    )
    create_user.set_defaults(handler=_user_create)
    password = verbs.add_parser("password", help="set a new password and end all sessions")
    password.add_argument("--email", required=True)
    password.add_argument(
        "--password-stdin", action="store_true", required=True, help="read the password from stdin"
    )
    password.set_defaults(handler=_user_password)

    totp = verbs.add_parser(
        "reset-totp", help="turn the second factor of an account off and end all sessions"
    )
    totp.add_argument("--email", required=True)
    totp.set_defaults(handler=_user_reset_totp)

    inbox = commands.add_parser("inbox", help="inboxes, one per site")
    verbs = inbox.add_subparsers(dest="verb", required=True, metavar="VERB")
    create_inbox = verbs.add_parser("create", help="make an inbox, unless it exists")
    create_inbox.add_argument("--name", required=True)
    create_inbox.add_argument("--key", help="the widget's data-inbox (default: a random one)")
    create_inbox.set_defaults(handler=_inbox_create)

    commands.add_parser(
        "demo", help="make the demo account and inbox (only with DESKLINE_ENV=demo)"
    ).set_defaults(handler=_demo)

    for name, text, handler in (
        ("checkconfig", "check the settings and exit", _checkconfig),
        ("doctor", "check the settings, the database and Redis", _doctor),
    ):
        check = commands.add_parser(name, help=text)
        check.add_argument(
            "--for",
            dest="process",
            choices=config.PROCESSES,
            default="web",
            help="the process whose settings are checked (default: web)",
        )
        check.set_defaults(handler=handler)
    return made


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError("should be a port from 1 to 65535")
    return int(text)


def _environment(env_file: Path | None) -> tuple[Environment, list[str]]:
    """The variables of the environment under those of ``env_file``, and the file's names."""
    if env_file is None:
        return os.environ, []
    try:
        values = config.parse_env_file(env_file.read_text(encoding="utf-8"))
    except OSError as error:
        raise CliError(
            f"Cannot read the env file {env_file} ({error.strerror}): "
            "check its path and that this user may read it."
        ) from None
    except UnicodeDecodeError:
        raise CliError(f"The env file {env_file} is not UTF-8 text: save it as UTF-8.") from None
    return {**os.environ, **values}, list(values)


def _load(process: str, env: Environment) -> Settings:
    settings = config.load(process, env)
    log.setup(level=settings.log_level, node=settings.node, process=process)
    return settings


# --- processes ----------------------------------------------------------------------------------


def _web(_arguments: argparse.Namespace, env: Environment) -> int:
    from app import serving
    from app.http.server import create_app

    settings = _load("web", env)
    listener = Listener(create_app(settings), settings.web_host, settings.web_port)
    serving.run([(listener, "DESKLINE_WEB_PORT")], drain_seconds=settings.drain_seconds)
    return 0


def _gateway(_arguments: argparse.Namespace, env: Environment) -> int:
    from app import serving
    from app.gateway.server import create_app

    settings = _load("gateway", env)
    listener = Listener(create_app(settings), settings.gateway_host, settings.gateway_control_port)
    serving.run([(listener, "DESKLINE_GATEWAY_CONTROL_PORT")], drain_seconds=settings.drain_seconds)
    return 0


def _worker(_arguments: argparse.Namespace, env: Environment) -> int:
    from app import serving
    from app.worker.server import create_app

    settings = _load("worker", env)
    listener = Listener(create_app(settings), settings.worker_host, settings.worker_port)
    serving.run([(listener, "DESKLINE_WORKER_PORT")], drain_seconds=settings.drain_seconds)
    return 0


def _run(arguments: argparse.Namespace, env: Environment) -> int:
    """Everything in one process and one event loop."""
    from app import embedded, serving
    from app.gateway.server import attach as attach_gateway
    from app.http.server import create_app
    from app.worker.server import attach as attach_worker

    folder = arguments.data_dir or Path(env.get("DESKLINE_DATA_DIR") or "data")
    if arguments.port == arguments.gateway_port:
        raise CliError("--port and --gateway-port are the same: choose two different ports.")
    with embedded.data_dir(folder) as data_dir:
        place = embedded.Place(data_dir, arguments.port, arguments.gateway_port)
        host = env.get("DESKLINE_GATEWAY_HOST") or "127.0.0.1"
        # bound for a moment only, so that a taken port is told before anything is started
        serving.open_socket(host, place.gateway_port, "--gateway-port").close()
        with embedded.private_redis(data_dir) as redis_url:
            settings = config.load("run", embedded.environment(place, redis_url, env))
            if not arguments.api_only:
                embedded.check_web_files(settings.web_root)
            with (data_dir / embedded.LOG_FILE).open("w", encoding="utf-8") as stream:
                log.setup(
                    level=settings.log_level, node=settings.node, process="run", stream=stream
                )
                _prepare_demo(settings)
                app = create_app(settings)
                attach_gateway(app, settings)
                attach_worker(app, settings)

                async def announce() -> None:
                    await serving.wait_until_ready(settings.web_host, settings.web_port)
                    print(_WELCOME.format(url=settings.public_url), flush=True)

                listener = Listener(app, settings.web_host, settings.web_port)
                serving.run(
                    [(listener, "--port")],
                    drain_seconds=settings.drain_seconds,
                    when_ready=announce,
                )
    return 0


_WELCOME: Final = f"""\
Deskline is running (Ctrl-C stops it)
  Demo shop with the widget   {{url}}/
  Staff login                 {{url}}/login   {DEMO_EMAIL} / {DEMO_PASSWORD}
  API documentation           {{url}}/docs"""


def _prepare_demo(settings: Settings) -> None:
    from app.db import migrate

    migrate.upgrade(settings.database_url, say=lambda _line: None)
    with _database(settings) as connection:
        _make_demo(connection)


# --- operators' commands --------------------------------------------------------------------------


@contextmanager
def _database(settings: Settings) -> Iterator[Connection]:
    """A writing transaction on the primary; errors become one sentence."""
    from sqlalchemy.exc import SQLAlchemyError

    from app.db import engines

    engine = engines.make_engine(settings.database_url, pool_size=1)
    try:
        with engines.write_transaction(engine) as connection:
            yield connection
    except SQLAlchemyError as error:
        raise CliError(_database_problem(settings.database_url, error)) from None
    finally:
        engine.dispose()


def _database_problem(url: str, error: Exception) -> str:
    from sqlalchemy import make_url
    from sqlalchemy.exc import OperationalError, ProgrammingError

    from app.db import engines

    shown = make_url(url).render_as_string(hide_password=True)
    reason = engines.reason(error)
    if engines.is_unavailable(error):
        advice = "check that it runs, the address, the account and the firewall"
    elif isinstance(error, (OperationalError, ProgrammingError)):
        advice = "run `python -m app migrate` first, and check the account's rights"
    else:
        advice = "see the database's own log"
    return f"The database {shown} refused ({reason}): {advice}."


def _migrate(_arguments: argparse.Namespace, env: Environment) -> int:
    from sqlalchemy.exc import SQLAlchemyError

    from app.db import migrate

    settings = _load("migrate", env)

    def say(line: str) -> None:
        print(line, flush=True)

    try:
        done = migrate.upgrade(settings.database_url, say=say)
    except migrate.MigrationError as error:
        raise CliError(str(error)) from None
    except SQLAlchemyError as error:
        raise CliError(_database_problem(settings.database_url, error)) from None
    if done.changed:
        say(f"migrate: changed {done.before} -> {done.after}")
    else:
        say(f"migrate: unchanged {done.after}")
    return 0


def _read_password() -> str:
    from app.chat import accounts

    password = sys.stdin.readline().rstrip("\r\n")
    if not accounts.PASSWORD_MIN_CHARACTERS <= len(password) <= accounts.PASSWORD_MAX_CHARACTERS:
        raise CliError(
            f"The password should have {accounts.PASSWORD_MIN_CHARACTERS} to "
            f"{accounts.PASSWORD_MAX_CHARACTERS} characters, on one line of stdin."
        )
    return password


def _user_create(arguments: argparse.Namespace, env: Environment) -> int:
    from app.chat import accounts

    settings = _load("migrate", env)
    if not re.fullmatch(r"[^@\s]{1,64}@[^@\s]{1,189}", arguments.email.strip()):
        raise CliError("--email should be an e-mail address, as ann@example.com.")
    if not 1 <= len(arguments.name.strip()) <= 100:
        raise CliError("--name should have 1 to 100 characters.")
    password = _read_password()
    with _database(settings) as connection:
        created = accounts.create(
            connection,
            email=arguments.email,
            name=arguments.name.strip(),
            role=arguments.role,
            password=password,
        )
    print("user: created" if created else "user: exists")
    return 0


def _user_password(arguments: argparse.Namespace, env: Environment) -> int:
    from app.chat import accounts

    settings = _load("migrate", env)
    password = _read_password()
    with _database(settings) as connection:
        found = accounts.set_password(connection, email=arguments.email, password=password)
    if not found:
        raise CliError("No account has that address: check --email, or use `user create`.")
    print("user: password set")
    return 0


def _user_reset_totp(arguments: argparse.Namespace, env: Environment) -> int:
    from app.chat import accounts

    settings = _load("migrate", env)
    with _database(settings) as connection:
        found = accounts.reset_second_factor(connection, email=arguments.email)
    if not found:
        raise CliError("No account has that address: check --email.")
    print("user: second factor turned off")
    return 0


def _inbox_create(arguments: argparse.Namespace, env: Environment) -> int:
    from app.chat import inboxes

    settings = _load("migrate", env)
    if not 1 <= len(arguments.name.strip()) <= 100:
        raise CliError("--name should have 1 to 100 characters.")
    if arguments.key is not None and not re.fullmatch(r"[A-Za-z0-9_\-]{1,64}", arguments.key):
        raise CliError("--key should be 1 to 64 letters, digits, - or _.")
    with _database(settings) as connection:
        key, created = inboxes.create(connection, name=arguments.name.strip(), key=arguments.key)
    print(f"inbox: {'created' if created else 'exists'} key={key}")
    return 0


def _demo(_arguments: argparse.Namespace, env: Environment) -> int:
    settings = _load("migrate", env)
    if not settings.is_demo:
        raise CliError(
            "The demo account has a public password: it is made only with DESKLINE_ENV=demo, "
            "never on a real deployment. Use `user create` and `inbox create` instead."
        )
    with _database(settings) as connection:
        created = _make_demo(connection)
    print("demo: created" if created else "demo: unchanged")
    return 0


def _make_demo(connection: Connection) -> bool:
    from app.chat import accounts, inboxes

    made = [
        accounts.create(connection, email=email, name=name, role=role, password=DEMO_PASSWORD)
        for email, name, role in (
            (DEMO_EMAIL, "Demo Admin", "admin"),
            (DEMO_AGENT_EMAIL, "Demo Agent", "agent"),
        )
    ]
    _, inbox = inboxes.create(connection, name="Demo shop", key=DEMO_INBOX_KEY)
    return any(made) or inbox


def _checkconfig(arguments: argparse.Namespace, env: Environment) -> int:
    from app.gateway import applications

    problems = config.unknown_names(arguments.file_names)
    try:
        settings = config.load(arguments.process, env)
        if arguments.process in ("gateway", "run"):
            applications.load(settings)
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(problems)
    print(f"checkconfig: the settings for {arguments.process} are valid")
    return 0


def _doctor(arguments: argparse.Namespace, env: Environment) -> int:
    from app import doctor

    settings = _load(arguments.process, env)
    checks = doctor.examine(settings)
    for check in checks:
        print(f"{'ok  ' if check.ok else 'FAIL'}  {check.name}: {check.finding}")
    return 0 if all(check.ok for check in checks) else 1
