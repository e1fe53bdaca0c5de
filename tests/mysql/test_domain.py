"""The tests of the domain whose statements differ most between databases, on MySQL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import delete, insert, select, text, update

from app import clock, config
from app.chat import retention, visitors
from app.chat.permissions import VisitorIdentity
from app.chat.retention import Old
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


def test_a_visitor_that_writes_just_then_is_not_removed(database: Database) -> None:
    then = clock.now() - timedelta(days=1000)
    row = {"inbox_id": 1, "name": "Idle", "first_seen_at": then, "last_seen_at": then}
    with database.write() as connection:
        key = connection.execute(insert(schema.visitors).values(**row)).inserted_primary_key
        assert key is not None
        visitor_id = int(key[0])
        kept = retention.inboxes(connection, retention.Rules(idle_visitor_days=1))

    def remove() -> int:
        with database.write() as connection:
            return retention.remove_visitors(connection, kept, Old(), 100)[0]

    with ThreadPoolExecutor(1) as worker:
        with database.write() as connection:  # as the writer does it
            mine = schema.visitors.c.id == visitor_id
            connection.execute(select(schema.visitors.c.id).where(mine).with_for_update())
            removing = worker.submit(remove)
            with pytest.raises(TimeoutError):
                removing.result(1)
            connection.execute(
                insert(schema.conversations).values(
                    inbox_id=1,
                    visitor_id=visitor_id,
                    status="open",
                    last_seq_public=0,
                    last_seq_staff=0,
                    version=0,
                    created_at=clock.now(),
                    updated_at=clock.now(),
                )
            )
        assert removing.result(20) == 0
    assert remove() == 0
