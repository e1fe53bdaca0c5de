"""The jobs and the loop that runs each of them on one worker at a time.

Every worker node runs every job's loop; a fenced lock in Redis picks the one that works. The
lock's token is written to ``job_fences`` in the same transaction as the job's own work, so that a
worker that was paused beyond its lock cannot do harm.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy import Connection, insert, select, update

from app import clock, log
from app.bus import nodes, publisher
from app.bus.events import Event
from app.bus.locks import FencedLock, Held
from app.chat import accounts, attachments
from app.db import outbox, schema
from app.db.engines import Database, Unavailable
from app.db.writer import Stored
from app.worker import conversations, heartbeat, mail, retention, search, webhooks
from app.worker.smtp import Post

LOCK_SECONDS: Final = 15.0
RELAY_ROWS: Final = 500
PURGE_ROWS: Final = 1000
PURGE_FILES: Final = 20
JITTER: Final = 0.2
# After a run the lock rests for this part of the interval, so that many workers do not run a job
# more often than one does; at most so long, because a worker may die in that time.
REST_PART: Final = 0.7
REST_MAX_SECONDS: Final = 2.0
TOLD_EVERY_SECONDS: Final = 5.0

_fences = schema.job_fences


class LostLock(Exception):
    """Another worker took over; what this one wanted to write was not written."""


@dataclass(slots=True)
class JobStatistics:
    """What a job did on this worker since it started."""

    runs: int = 0
    failures: int = 0
    items: int = 0
    skipped: int = 0
    last_success: float = 0.0
    # when the other nodes were last told of a success
    last_told: float = 0.0
    # whether the last try failed: without Redis there is no lock, and nothing runs
    paused: bool = False


class Announces(Protocol):
    """What jobs need of :class:`app.chat.announce.Announcer`; to be called after the commit."""

    def messages_stored(self, stored: Sequence[Stored]) -> None:
        """Announce newly stored messages and events."""

    def conversation_changed(self, conversation_id: int) -> None:
        """Announce a change that the visitor may see too."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What jobs work with."""

    database: Database
    redis: Redis
    app_id: str
    announcer: Announces
    # None: mail waits until a server is set
    post: Post | None = None
    # whether webhooks may reach loopback and private addresses
    webhook_allow_private: bool = False
    node: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a job under its lock."""

    tools: Tools
    lock: FencedLock
    held: Held

    async def go_on(self) -> None:
        """Hold the lock for another period. Raises :class:`LostLock`."""
        if not await self.lock.extend(self.held):
            raise LostLock

    def check_fence(self, connection: Connection) -> None:
        """In the transaction of the job's work. Raises :class:`LostLock`."""
        mine = connection.execute(
            update(_fences)
            .where(_fences.c.job == self.held.name, _fences.c.token <= self.held.token)
            .values(token=self.held.token)
        )
        if mine.rowcount == 0:
            raise LostLock


@dataclass(frozen=True, slots=True)
class Job:
    """``work`` runs every ``every_seconds`` on one worker; it gives how many items it handled."""

    name: str
    every_seconds: float
    work: Callable[[Run], Awaitable[int]]


def read_fence(database: Database, job: str) -> int:
    """The highest token that worked on a job; makes its row when it is missing. Blocking."""
    query = select(_fences.c.token).where(_fences.c.job == job)
    with database.read() as connection:
        token = connection.execute(query).scalar()
    if token is None:
        with database.write() as connection:
            if connection.execute(query.with_for_update()).scalar() is None:
                connection.execute(insert(_fences).values(job=job, token=0))
        return 0
    return int(token)


async def relay_outbox(run: Run) -> int:
    """Publish the events that Redis did not take, oldest first."""
    database = run.tools.database

    def read() -> Sequence[Any]:
        with database.read() as connection:
            return outbox.oldest(connection, RELAY_ROWS)

    def remove(ids: list[int]) -> None:
        with database.write() as connection:
            run.check_fence(connection)
            outbox.remove(connection, ids)

    relayed = 0
    while rows := await database.run(read):
        await run.go_on()
        fresh = [Event(row.channel, row.message) for row in rows if row.message is not None]
        if fresh:
            await publisher.send(run.tools.redis, run.tools.app_id, fresh)
        await database.run(remove, [row.id for row in rows])
        relayed += len(fresh)
    return relayed


