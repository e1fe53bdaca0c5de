"""The state of the installation, for admins."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from redis.exceptions import RedisError
from sanic.response import HTTPResponse
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from app import clock
from app.bus import nodes
from app.chat import system
from app.db import engines, migrate
from app.db.engines import Unavailable
from app.http import models_system as models
from app.http.context import Context
from app.http.endpoint import Call, Endpoints, json
from app.version import version

T = TypeVar("T")

endpoints = Endpoints("system")

ANSWER_SECONDS: Final = 2.0
_AWAY: Final = (RedisError, SQLAlchemyError, OSError, TimeoutError, Unavailable)


@endpoints.add(
    "GET",
    "/api/v1/system",
    "The state of the installation",
    audience="staff",
    permission="system.read",
    answers={200: models.System},
    problems=("forbidden",),
)
async def get_system(call: Call) -> HTTPResponse:
    """Versions, databases, Redis, processes, jobs and what waits. What does not answer within two
    seconds is told as that."""
    context = call.context
    (primary, replica, lag, redis), (heard, done, backlog, revision) = await asyncio.gather(
        asyncio.gather(
            _server(context, context.database.primary),
            _server(context, context.database.replica),
            _or_none(context.late.lag()),
            _ping(context),
        ),
        asyncio.gather(
            _or_none(nodes.nodes(context.redis)),
            _or_none(nodes.jobs(context.redis)),
            _or_none(_on_primary(context, system.backlog)),
            _or_none(_on_primary(context, migrate.current)),
        ),
    )
    return json(
        {
            "version": version(),
            "node": context.settings.node,
            "now": clock.wire(clock.now()),
            "schema": {"revision": revision, "expected": await asyncio.to_thread(migrate.head)},
            "primary": primary,
            "replica": {
                **replica,
                "configured": context.database.replica is not None,
                "lag_seconds": lag if lag is not None and lag < float("inf") else None,
            },
            "redis": redis,
            "nodes": [_node(about) for about in heard] if heard is not None else None,
            "jobs": (
                [
                    {
                        "name": name,
                        "node": about["node"],
                        "last_success_at": _wire(about["at"]),
                        "items": about["items"],
                    }
                    for name, about in sorted(done.items())
                ]
                if done is not None
                else None
            ),
            "backlog": backlog,
            "writer_queue": context.writer.queued,
            "events_queue": context.publisher.queued,
        }
    )


def _node(about: dict[str, Any]) -> dict[str, Any]:
    times = {name: _wire(about[name]) for name in ("started_at", "seen_at")}
    return {**about, **times}


def _wire(seconds: float) -> str:
    return clock.wire(datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None))


async def _or_none(work: Awaitable[T]) -> T | None:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            return await work
    except _AWAY:
        return None


async def _on_primary(context: Context, work: Callable[[Connection], T]) -> T:
    def read() -> T:
        with context.database.read() as connection:
            return work(connection)

    return await context.database.run(read)


async def _server(context: Context, engine: Engine | None) -> dict[str, Any]:
    if engine is None:
        return {"answers": False, "version": None, "read_only": None}

    def ask() -> dict[str, Any]:
        with engines.read_transaction(engine) as connection:
            return system.server(connection)

    told = await _or_none(context.database.run(ask))
    return {"answers": told is not None, **(told or {"version": None, "read_only": None})}


async def _ping(context: Context) -> dict[str, Any]:
    begun = time.monotonic()
    answer = await _or_none(_pong(context))
    if not answer:
        return {"answers": False, "milliseconds": None}
    return {"answers": True, "milliseconds": round((time.monotonic() - begun) * 1000, 2)}


async def _pong(context: Context) -> bool:
    # redis-py types the commands of both its clients as one
    pong: Any = context.redis.ping()
    return bool(await pong)
