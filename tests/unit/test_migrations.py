"""Migrations: they make what the schema says, one run at a time."""

from __future__ import annotations

import threading
from pathlib import Path

import pymysql
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text
from sqlalchemy.dialects import mysql
from sqlalchemy.exc import OperationalError
from sqlalchemy.schema import CreateTable

from app import cli
from app.db import engines, migrate, schema

FTS5 = "message_search_fts"


def test_migrations_make_what_the_schema_says(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/x.db"
    done = migrate.upgrade(url, say=print)
    assert (done.before, done.after, done.changed) == ("base", migrate.head(), True)
    engine = engines.make_engine(url)
    with engine.connect() as connection:
        # the tables of FTS5 are its own
        ours = {"include_name": lambda name, _kind, _of: not str(name).startswith(FTS5)}
        context = MigrationContext.configure(connection, opts=ours)
        assert compare_metadata(context, schema.metadata) == []
    engine.dispose()


def test_the_last_line_is_what_plays_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DESKLINE_DATABASE_URL", f"sqlite:///{tmp_path}/x.db")
    assert cli.main(["migrate"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"migrate: changed base -> {migrate.head()}"
    assert cli.main(["migrate"]) == 0
    assert capsys.readouterr().out.splitlines() == [f"migrate: unchanged {migrate.head()}"]


def test_a_second_run_waits_and_finds_nothing_to_do(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/x.db"
    results: list[migrate.Migrated] = []
    said: list[str] = []
    threads = [
        threading.Thread(target=lambda: results.append(migrate.upgrade(url, say=said.append)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(r.changed for r in results) == [False, False, True]


def test_a_run_that_never_ends_is_reported(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/x.db"
    said: list[str] = []
    with (
        migrate._connect(url) as connection,
        migrate._only_one(connection, url, said.append, 1),
        pytest.raises(migrate.MigrationError, match="Another migration"),
    ):
        migrate.upgrade(url, say=said.append, wait_seconds=0.3)
    assert said == ["migrate: another run is at work; waiting for it to end"]


@pytest.mark.parametrize("busy", [2, migrate.LOCK_ATTEMPTS])
def test_a_table_in_use_is_waited_for_but_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, busy: int
) -> None:
    url, upgrade, said = f"sqlite:///{tmp_path}/x.db", command.upgrade, list[str]()
    failures = iter(range(busy))

    def fail(config: Config, revision: str) -> None:
        if next(failures, None) is not None:
            raise OperationalError("ALTER", None, pymysql.err.OperationalError(1205, "Lock wait"))
        upgrade(config, revision)

    monkeypatch.setattr(migrate.command, "upgrade", fail)
    monkeypatch.setattr(migrate, "_PAUSE_SECONDS", 0.0)
    if busy < migrate.LOCK_ATTEMPTS:
        assert migrate.upgrade(url, say=said.append).after == migrate.head()
        assert len(said) == busy
    else:
        with pytest.raises(migrate.MigrationError, match="start this run again"):
            migrate.upgrade(url, say=said.append)
    assert all("a table is in use" in line for line in said)


def test_a_database_of_a_newer_release_is_left_alone(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/x.db"
    migrate.upgrade(url, say=print)
    engine = engines.make_engine(url)
    with engines.write_transaction(engine) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(migrate.MigrationError, match="newer release"):
        migrate.upgrade(url, say=print)
    engine.dispose()


def test_a_run_that_was_killed_half_way_is_finished_by_the_next(tmp_path: Path) -> None:
    """As MySQL leaves it: the first tables are there, the revision is not."""
    url = f"sqlite:///{tmp_path}/x.db"
    engine = engines.make_engine(url)
    with engines.write_transaction(engine) as connection:
        for table in (schema.inboxes, schema.users, schema.sessions):
            table.create(connection)
    assert migrate.upgrade(url, say=print).changed
    assert "outbox" in inspect(engine).get_table_names()
    engine.dispose()


def test_mysql_gets_byte_wise_ids_and_microseconds() -> None:
    dialect = mysql.dialect()  # type: ignore[no-untyped-call]
    made = {
        table.name: str(CreateTable(table).compile(dialect=dialect))
        for table in schema.metadata.tables.values()
    }
    assert all("ENGINE=InnoDB" in ddl and "utf8mb4_0900_ai_ci" in ddl for ddl in made.values())
    assert "client_id VARCHAR(36) CHARACTER SET ascii COLLATE ascii_bin" in made["messages"]
    assert "created_at DATETIME(6)" in made["messages"]
    assert "PRIMARY KEY (conversation_id, stream, seq)" in made["messages"]
    assert not [name for name, ddl in made.items() if " DATETIME " in ddl or " DATETIME," in ddl]
