"""A migration that finds a table in use does not stand in the way of everybody else."""

from __future__ import annotations

import time

import pytest
from alembic.config import Config
from sqlalchemy import create_engine, text

from app.db import migrate
from app.db.migrate import MigrationError
from tools.private_mysql import Servers

# the servers are started within the first test
pytestmark = pytest.mark.timeout(300)


def test_a_waiting_alter_gives_up_soon_and_is_tried_again(
    mysql: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = mysql.primary.url("migrate")
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE in_use (id INT PRIMARY KEY)"))

    def alter(config: Config, _revision: str) -> None:
        config.attributes["connection"].execute(text("ALTER TABLE in_use ADD COLUMN more INT"))

    monkeypatch.setattr(migrate.command, "upgrade", alter)
    monkeypatch.setattr(migrate, "head", lambda: "one more")
    monkeypatch.setattr(migrate, "LOCK_WAIT_SECONDS", 1)
    monkeypatch.setattr(migrate, "_PAUSE_SECONDS", 0.1)
    said: list[str] = []
    try:
        with engine.connect() as reader:
            reader.execute(text("SELECT * FROM in_use"))

            def say(line: str) -> None:
                said.append(line)
                reader.rollback()

            began = time.monotonic()
            migrate.upgrade(url, say=say)
        assert time.monotonic() - began < 10
        assert len(said) == 1
        with engine.connect() as connection:
            assert connection.execute(text("SELECT more FROM in_use")).all() == []
    finally:
        with engine.begin() as connection:
            connection.execute(text("DROP TABLE in_use"))
        engine.dispose()
        mysql.catch_up()


def test_a_second_run_on_mysql_waits_for_the_first(mysql: Servers) -> None:
    url = mysql.primary.url("migrate")
    engine = create_engine(url)
    said: list[str] = []
    lock = {"name": migrate.LOCK_NAME}
    try:
        with engine.connect() as first:
            assert first.execute(text("SELECT GET_LOCK(:name, 0)"), lock).scalar() == 1
            with pytest.raises(MigrationError, match="still runs"):
                migrate.upgrade(url, say=said.append, wait_seconds=1)
            assert len(said) == 1

            def say(line: str) -> None:
                said.append(line)
                first.execute(text("SELECT RELEASE_LOCK(:name)"), lock)

            assert not migrate.upgrade(url, say=say, wait_seconds=30).changed
            # and it leaves the lock behind for the next one
            assert first.execute(text("SELECT GET_LOCK(:name, 5)"), lock).scalar() == 1
        assert len(said) == 2
    finally:
        engine.dispose()