async def purge_sessions(run: Run) -> int:
    """Delete expired sessions and links of mails, a bounded number per transaction."""
    database = run.tools.database

    def purge() -> int:
        with database.write() as connection:
            run.check_fence(connection)
            expired = accounts.purge_expired(connection, PURGE_ROWS)
            return expired + accounts.purge_tokens(connection, PURGE_ROWS)

    purged = 0
    while count := await database.run(purge):
        purged += count
        await run.go_on()
    return purged


async def purge_unsent_attachments(run: Run) -> int:
    """Delete files that no message carried in time; few per transaction, for they are large."""
    database = run.tools.database

    def purge() -> int:
        with database.write() as connection:
            run.check_fence(connection)
            return attachments.purge_unsent(connection, PURGE_FILES)

    purged = 0
    while count := await database.run(purge):
        purged += count
        await run.go_on()
    return purged


JOBS: Final = (
    Job("mail", 2.0, mail.send_mails),
    Job("mail-purge", 3600.0, mail.purge_mails),
    Job("outbox-relay", 1.0, relay_outbox),
    Job("auto-assign", 2.0, conversations.assign_waiting),
    Job("orphans", 30.0, conversations.free_orphans),
    Job("snooze-wake", 5.0, conversations.wake_snoozed),
    Job("session-purge", 300.0, purge_sessions),
    Job("webhook-events", webhooks.EXPAND_EVERY_SECONDS, webhooks.expand),
    Job("webhook-deliveries", webhooks.DELIVER_EVERY_SECONDS, webhooks.deliver),
    Job("heartbeat", heartbeat.EVERY_SECONDS, heartbeat.beat),
    Job("retention", retention.EVERY_SECONDS, retention.remove_old),
    Job("search-index", search.EVERY_SECONDS, search.index_messages),
    Job("attachment-purge", 300.0, purge_unsent_attachments),
)


class Runner:
    """Runs the loops of all jobs on the event loop."""

    def __init__(self, tools: Tools, jobs: tuple[Job, ...] = JOBS) -> None:
        self.statistics = {job.name: JobStatistics() for job in jobs}
        self._tools = tools
        self._stopping = asyncio.Event()
        self._tasks = [asyncio.create_task(self._loop(job), name=job.name) for job in jobs]

    async def close(self, timeout_seconds: float = 5.0) -> None:
        """Let running jobs end; cancel what does not end in time."""
        self._stopping.set()
        _, late = await asyncio.wait(self._tasks, timeout=timeout_seconds)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def _loop(self, job: Job) -> None:
        logger = log.get("worker")
        failing = False
        while not self._stopping.is_set():
            statistics = self.statistics[job.name]
            try:
                count = await self._run_once(job)
            except (RedisError, OSError, TimeoutError, Unavailable, LostLock) as error:
                statistics.failures += 1
                statistics.paused = True
                if not failing:  # once per outage, not once per second
                    logger.warning("job failed", job=job.name, reason=type(error).__name__)
                failing = True
            except Exception as error:
                statistics.failures += 1
                statistics.paused = True
                logger.error("job failed", job=job.name, exc_info=error)
            else:
                failing = statistics.paused = False
                if count:
                    logger.info("job done", job=job.name, items=count)
            # spread the nodes, so that they do not all ask for the lock at once
            wait_seconds = job.every_seconds * (1 + random.uniform(-JITTER, JITTER))  # noqa: S311  no secret
            try:
                await asyncio.wait_for(self._stopping.wait(), wait_seconds)
            except TimeoutError:
                continue

    async def _run_once(self, job: Job) -> int:
        """One run, unless another worker has the lock; gives how many items were handled."""
        tools, statistics = self._tools, self.statistics[job.name]
        lock = FencedLock(tools.redis, job.name, seconds=LOCK_SECONDS)
        held = None
        if not await lock.is_taken():  # mostly it rests; then the database is not asked
            floor = await tools.database.run(read_fence, tools.database, job.name)
            held = await lock.take(floor)
        if held is None:
            statistics.skipped += 1
            return 0
        rest_seconds = 0.0
        try:
            count = await job.work(Run(tools, lock, held))
            if not self._stopping.is_set():
                rest_seconds = min(job.every_seconds * REST_PART, REST_MAX_SECONDS)
        finally:
            await lock.release(held, rest_seconds=rest_seconds)
        statistics.runs += 1
        statistics.items += count
        now = clock.now_source().timestamp()
        if now - statistics.last_told >= TOLD_EVERY_SECONDS:
            statistics.last_told = now
            await nodes.job_done(tools.redis, job.name, tools.node, count)
        statistics.last_success = now
        return count
