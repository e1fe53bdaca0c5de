"""Group look-up: requests that ask for one row by its key at the same time share one SELECT.

Every staff request asks for its session. A look-up of its own costs a round trip and a connection
for each; gathered, they cost one for all that came while the previous ones were under way. Nothing
is kept: a row is always read after its request arrived, so that what was revoked is not found.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, bindparam

from app.db.engines import Unavailable
from app.db.hot import HotStatement

GROUP_KEYS: Final = 64
GROUPS_UNDER_WAY: Final = 4
WAITING_KEYS: Final = 4096

Fetch = Callable[[HotStatement, Mapping[str, Any]], Awaitable[Sequence[Any]]]


class GroupLookup:
    """Finds rows of one SELECT by the value of one column. Used on one event loop.

    ``select`` yields the key as its first column, and at most one row for each key. ``fetch`` is
    given a statement and its parameters, and awaited for the rows.
    """

    def __init__(self, select: Select[Any], key: ColumnElement[str], fetch: Fetch) -> None:
        self._select = select
        self._key = key
        self._fetch = fetch
        self._statements: dict[int, HotStatement] = {}
        self._waiting: dict[str, asyncio.Future[Sequence[Any] | None]] = {}
        self._under_way = 0
        self._tasks: set[asyncio.Task[None]] = set()  # the loop itself keeps weak references only

    async def find(self, key: str) -> Sequence[Any] | None:
        """The row of ``key``; None when there is none. Raises what ``fetch`` raises."""
        found = self._waiting.get(key)
        if found is None:
            if len(self._waiting) >= WAITING_KEYS:
                raise Unavailable("too many look-ups are waiting")
            found = asyncio.get_running_loop().create_future()
            self._waiting[key] = found
            if self._under_way < GROUPS_UNDER_WAY:
                self._start()
        # one caller that stops waiting must not cancel the others
        return await asyncio.shield(found)

    def _start(self) -> None:
        self._under_way += 1
        task = asyncio.get_running_loop().create_task(self._work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self) -> None:
        while self._waiting:
            group = {key: self._waiting.pop(key) for key in list(self._waiting)[:GROUP_KEYS]}
            try:
                rows = await self._fetch(*self._question(list(group)))
            except Exception as error:  # noqa: BLE001  told to everyone who asked
                for found in group.values():
                    if not found.done():
                        found.set_exception(error)
                        found.exception()  # a caller that left will not fetch it
                continue
            by_key = {row[0]: row for row in rows}
            for key, found in group.items():
                if not found.done():
                    found.set_result(by_key.get(key))
        # in the same step in which nobody was seen waiting: whoever comes now starts a group
        self._under_way -= 1

    def _question(self, keys: list[str]) -> tuple[HotStatement, dict[str, Any]]:
        """The statement for as many keys, and its parameters.

        There are statements for 1, 2, 4, … keys only, so that few are compiled and prepared; the
        last key fills the rest.
        """
        size = 1 << (len(keys) - 1).bit_length()
        statement = self._statements.get(size)
        if statement is None:
            wanted = self._key.in_([bindparam(f"key{number}") for number in range(size)])
            statement = HotStatement(self._select.where(wanted))
            self._statements[size] = statement
        filled = keys + keys[-1:] * (size - len(keys))
        return statement, {f"key{number}": key for number, key in enumerate(filled)}
