"""For operators and machines: health, readiness, metrics, the OpenAPI document."""

from __future__ import annotations

import asyncio
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sanic.response import HTTPResponse, raw
from sqlalchemy import text

from app.db.engines import Database
from app.http import models, openapi
from app.http.endpoint import Call, Endpoints, json

endpoints = Endpoints("operations")

READY_TIMEOUT_SECONDS: Final = 2.0


@endpoints.add(
    "GET",
    "/healthz",
    "The process lives",
    audience="anyone",
    answers={200: models.Health},
    limit="none",
)
async def healthz(_call: Call) -> HTTPResponse:
    """Answers as long as the event loop turns."""
    return json({"status": "ok"})


@endpoints.add(
    "GET",
    "/readyz",
    "The process may get traffic",
    audience="anyone",
    answers={200: models.Readiness, 503: models.Readiness},
    limit="none",
)
async def readyz(call: Call) -> HTTPResponse:
    """503 while draining or without the primary. Redis is told, but not needed (P7)."""
    context = call.context
    redis = "ok" if context.publisher.redis_answers else "unreachable"
    if context.draining:
        return json({"status": "draining", "checks": {"redis": redis}}, 503)
    database = "ok"
    try:
        async with asyncio.timeout(READY_TIMEOUT_SECONDS):
            await context.database.run(_ping, context.database)
    except Exception:  # noqa: BLE001  whatever it is, this node cannot serve now
        database = "unreachable"
    ready = database == "ok"
    return json(
        {
            "status": "ready" if ready else "not_ready",
            "checks": {"database": database, "redis": redis},
        },
        200 if ready else 503,
    )


@endpoints.add(
    "GET",
    "/metrics",
    "Metrics in the Prometheus text format",
    audience="anyone",
    answers={200: None},
    limit="none",
)
async def metrics(call: Call) -> HTTPResponse:
    """Not for the internet: the balancer does not pass it on."""
    registry = call.request.app.ctx.registry
    return raw(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


@endpoints.add("GET", "/openapi.json", "This document", audience="anyone", answers={200: None})
async def openapi_json(call: Call) -> HTTPResponse:
    """Generated from the endpoints and their models."""
    return json(openapi.document(call.request.app.ctx.endpoints))


def _ping(database: Database) -> None:
    with database.read() as connection:
        connection.execute(text("SELECT 1"))
