"""The job that sends the mails of the table ``mails``: each at least once, at most ten times.

Before a mail is tried, its next try is written down; so a worker that dies in between neither
loses it nor lets another one send it at the same moment. Once it is sent or given up its texts are
removed, because they may hold a secret link.
"""

from __future__ import annotations

import asyncio
import smtplib
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, delete, func, select, update

from app import clock, log
from app.db import schema
from app.db.engines import Database
from app.worker import smtp
from app.worker.smtp import Letter, Post, Undeliverable

if TYPE_CHECKING:
    from app.worker.jobs import Run

MAILS_AT_ONCE: Final = 20
ATTEMPTS: Final = 10
FIRST_WAIT: Final = timedelta(seconds=60)
LONGEST_WAIT: Final = timedelta(hours=1)
# what waited longer, because no server took it, tells nobody anything any more
LIFETIME: Final = timedelta(days=3)
KEPT: Final = timedelta(days=30)
PURGE_ROWS: Final = 1000

_mails = schema.mails
_EMPTY: Final[Mapping[str, Any]] = {"body_text": "", "body_html": None, "next_attempt_at": None}


async def send_mails(run: Run) -> int:
    """Send what is due; gives how many were sent. Without a server mail waits.

    Raises OSError when the server cannot be used: then no mail's tries are spent.
    """
    post, database = run.tools.post, run.tools.database
    if post is None:
        return 0
    sent = 0
    while await database.run(_due, database):
        client = await asyncio.to_thread(smtp.connect, post.server)
        try:
            batch = await database.run(_take, run)
            for letter, attempts in batch:
                sent += await _send(database, post, client, letter, attempts)
                await run.go_on()
        finally:
            await asyncio.to_thread(smtp.hang_up, client)
    return sent


async def purge_mails(run: Run) -> int:
    """Give up what is too old and forget what was done with long ago; gives how many."""
    database = run.tools.database
    now = clock.now()

    def purge() -> int:
        with database.write() as connection:
            run.check_fence(connection)
            given_up = connection.execute(
                update(_mails)
                .where(_mails.c.status == "pending", _mails.c.created_at < now - LIFETIME)
                .values(status="failed", error="no server took it in time", **_EMPTY)
            ).rowcount
            old = (
                connection.execute(
                    select(_mails.c.id)
                    .where(_mails.c.status != "pending", _mails.c.created_at < now - KEPT)
                    .limit(PURGE_ROWS)
                )
                .scalars()
                .all()
            )
            if old:
                connection.execute(delete(_mails).where(_mails.c.id.in_(old)))
            return int(given_up) + len(old)

    return await database.run(purge)


def counts(connection: Connection) -> dict[str, int]:
    """How many mails there are of each status."""
    found = {"pending": 0, "sent": 0, "failed": 0}
    rows = connection.execute(select(_mails.c.status, func.count()).group_by(_mails.c.status))
    found.update({status: int(count) for status, count in rows})
    return found


def _is_due() -> Any:
    return (_mails.c.status == "pending") & (_mails.c.next_attempt_at <= clock.now())


def _due(database: Database) -> bool:
    with database.read() as connection:
        return connection.execute(select(_mails.c.id).where(_is_due()).limit(1)).first() is not None


def _take(run: Run) -> list[tuple[Letter, int]]:
    """The mails that are due, with the number of this try; each try is written down first."""
    now = clock.now()
    taken = []
    with run.tools.database.write() as connection:
        run.check_fence(connection)
        rows = connection.execute(
            select(_mails).where(_is_due()).order_by(_mails.c.next_attempt_at).limit(MAILS_AT_ONCE)
        ).all()
        for row in rows:
            attempts = row.attempts + 1
            wait = min(FIRST_WAIT * 2 ** min(row.attempts, 16), LONGEST_WAIT)
            connection.execute(
                update(_mails)
                .where(_mails.c.id == row.id)
                .values(attempts=attempts, next_attempt_at=now + wait)
            )
            letter = Letter(
                row.id, row.to_address, row.subject, row.body_text, row.body_html, row.created_at
            )
            taken.append((letter, attempts))
    return taken


async def _send(
    database: Database, post: Post, client: smtplib.SMTP, letter: Letter, attempts: int
) -> int:
    """Try one mail and write down what became of it; gives 1 when it was sent."""
    logger = log.get("mail")
    try:
        await asyncio.to_thread(smtp.deliver, client, letter, post.sender)
    except Undeliverable as error:
        if error.for_good or attempts >= ATTEMPTS:
            values = {"status": "failed", "error": error.reason, **_EMPTY}
            logger.error("mail given up", mail=letter.mail_id, attempts=attempts)
        else:
            values = {"error": error.reason}
            logger.warning("mail not sent", mail=letter.mail_id, attempts=attempts)
        await database.run(_note, database, letter.mail_id, attempts, values)
        return 0
    values = {"status": "sent", "sent_at": clock.now(), "error": None, **_EMPTY}
    await database.run(_note, database, letter.mail_id, attempts, values)
    return 1


def _note(database: Database, mail_id: int, attempts: int, values: Mapping[str, Any]) -> None:
    with database.write() as connection:
        connection.execute(
            update(_mails)
            .where(
                _mails.c.id == mail_id,
                _mails.c.status == "pending",
                _mails.c.attempts == attempts,
            )
            .values(**values)
        )
