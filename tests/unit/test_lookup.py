"""Group look-up: one SELECT for all who ask at the same time, and nothing kept."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from sqlalchemy import select

from app.db import lookup, schema
from app.db.engines import Unavailable
from app.db.hot import HotStatement
from app.db.lookup import GroupLookup

KEYS = schema.sessions.c.token_hash


class Table:
    """Answers like a database of {key: value}; holds its answers back while the gate is shut."""

    def __init__(self, **rows: int) -> None:
        self.rows = rows
        self.asked: list[list[str]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def fetch(
        self, statement: HotStatement, parameters: Mapping[str, Any]
    ) -> Sequence[tuple[str, int]]:
        keys = list(parameters.values())
        self.asked.append(keys)
        found = [(key, self.rows[key]) for key in dict.fromkeys(keys) if key in self.rows]
        await self.gate.wait()
        return found


def lookup_in(table: Table) -> GroupLookup:
    return GroupLookup(select(KEYS, schema.sessions.c.user_id), KEYS, table.fetch)


async def test_each_gets_its_own_row_or_none() -> None:
    table = Table(a=1, b=2)
    found = lookup_in(table)
    rows = await asyncio.gather(*(found.find(key) for key in ("a", "b", "c", "a")))
    assert rows == [("a", 1), ("b", 2), None, ("a", 1)]
    assert len(table.asked) == 1
    assert len(table.asked[0]) == 4  # three keys fill a statement for four


async def test_what_was_revoked_is_not_found_by_a_later_request() -> None:
    table = Table(a=1)
    found = lookup_in(table)
    table.gate.clear()
    early = asyncio.create_task(found.find("a"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert table.asked == [["a"]]
    del table.rows["a"]
    late = asyncio.create_task(found.find("a"))
    await asyncio.sleep(0)
    table.gate.set()
    assert await early == ("a", 1)
    assert await late is None


async def test_a_failure_reaches_all_who_asked_and_the_next_one_tries_again() -> None:
    async def broken(_statement: HotStatement, _parameters: Mapping[str, Any]) -> Sequence[Any]:
        raise Unavailable("away")

    found = GroupLookup(select(KEYS), KEYS, broken)
    outcomes = await asyncio.gather(found.find("a"), found.find("b"), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [Unavailable, Unavailable]
    with pytest.raises(Unavailable):
        await found.find("a")


async def test_one_who_leaves_does_not_take_the_others_along() -> None:
    table = Table(a=1)
    found = lookup_in(table)
    table.gate.clear()
    leaving, staying = (asyncio.create_task(found.find("a")) for _ in range(2))
    await asyncio.sleep(0)
    leaving.cancel()
    table.gate.set()
    assert await staying == ("a", 1)


async def test_who_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "WAITING_KEYS", 2)
    monkeypatch.setattr(lookup, "GROUPS_UNDER_WAY", 0)
    found = lookup_in(Table())
    waiting = [asyncio.create_task(found.find(key)) for key in "ab"]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="too many"):
        await found.find("c")
    for task in waiting:
        task.cancel()


async def test_a_long_queue_is_asked_in_groups() -> None:
    table = Table(**{f"k{number}": number for number in range(500)})
    found = lookup_in(table)
    rows = await asyncio.gather(*(found.find(f"k{number}") for number in range(500)))
    assert [row[1] for row in rows if row is not None] == list(range(500))
    assert max(len(keys) for keys in table.asked) == lookup.GROUP_KEYS


@pytest.mark.parametrize("turns", range(8))
async def test_nobody_is_forgotten_when_a_group_ends_as_another_asks(
    monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    """The second one asks ``turns`` turns of the loop later, one of which is the group's last."""
    monkeypatch.setattr(lookup, "GROUPS_UNDER_WAY", 1)
    found = lookup_in(Table(a=1, b=2))

    async def ask_later() -> Sequence[Any] | None:
        for _turn in range(turns):
            await asyncio.sleep(0)
        return await found.find("b")

    # in both orders: the later task of a turn sees what the earlier one has done
    for asked in ((found.find("a"), ask_later()), (ask_later(), found.find("a"))):
        rows = await asyncio.wait_for(asyncio.gather(*asked), 5)
        assert set(rows) == {("a", 1), ("b", 2)}
