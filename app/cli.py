"""The command line: ``python -m app <command>``.

Settings come from the environment, or from ``--env-file`` (which wins, so that a command does
what the file says). Secrets are read from stdin or the environment, never from arguments.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from app import config, log
from app.config import ConfigError, Settings
from app.serving import Listener, StartError


class CliError(Exception):
    """A command cannot do its work; the text is one sentence for the operator."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit status (0 done, 1 check failed, 2 cannot start)."""
    arguments = _parser().parse_args(argv)
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m app", description="Deskline, a self-hosted live support chat."
    )
    parser.add_argument(
        "--env-file",
        metavar="PATH",
        type=Path,
        help="read settings from this file (systemd EnvironmentFile syntax)",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    web = commands.add_parser("web", help="serve the HTTP API")
    web.set_defaults(handler=_web)
    gateway = commands.add_parser("gateway", help="serve WebSockets")
    gateway.set_defaults(handler=_gateway)
    check = commands.add_parser("checkconfig", help="check the settings and exit")
    check.add_argument(
        "--for",
        dest="process",
        choices=config.PROCESSES,
        default="web",
        help="the process whose settings are checked (default: web)",
    )
    check.set_defaults(handler=_checkconfig)
    return parser


def _environment(env_file: Path | None) -> tuple[Mapping[str, str], list[str]]:
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


def _checkconfig(arguments: argparse.Namespace, env: Mapping[str, str]) -> int:
    problems = config.unknown_names(arguments.file_names)
    try:
        config.load(arguments.process, env)
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(problems)
    print(f"checkconfig: the settings for {arguments.process} are valid")
    return 0


def _load(process: str, env: Mapping[str, str]) -> Settings:
    settings = config.load(process, env)
    log.setup(level=settings.log_level, node=settings.node, process=process)
    return settings


def _web(_arguments: argparse.Namespace, env: Mapping[str, str]) -> int:
    from app import serving  # noqa: PLC0415  each command imports only its own process
    from app.http.server import create_app  # noqa: PLC0415

    settings = _load("web", env)
    listener = Listener(create_app(settings), settings.web_host, settings.web_port)
    serving.run([(listener, "DESKLINE_WEB_PORT")], drain_seconds=settings.drain_seconds)
    return 0


def _gateway(_arguments: argparse.Namespace, env: Mapping[str, str]) -> int:
    from app import serving  # noqa: PLC0415
    from app.gateway.server import create_app  # noqa: PLC0415

    settings = _load("gateway", env)
    listener = Listener(create_app(settings), settings.gateway_host, settings.gateway_control_port)
    serving.run([(listener, "DESKLINE_GATEWAY_CONTROL_PORT")], drain_seconds=settings.drain_seconds)
    return 0
