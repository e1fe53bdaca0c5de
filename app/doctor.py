"""What ``python -m app doctor`` looks at: the things a process needs, as this process sees them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

from redis.exceptions import RedisError
from sqlalchemy import Connection, make_url, text
from sqlalchemy.exc import SQLAlchemyError

from app.bus import connection as redis_connection
from app.config import Settings
from app.db import engines, migrate
from app.worker import smtp


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at; ``finding`` says what was seen or what to do."""

    name: str
    ok: bool
    finding: str


def examine(settings: Settings) -> list[Check]:
    """Look at everything that the settings of the process name."""
    return list(_examine(settings))


def _examine(settings: Settings) -> Iterator[Check]:
    yield Check("settings", True, f"valid for {settings.process}")
    if settings.database_url:
        yield _database("database", settings.database_url)
    if settings.database_replica_url:
        yield _database("replica", settings.database_replica_url)
    if settings.redis_url and settings.process != "migrate":
        yield asyncio.run(_redis(settings))
    if settings.process in ("web", "run"):
        has_pages = (settings.web_root / "widget.js").is_file()
        where = settings.web_root.resolve()
        finding = f"in {where}" if has_pages else f"none in {where}; the balancer must serve them"
        yield Check("web files", True, finding)
    if settings.process in ("web", "worker", "run"):
        yield _mail(settings)


def _mail(settings: Settings) -> Check:
    server = settings.smtp
    if not settings.mail_from:
        finding = "none: set DESKLINE_SMTP_URL and DESKLINE_MAIL_FROM for invitations and the like"
        return Check("mail", True, finding)
    if server is None:
        return Check("mail", True, f"from {settings.mail_from}; the worker sends it")
    where = f"{server.host}:{server.port}"
    try:
        smtp.hang_up(smtp.connect(server))
    except OSError as error:
        return Check(
            "mail",
            False,
            f"{where} cannot be used ({smtp.reason(error)}): check DESKLINE_SMTP_URL "
            "(address, STARTTLS, account), the server's certificate and the firewall",
        )
    return Check("mail", True, f"{where} takes our connection; from {settings.mail_from}")


def _database(name: str, url: str) -> Check:
    shown = make_url(url).render_as_string(hide_password=True)
    engine = engines.make_engine(url, pool_size=1)
    try:
        with engines.read_transaction(engine) as connection:
            revision = migrate.current(connection)
            version = _version(connection)
    except (SQLAlchemyError, OSError) as error:
        return Check(
            name,
            False,
            f"{shown} does not answer ({engines.reason(error)}): check address, "
            "account and firewall",
        )
    finally:
        engine.dispose()
    if revision != migrate.head():
        finding = f"{shown} has revision {revision}, wanted {migrate.head()}: run migrate"
        return Check(name, False, finding)
    return Check(name, True, f"{shown}, {version}, revision {revision}")


def _version(connection: Connection) -> str:
    if connection.dialect.name == "mysql":
        row = connection.execute(text("SELECT VERSION(), @@super_read_only")).one()
        return f"MySQL {row[0]}, {'read-only' if row[1] else 'writable'}"
    return f"SQLite {connection.execute(text('SELECT sqlite_version()')).scalar_one()}"


async def _redis(settings: Settings) -> Check:
    client = redis_connection.connect(settings.redis_url)
    try:
        # publishing is what the process does: it also shows a missing right
        await client.publish("deskline:doctor", b"")
    except (RedisError, OSError, TimeoutError) as error:
        return Check(
            "redis",
            False,
            f"does not take a message ({type(error).__name__}): check "
            "DESKLINE_REDIS_URL, the account's rights and the firewall",
        )
    finally:
        await client.aclose()
    return Check("redis", True, "takes messages")
