"""What is stored: read through the API from the primary, and from the database itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from bench.ledger.book import PUBLIC, STAFF, Book, Message, Sent, Violation, digest
from bench.ledger.people import PAGE_MESSAGES, SEQ_MAX, Agent, Refused, message_of
from bench.ledger.wire import WireError

READERS_AT_ONCE: Final = 8
IDS_AT_ONCE: Final = 500
STREAMS: Final = (PUBLIC, STAFF)


class TruthUnknown(Exception):
    """What is stored could not be read; the text says why."""


async def from_api(agent: Agent, conversations: Iterable[int]) -> list[Message]:
    """Every message of the conversations, by the staff's API.

    No replica holds the seq that the reader claims to know, so the primary answers. Raises
    :class:`TruthUnknown` when a replica answered all the same, or nobody did.
    """
    room = asyncio.Semaphore(READERS_AT_ONCE)

    async def one(conversation_id: int, stream: str) -> list[Message]:
        rows: list[Message] = []
        after = 0
        async with room:
            while True:
                query = {"after_seq": after, "known_seq": SEQ_MAX, "limit": PAGE_MESSAGES}
                page = await agent.history(conversation_id, stream, query)
                if page.read_from == "replica":
                    raise TruthUnknown(
                        "the API answered from the replica although a newer seq is known: "
                        "what is stored on the primary cannot be told"
                    )
                rows += [message_of(item) for item in page.items]
                if not page.has_more or not page.items:
                    return rows
                after = rows[-1].seq

    try:
        parts = await asyncio.gather(
            *(one(number, stream) for number in sorted(conversations) for stream in STREAMS)
        )
    except (Refused, WireError) as error:
        raise TruthUnknown(f"the history could not be read through the API: {error}") from None
    return [row for part in parts for row in part]


def from_database(url: str, conversations: Iterable[int]) -> list[Message]:
    """Every message of the conversations, by a read-only look into MySQL or SQLite.

    ``url`` is a SQLAlchemy URL. Raises :class:`TruthUnknown`. Blocking.
    """
    # half a second that a run without a database need not wait for
    from sqlalchemy import bindparam, create_engine, make_url, text  # noqa: PLC0415
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415

    ids = sorted(conversations)
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite":
            parsed = make_url(f"sqlite:///file:{parsed.database}?mode=ro&uri=true")
        engine = create_engine(parsed)
        query = text(
            "SELECT conversation_id, stream, seq, client_id, sender_type, body FROM messages"
            " WHERE conversation_id IN :ids"
        ).bindparams(bindparam("ids", expanding=True))
        rows: list[Message] = []
        with engine.connect() as connection:
            if parsed.get_backend_name() == "mysql":
                connection.execute(text("SET TRANSACTION READ ONLY"))
            for start in range(0, len(ids), IDS_AT_ONCE):
                found = connection.execute(query, {"ids": ids[start : start + IDS_AT_ONCE]})
                rows += [_row(values) for values in found]
        engine.dispose()
    except (SQLAlchemyError, ImportError) as error:
        # never the error's own text: it may quote the URL with its password
        raise TruthUnknown(
            f"the database could not be read ({type(error).__name__}): check its URL, "
            "that the server is reachable from here, and the account's rights"
        ) from None
    return rows


def compare_acknowledged(path: Path, rows: Iterable[Message]) -> list[Violation]:
    """What is wrong with stored rows, by an ``acknowledged.tsv`` that a run has written.

    For databases that this program cannot reach: somebody else reads the rows there.
    """
    book = Book()
    with path.open(encoding="utf-8") as lines:
        next(lines)
        for line in lines:
            conversation_id, stream, seq, client_id, told = line.rstrip("\n").split("\t")
            answer = Message(int(conversation_id), stream, int(seq), client_id, "", told)
            sent = book.sent.setdefault(client_id, Sent(client_id, client_id, stream, told, 0.0))
            sent.acknowledged.append(answer)
    return book.verdict(rows).violations


def _row(values: Sequence[Any]) -> Message:
    conversation_id, stream, seq, client_id, sender_type, body = values
    return Message(conversation_id, STREAMS[stream], seq, client_id, sender_type, digest(body))
