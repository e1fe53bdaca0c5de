"""What stands between a visitor and its first message: blocked networks, the inbox's form.

Every send asks, and it changes seldom: it is kept in the process for a few seconds.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Final

from app import log
from app.chat import blocking, inboxes
from app.chat.blocking import NetworkSet
from app.chat.errors import Refused
from app.chat.inboxes import FormField
from app.db.engines import Database, Unavailable

KEPT_SECONDS: Final = 3.0
# how long a send waits for a fresh list; the old one serves when the database is slow or away
WAIT_SECONDS: Final = 0.5
_INBOXES_MAX: Final = 1000


@dataclass(frozen=True, slots=True)
class Door:
    """What the first message to an inbox is checked with."""

    archived: bool
    pre_chat: tuple[FormField, ...]


class Doors:
    """Blocked networks and inboxes, as they were at most a few seconds ago. For one event loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._networks: NetworkSet | None = None
        self._networks_until = 0.0
        self._refreshing = asyncio.Lock()
        self._inboxes: dict[int, tuple[float, Door]] = {}

    def forget(self) -> None:
        """Something was changed by this process: look anew."""
        self._networks_until = 0.0
        self._inboxes.clear()

    async def admit(self, address: str) -> None:
        """Raise :class:`Refused` when the address is in a blocked network."""
        networks = self._networks
        if networks is None or time.monotonic() >= self._networks_until:
            async with self._refreshing:
                networks = await self._fresh_networks()
        if address in networks:
            raise visitor_blocked()

    async def of_inbox(self, inbox_id: int) -> Door:
        """The door of an inbox. Raises :class:`NotFound`."""
        now = time.monotonic()
        kept = self._inboxes.get(inbox_id)
        if kept is not None and now < kept[0]:
            return kept[1]
        try:
            door = await asyncio.wait_for(
                self._database.run(_door, self._database, inbox_id), WAIT_SECONDS
            )
        except (Unavailable, TimeoutError):
            if kept is None:
                raise Unavailable("the inbox could not be read") from None
            return kept[1]
        if len(self._inboxes) >= _INBOXES_MAX:
            self._inboxes.clear()
        self._inboxes[inbox_id] = (now + KEPT_SECONDS, door)
        return door

    async def _fresh_networks(self) -> NetworkSet:
        networks, now = self._networks, time.monotonic()
        if networks is not None and now < self._networks_until:
            # somebody else has just looked
            return networks
        try:
            networks = await asyncio.wait_for(
                self._database.run(blocking.load, self._database), WAIT_SECONDS
            )
        except (Unavailable, TimeoutError) as error:
            if networks is None:
                raise Unavailable("the blocked networks could not be read") from None
            log.get("doors").warning("blocked networks not read", reason=type(error).__name__)
        self._networks = networks
        self._networks_until = now + KEPT_SECONDS
        return networks


def visitor_blocked() -> Refused:
    """What a blocked visitor is told."""
    return Refused("visitor_blocked", "The support team does not take messages from this visitor.")


def _door(database: Database, inbox_id: int) -> Door:
    with database.view() as connection:
        row = inboxes.by_id(connection, inbox_id)
    return Door(row.archived_at is not None, tuple(inboxes.settings_of(row).pre_chat))
