"""Gateways that go and come back behind the deployed Nginx, and how the ledger tells of it."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from pathlib import Path
from random import Random

import pytest

from bench.faults import WELL_AGAIN
from bench.gateway import deployed, outages
from bench.ledger import report
from bench.ledger.book import Book
from bench.ledger.people import Habits, Page, Person, Tally, World
from bench.ledger.target import Target
from bench.ledger.wire import Client

MARKS = [(100.0, "one"), (103.0, WELL_AGAIN), (200.0, "two"), (202.0, WELL_AGAIN)]


def test_the_report_tells_when_everybody_was_back() -> None:
    told = report.outages(
        [
            (99.0, "a", "closed 1006"),  # before anything was broken
            (100.5, "a", "closed 1006"),
            (100.6, "b", "resync"),
            (101.0, "b", "back"),
            (102.5, "a", "back"),
            (200.5, "c", "closed 4200"),
            (201.4, "a", "closed 4200"),
            (201.6, "b", "closed 1006"),
            (202.0, "c", "back"),
            (202.0, "b", "back"),
        ],
        MARKS,
    )
    assert told[0] == {
        "what": "one",
        "sockets_closed": {"closed 1006": 1},
        "resyncs": 1,
        "everybody_back_after_seconds": 2.5,
        "away_seconds": {"p50": 2.0, "max": 2.0},
    }
    # "a" never came back
    assert told[1]["everybody_back_after_seconds"] is None
    assert told[1]["sockets_closed"] == {"closed 4200": 2, "closed 1006": 1}
    assert len(told) == 2


class Reading(Person):
    """A person whose pages of history come when the test says so, and are empty."""

    def __init__(self, world: World) -> None:
        super().__init__(world, "reading")
        self.page_may_come = asyncio.Event()

    async def history(self, conversation_id: int, stream: str, query: dict[str, int]) -> Page:
        await self.page_may_come.wait()
        return Page([], has_more=False, read_from="")


@pytest.mark.parametrize("last", ["the channel's confirmation", "the page of history"])
async def test_who_is_still_reading_is_back_when_the_last_page_is_there(last: str) -> None:
    target = Target("http", "127.0.0.1", 1, "127.0.0.1")
    world = World(
        Client(target), target, "/app/k", "", Book(), Tally(), Habits(), Random(1), time.time() + 60
    )
    person = Reading(world)
    reader = person.watch_channel("private-conversation.1", 1, "public")
    person.online = True
    person._returning = True
    person._unconfirmed = {"private-user.1"}
    confirmed = b'{"event":"pusher_internal:subscription_succeeded","channel":"private-user.1"}'
    reader.catch_up("hole")
    await asyncio.sleep(0)
    if last == "the page of history":
        person._on_message(confirmed)
        assert world.tally.returns == []
    person.page_may_come.set()
    assert reader._task is not None
    await reader._task
    if last == "the channel's confirmation":
        assert world.tally.returns == []
        person._on_message(confirmed)
    assert [what for _, _, what in world.tally.returns] == ["back"]
    await person.leave()


@pytest.mark.timeout(240)
@pytest.mark.skipif(os.geteuid() != 0, reason="not root: Debian's Nginx keeps its folders to root")
@pytest.mark.skipif(deployed.NGINX is None, reason="no Nginx here (apt-get install nginx-light)")
@pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server here")
def test_nothing_is_lost_behind_the_deployed_nginx(tmp_path: Path) -> None:
    """Redis restarted, one gateway killed, the other drained; all through the role's Nginx."""
    told = outages.run(tmp_path, visitors=16, agents=3, rate=20, seconds=15)
    assert told["problems"] == []
    assert told["counts"]["lost"] == told["counts"]["doubled"] == 0
    redis, killed, drained = told["outages"]
    assert redis["sockets_closed"] == {}, "Redis took sockets with it"
    assert set(killed["sockets_closed"]) == {"closed 1006"}
    assert told["drain"]["cut_off"] == 0
    # All are on one gateway now. Nginx must give them to the other at once, although that one was
    # dead a moment ago: it once let one client in every 6 s.
    assert drained["sockets_closed"] == {"closed 4200": 19}
    assert drained["away_seconds"]["max"] < 5.0
