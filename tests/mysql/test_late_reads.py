"""Search and reports read from the replica, unless it is away or far behind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from sqlalchemy import Connection, text

from app import clock, config
from app.chat import installation
from app.db import late
from app.db.engines import Database
from app.db.late import LateReads
from tests.unit.conftest import SECRETS
from tools.private_mysql import Servers


@pytest.fixture
async def reads(mysql: Servers) -> AsyncIterator[LateReads]:
    assert mysql.replica is not None
    env = {
        **SECRETS,
        "DESKLINE_DATABASE_URL": mysql.primary.url("app"),
        "DESKLINE_DATABASE_REPLICA_URL": mysql.replica.url("app"),
    }
    database = Database(config.load("web", env))
    yield LateReads(database)
    database.close()


def beat(reads: LateReads, ago: timedelta = timedelta()) -> None:
    with reads._database.write() as connection:
        installation.store(connection, late.HEARTBEAT, (clock.now() - ago).isoformat())


def server(connection: Connection) -> int:
    return int(connection.execute(text("SELECT @@server_id")).scalar_one())


async def test_the_replica_is_read_while_it_keeps_up(mysql: Servers, reads: LateReads) -> None:
    beat(reads)
    mysql.catch_up()
    assert await reads.read(server) == (2, "replica")
    assert await reads.lag() == 0


async def test_a_replica_far_behind_is_passed_over(mysql: Servers, reads: LateReads) -> None:
    assert mysql.replica is not None
    beat(reads, timedelta(minutes=5))
    mysql.catch_up()
    mysql.replica.sql("STOP REPLICA")
    try:
        beat(reads)
        assert await reads.read(server) == (1, "primary")
        assert 299 < (await reads.lag() or 0) < 310
        assert reads.reads["primary", "behind"] == 1
    finally:
        mysql.replica.sql("START REPLICA")
        mysql.catch_up()


async def test_a_replica_that_is_away_is_passed_over(mysql: Servers, reads: LateReads) -> None:
    assert mysql.replica is not None
    beat(reads)
    mysql.catch_up()
    mysql.replica.kill()
    try:
        assert await reads.read(server) == (1, "primary")
        assert await reads.read(server) == (1, "primary")
        assert reads.reads["primary", "failed"] == 1
        assert reads.reads["primary", "suspect"] == 1
    finally:
        mysql.replica.start()
        mysql.catch_up()
