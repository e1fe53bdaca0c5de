"""The tests of the domain whose statements differ most between databases, on MySQL."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import delete, text

from app import config
from app.db import engines, migrate, schema
from app.db.engines import Database
from tests.unit.conftest import SECRETS, fill
from tests.unit.test_privacy import *  # noqa: F403  the same promises, another database
from tests.unit.test_reports import *  # noqa: F403
from tests.unit.test_retention import *  # noqa: F403
from tests.unit.test_webhooks import (  # noqa: F401
    test_a_webhook_with_enough_under_way_gets_no_more,
    test_retries_wait_longer_each_time_and_end_within_a_day,
)
from tools.private_mysql import Servers

NAME = "deskline_domain"


@pytest.fixture(scope="session")
def schema_url(mysql: Servers) -> str:
    """A schema of its own: these tests want an empty one each."""
    mysql.primary.sql(f"CREATE DATABASE {NAME}")
    migrate.upgrade(mysql.primary.url("migrate", NAME), say=lambda _line: None)
    return mysql.primary.url("app", NAME)


@pytest.fixture
def database(schema_url: str) -> Iterator[Database]:
    opened = Database(config.load("web", {**SECRETS, "DESKLINE_DATABASE_URL": schema_url}))
    with engines.write_transaction(opened.primary) as connection:
        connection.execute(text("SET SESSION foreign_key_checks = OFF"))
        for table in schema.metadata.sorted_tables:
            connection.execute(delete(table))
        connection.execute(text("SET SESSION foreign_key_checks = ON"))
    fill(opened.primary)
    yield opened
    opened.close()
