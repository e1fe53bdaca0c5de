"""The outbox drops what expired, and nobody waits for another who does the same."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from sqlalchemy import delete, select, update

from app import clock
from app.db import outbox, schema
from app.db.engines import Database
from tests.unit.conftest import settings_for
from tools.private_mysql import Servers

# the servers are started within the first test
pytestmark = pytest.mark.timeout(300)


def test_expired_rows_are_dropped_without_waiting_for_another_who_drops_them(
    mysql: Servers, tmp_path: Path
) -> None:
    settings = settings_for(tmp_path / "x.db", DESKLINE_DATABASE_URL=mysql.primary.url("app"))
    database, table = Database(settings), schema.outbox
    messages = select(table.c.message).order_by(table.c.id)
    try:
        with database.write() as connection:
            connection.execute(delete(table))
        outbox.keep(database, [("c", "old 1"), ("c", "old 2")])
        with database.write() as connection:
            expired = clock.now() - 2 * outbox.EVENT_LIFETIME
            connection.execute(update(table).values(created_at=expired))
        with database.write() as other:
            other.execute(select(table.c.id).order_by(table.c.id).limit(1).with_for_update())
            began = time.monotonic()
            outbox.keep(database, [("c", "new")])
            assert time.monotonic() - began < 2
        with database.write() as connection:
            assert connection.execute(messages).scalars().all() == ["old 1", "new"]
            connection.execute(delete(table))
    finally:
        database.close()
        mysql.catch_up()
