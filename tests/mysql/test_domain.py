"""The tests of the domain whose statements differ most between databases, on MySQL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import delete, select, text, update

from app import config
from app.chat import visitors
from app.chat.permissions import VisitorIdentity
from app.chat.visitors import Arrival, Identity, Page
from app.db import engines, migrate, schema
from app.db.engines import Database
from tests.unit.conftest import SECRETS, fill
from tests.unit.test_privacy import *  # noqa: F403  the same promises, another database
from tests.unit.test_reports import *  # noqa: F403
from tests.unit.test_retention import *  # noqa: F403
from tests.unit.test_webhooks import (  # noqa: F401
    test_a_long_log_goes_in_parts_with_its_webhook,
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


def test_attributes_of_two_tabs_are_all_kept(database: Database) -> None:
    def arrival(name: str) -> Arrival:
        identity = Identity(attributes={name: "x"})
        return Arrival("k", VisitorIdentity(1, 1), Page(), "en", "", None, identity)

    with ThreadPoolExecutor(1) as other_tab:
        with database.write() as connection:
            connection.execute(
                update(schema.visitors)
                .where(schema.visitors.c.id == 1)
                .values(attributes='{"first": "x"}')
            )
            later = other_tab.submit(visitors.open_session, database, arrival("second"))
            # it has read the visitor, and waits for the row
            with pytest.raises(TimeoutError):
                later.result(1)
        later.result(20)
    with database.read() as connection:
        kept = connection.execute(
            select(schema.visitors.c.attributes).where(schema.visitors.c.id == 1)
        ).scalar_one()
    assert json.loads(kept) == {"first": "x", "second": "x"}
