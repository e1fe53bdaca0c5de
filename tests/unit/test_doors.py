"""What a send is checked with is seldom read, and never waited for when the database is away."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from app.chat import blocking, doors
from app.chat.doors import Doors
from app.chat.errors import NotFound, Refused
from app.chat.permissions import Actor
from app.db.engines import Database, Unavailable

ACTOR = Actor("agent", 1, "Ann")


class Away:
    """Counts what is asked, and may be away or slow."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.asked = 0
        self.away = False

    async def run(self, work: Callable[..., Any], *args: Any) -> Any:
        self.asked += 1
        if self.away:
            raise Unavailable("away")
        return await self.database.run(work, *args)

    def read(self) -> Any:
        return self.database.read()

    def view(self) -> Any:
        return self.database.view()


@pytest.fixture
def away(database: Database) -> Away:
    return Away(database)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [time.monotonic()]
    monkeypatch.setattr(doors.time, "monotonic", lambda: now[0])
    return now


async def test_networks_are_read_once_in_a_few_seconds(away: Away, clock: list[float]) -> None:
    door = Doors(away)  # type: ignore[arg-type]
    for _ in range(5):
        await door.admit("192.0.2.7")
    assert away.asked == 1
    blocking.create(away.database, ACTOR, network="192.0.2.0/24", reason="")
    await door.admit("192.0.2.7")
    clock[0] += doors.KEPT_SECONDS
    with pytest.raises(Refused):
        await door.admit("192.0.2.7")
    await door.admit("198.51.100.1")
    assert away.asked == 2


async def test_the_process_that_blocks_knows_at_once(away: Away, clock: list[float]) -> None:
    door = Doors(away)  # type: ignore[arg-type]
    await door.admit("192.0.2.7")
    blocking.create(away.database, ACTOR, network="192.0.2.7/32", reason="")
    door.forget()
    with pytest.raises(Refused):
        await door.admit("192.0.2.7")


async def test_while_the_database_is_away_the_last_list_serves(
    away: Away, clock: list[float]
) -> None:
    door = Doors(away)  # type: ignore[arg-type]
    blocking.create(away.database, ACTOR, network="192.0.2.7/32", reason="")
    with pytest.raises(Refused):
        await door.admit("192.0.2.7")
    assert not (await door.of_inbox(1)).archived
    away.away = True
    clock[0] += 100 * doors.KEPT_SECONDS
    with pytest.raises(Refused):
        await door.admit("192.0.2.7")
    await door.admit("198.51.100.1")
    assert not (await door.of_inbox(1)).archived
    # nothing was ever read: who may write is not known
    with pytest.raises(Unavailable):
        await Doors(away).admit("198.51.100.1")  # type: ignore[arg-type]
    with pytest.raises(Unavailable):
        await Doors(away).of_inbox(1)  # type: ignore[arg-type]


async def test_an_inbox_that_does_not_exist(away: Away) -> None:
    with pytest.raises(NotFound):
        await Doors(away).of_inbox(77)  # type: ignore[arg-type]
