"""Tells the world what changed, after the commit: builds the events and hands them to the bus.

A conversation's own event carries its state, so that many changes of one conversation that come
while the previous event is being built need one event only: :class:`Announcer` gathers them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

from app import log
from app.bus import events
from app.bus.events import Event
from app.chat import conversations, messages
from app.chat.channels import (
    conversation_channel,
    inbox_channel,
    staff_channel,
    visitor_channel,
)
from app.chat.conversations import Moved
from app.db import schema
from app.db.engines import Database, Unavailable
from app.db.writer import Stored

# how long the database is left alone when it could not be read
RETRY_SECONDS: Final = 1.0


class Publishes(Protocol):
    """What is needed of the bus: never blocks, never raises."""

    def publish(self, *batch: Event) -> None:
        """Queue events."""


class Announcer:
    """Publishes events of messages, conversations and read marks. Lives on one event loop."""

    def __init__(self, database: Database, publisher: Publishes) -> None:
        self.failures = 0
        self._database = database
        self._publisher = publisher
        self._touched: set[int] = set()
        self._opened: set[int] = set()
        self._changed: set[int] = set()
        self._wake = asyncio.Event()
        self._closing = False
        self._task = asyncio.create_task(self._work(), name="announcer")

    def messages_stored(self, stored: Sequence[Stored]) -> None:
        """Announce stored messages; clients pass over those that they have."""
        for item in stored:
            self._publisher.publish(_message_created(item))
            (self._opened if item.opened else self._touched).add(item.conversation_id)
        self._wake.set()

    def message_updated(self, message: dict[str, Any]) -> None:
        """Announce that a message was edited or deleted: it is given as it stands now."""
        conversation_id = message["conversation_id"]
        self._publisher.publish(
            events.make(
                _message_channel(conversation_id, schema.STREAMS[message["stream"]]),
                "message.updated",
                message,
            )
        )
        # the lists show the last message
        self._touched.add(conversation_id)
        self._wake.set()

    def conversation_changed(self, conversation_id: int) -> None:
        """Announce a change that the visitor may see too, as a new assignee."""
        self._changed.add(conversation_id)
        self._wake.set()

    def mark_moved(self, moved: Moved) -> None:
        """Announce a reader's marks; those of the staff stream only to the staff."""
        data = {
            "conversation_id": moved.conversation_id,
            "reader_type": moved.reader_type,
            "reader_id": moved.reader_id,
            "stream": schema.STREAM_NAMES[moved.stream],
            "seq": moved.seq,
            "delivered_seq": moved.delivered_seq,
        }
        event = "read.moved" if moved.read else "delivered.moved"
        channels = [inbox_channel(moved.inbox_id)]
        if moved.stream == schema.PUBLIC:
            channels.append(conversation_channel(moved.conversation_id))
        self._publisher.publish(*(events.make(name, event, data) for name in channels))

    async def close(self, timeout_seconds: float = 3.0) -> None:
        """Announce what waits, then end."""
        self._closing = True
        self._wake.set()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._task, timeout_seconds)

    async def _work(self) -> None:
        while True:
            touched, opened, changed = self._touched, self._opened, self._changed
            ids = touched | opened | changed
            if not ids:
                if self._closing:
                    return
                self._wake.clear()
                await self._wake.wait()
                continue
            self._touched, self._opened, self._changed = set(), set(), set()
            try:
                rows = await self._database.run(conversations.for_events, self._database, ids)
            except Unavailable as error:
                # the primary went after it had committed: a conversation that nobody was told of
                # would stand in no list until its next message
                self._failed(ids, error)
                if self._closing:
                    return
                self._touched |= touched
                self._opened |= opened
                self._changed |= changed
                await asyncio.sleep(RETRY_SECONDS)
                continue
            except Exception as error:  # noqa: BLE001  the task must survive; lists are read anew by clients
                self._failed(ids, error)
                continue
            for staff_form, row in rows:
                self._publisher.publish(
                    *_conversation_events(
                        staff_form, row, opened=row.id in opened, changed=row.id in changed
                    )
                )

    def _failed(self, ids: Collection[int], error: Exception) -> None:
        self.failures += 1
        log.get("announcer").warning(
            "conversations not announced", count=len(ids), reason=type(error).__name__
        )


def _message_created(item: Stored) -> Event:
    channel = _message_channel(item.conversation_id, item.stream)
    return events.make(channel, "message.created", messages.stored_wire(item))


def _message_channel(conversation_id: int, stream: int) -> str:
    make = staff_channel if stream == schema.STAFF else conversation_channel
    return make(conversation_id)


def _conversation_events(
    staff_form: dict[str, Any], row: Any, *, opened: bool, changed: bool
) -> list[Event]:
    name = "conversation.created" if opened else "conversation.updated"
    made = [events.make(inbox_channel(row.inbox_id), name, staff_form)]
    widget_form = conversations.widget_wire(row)
    if opened:
        made.append(events.make(visitor_channel(row.visitor_id), name, widget_form))
    if changed:
        made.append(events.make(conversation_channel(row.id), "conversation.updated", widget_form))
    return made
