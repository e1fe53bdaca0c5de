"""Outgoing webhooks, for admins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from sanic.response import HTTPResponse, empty
from sqlalchemy import Connection

from app.chat import webhooks
from app.http import models_webhooks as models
from app.http.endpoint import Call, Endpoints, json

T = TypeVar("T")

endpoints = Endpoints("webhooks")


async def _read(call: Call, work: Callable[[Connection], T]) -> T:
    database = call.context.database

    def read() -> T:
        with database.read() as connection:
            return work(connection)

    return await database.run(read)


async def _write(call: Call, work: Callable[[Connection], T]) -> T:
    database = call.context.database

    def write() -> T:
        with database.write() as connection:
            return work(connection)

    return await database.run(write)


@endpoints.add(
    "GET",
    "/api/v1/webhooks",
    "All webhooks, by name",
    audience="staff",
    permission="webhooks.manage",
    answers={200: models.WebhookPage},
    problems=("forbidden",),
)
async def list_webhooks(call: Call) -> HTTPResponse:
    """At most 50; the secrets are not told."""
    return json({"items": await _read(call, webhooks.everything), "next_cursor": None})


@endpoints.add(
    "POST",
    "/api/v1/webhooks",
    "Make a webhook",
    audience="staff",
    permission="webhooks.manage",
    body=models.NewWebhook,
    answers={201: models.WebhookWithSecret},
    problems=("forbidden", "conflict"),
)
async def create_webhook(call: Call) -> HTTPResponse:
    """The answer holds the secret; it is not told again."""
    values: dict[str, Any] = call.body.model_dump()
    made = await _write(call, lambda c: webhooks.create(c, call.actor, **values))
    return json(made, 201)


@endpoints.add(
    "GET",
    "/api/v1/webhooks/{webhook_id}",
    "One webhook",
    audience="staff",
    permission="webhooks.manage",
    answers={200: models.Webhook},
    problems=("forbidden", "not_found"),
)
async def get_webhook(call: Call) -> HTTPResponse:
    """Without its secret."""
    return json(await _read(call, lambda c: webhooks.one(c, call.ids["webhook_id"])))


@endpoints.add(
    "PATCH",
    "/api/v1/webhooks/{webhook_id}",
    "Change a webhook",
    audience="staff",
    permission="webhooks.manage",
    body=models.WebhookChange,
    answers={200: models.Webhook},
    problems=("forbidden", "not_found"),
)
async def change_webhook(call: Call) -> HTTPResponse:
    """What waits for a webhook that is switched off is sent when it is switched on again."""
    values = call.body.model_dump(exclude_unset=True)
    changed = await _write(
        call, lambda c: webhooks.change(c, call.actor, call.ids["webhook_id"], values)
    )
    return json(changed)


@endpoints.add(
    "DELETE",
    "/api/v1/webhooks/{webhook_id}",
    "Delete a webhook with the log of its deliveries",
    audience="staff",
    permission="webhooks.manage",
    answers={204: None},
    problems=("forbidden", "not_found"),
)
async def delete_webhook(call: Call) -> HTTPResponse:
    """What waits for it is not sent."""
    database = call.context.database
    await database.run(webhooks.remove, database, call.actor, call.ids["webhook_id"])
    return empty()


@endpoints.add(
    "POST",
    "/api/v1/webhooks/{webhook_id}/rotate-secret",
    "Give a webhook a new secret",
    audience="staff",
    permission="webhooks.manage",
    answers={200: models.WebhookWithSecret},
    problems=("forbidden", "not_found"),
)
async def rotate_webhook_secret(call: Call) -> HTTPResponse:
    """It signs from now on; the old one signs nothing more."""
    return json(
        await _write(call, lambda c: webhooks.rotate_secret(c, call.actor, call.ids["webhook_id"]))
    )


@endpoints.add(
    "POST",
    "/api/v1/webhooks/{webhook_id}/test",
    "Send a test delivery",
    audience="staff",
    permission="webhooks.manage",
    answers={202: models.WebhookDeliveryDetail},
    problems=("forbidden", "not_found", "conflict"),
)
async def test_webhook(call: Call) -> HTTPResponse:
    """The worker sends it within a second or so; read the delivery to see how it went."""
    made = await _write(call, lambda c: webhooks.send_test(c, call.actor, call.ids["webhook_id"]))
    return json(made, 202)


@endpoints.add(
    "GET",
    "/api/v1/webhooks/{webhook_id}/deliveries",
    "The log of deliveries, newest first",
    audience="staff",
    permission="webhooks.manage",
    query=models.DeliveryQuery,
    answers={200: models.WebhookDeliveryPage},
    problems=("forbidden", "not_found"),
)
async def list_webhook_deliveries(call: Call) -> HTTPResponse:
    """Kept for 30 days. What receivers answer is not kept beyond its status."""
    query = call.query
    items, next_cursor = await _read(
        call,
        lambda c: webhooks.deliveries(
            c,
            call.ids["webhook_id"],
            status=query.status,
            cursor=query.cursor,
            limit=query.limit,
        ),
    )
    return json({"items": items, "next_cursor": next_cursor})


@endpoints.add(
    "GET",
    "/api/v1/webhooks/{webhook_id}/deliveries/{delivery_id}",
    "One delivery with what it says",
    audience="staff",
    permission="webhooks.manage",
    answers={200: models.WebhookDeliveryDetail},
    problems=("forbidden", "not_found"),
)
async def get_webhook_delivery(call: Call) -> HTTPResponse:
    """The payload as it is sent."""
    ids = call.ids
    return json(
        await _read(call, lambda c: webhooks.delivery(c, ids["webhook_id"], ids["delivery_id"]))
    )


@endpoints.add(
    "POST",
    "/api/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/retry",
    "Send a delivery again, now",
    audience="staff",
    permission="webhooks.manage",
    answers={202: models.WebhookDeliveryDetail},
    problems=("forbidden", "not_found", "conflict"),
)
async def retry_webhook_delivery(call: Call) -> HTTPResponse:
    """Under the same ids, so that the receiver can tell a repeat."""
    ids = call.ids
    again = await _write(
        call, lambda c: webhooks.retry(c, call.actor, ids["webhook_id"], ids["delivery_id"])
    )
    return json(again, 202)
