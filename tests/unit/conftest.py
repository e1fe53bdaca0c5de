"""A migrated SQLite database with an inbox, visitors, an agent and conversations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import Engine, insert

from app import clock, config
from app.config import Settings
from app.db import engines, migrate, schema
from app.db.engines import Database

SECRETS = {
    "DESKLINE_SECRET_KEY": "k" * 40,
    "DESKLINE_PUSHER_APP_ID": "app1",
    "DESKLINE_PUSHER_KEY": "key1",
    "DESKLINE_PUSHER_SECRET": "a-secret-for-tests-only",
    "DESKLINE_PUBLIC_URL": "http://chat.example",
    "DESKLINE_REDIS_URL": "redis://127.0.0.1:1/0",
}


def settings_for(primary: Path, replica: Path | None = None, **more: str) -> Settings:
    """Settings of a web process over SQLite files; its Redis is a port where nobody listens."""
    env = {**SECRETS, "DESKLINE_DATABASE_URL": f"sqlite:///{primary}", **more}
    if replica is not None:
        env["DESKLINE_DATABASE_REPLICA_URL"] = f"sqlite:///{replica}"
    return config.load("web", env)


def make_database(path: Path, *, conversations: int = 3) -> None:
    """A migrated database with ``conversations`` conversations, one per visitor, ids from 1."""
    migrate.upgrade(f"sqlite:///{path}", say=lambda _line: None)
    engine = engines.make_engine(f"sqlite:///{path}")
    fill(engine, conversations=conversations)
    engine.dispose()


def fill(engine: Engine, *, conversations: int = 3) -> None:
    """Put an inbox, an agent and conversations with a visitor each into a migrated database."""
    now = clock.now()
    with engines.write_transaction(engine) as connection:
        connection.execute(
            insert(schema.inboxes).values(
                id=1,
                key="k",
                name="Shop",
                greeting="Hi",
                color="#000000",
                languages="en",
                created_at=now,
            )
        )
        connection.execute(
            insert(schema.users).values(
                id=1,
                email="ann@example.com",
                name="Ann",
                role="agent",
                password_hash="x",
                active=True,
                created_at=now,
            )
        )
        for number in range(1, conversations + 1):
            connection.execute(
                insert(schema.visitors).values(
                    id=number,
                    inbox_id=1,
                    name=f"Visitor {number}",
                    first_seen_at=now,
                    last_seen_at=now,
                )
            )
            connection.execute(
                insert(schema.conversations).values(
                    id=number,
                    inbox_id=1,
                    visitor_id=number,
                    status="open",
                    last_seq_public=0,
                    last_seq_staff=0,
                    version=0,
                    created_at=now,
                    updated_at=now,
                )
            )


@dataclass(frozen=True)
class Stand:
    """A database file and an engine for it."""

    path: Path
    engine: Engine


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    path = tmp_path / "deskline.db"
    make_database(path)
    engine = engines.make_engine(f"sqlite:///{path}")
    yield Stand(path, engine)
    engine.dispose()


@pytest.fixture
def database(stand: Stand) -> Iterator[Database]:
    opened = Database(settings_for(stand.path))
    yield opened
    opened.close()
