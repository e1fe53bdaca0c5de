"""Labels: which there are. Putting them on conversations is the inbox's."""

from __future__ import annotations

import asyncio

from sanic.response import HTTPResponse, empty

from app.chat import labels
from app.http import models_desk as models
from app.http.endpoint import Call, Endpoints, json

endpoints = Endpoints("labels")


@endpoints.add(
    "GET",
    "/api/v1/labels",
    "All labels, by name",
    audience="staff",
    permission="directory",
    answers={200: models.LabelPage},
    etag=True,
)
async def list_labels(call: Call) -> HTTPResponse:
    """At most 500."""
    items = await call.context.database.run(labels.everything, call.context.database)
    return json({"items": items, "next_cursor": None})


@endpoints.add(
    "POST",
    "/api/v1/labels",
    "Make a label",
    audience="staff",
    permission="labels.manage",
    body=models.NewLabel,
    answers={201: models.Label},
    problems=("forbidden", "conflict"),
)
async def create_label(call: Call) -> HTTPResponse:
    """Names differ by more than their case."""
    made = await call.context.database.run(
        labels.create,
        call.context.database,
        call.actor,
        name=call.body.name,
        color=call.body.color,
    )
    return json(made, 201)


@endpoints.add(
    "PATCH",
    "/api/v1/labels/{label_id}",
    "Rename or recolour a label",
    audience="staff",
    permission="labels.manage",
    body=models.LabelChange,
    answers={200: models.Label},
    problems=("forbidden", "not_found", "conflict"),
)
async def change_label(call: Call) -> HTTPResponse:
    """The newest conversations that carry it are announced."""
    changed, shown = await call.context.database.run(
        labels.change,
        call.context.database,
        call.actor,
        call.ids["label_id"],
        call.body.model_dump(exclude_unset=True),
    )
    for conversation_id in shown:
        call.context.announcer.conversation_changed(conversation_id)
    return json(changed)


@endpoints.add(
    "DELETE",
    "/api/v1/labels/{label_id}",
    "Delete a label, also from its conversations",
    audience="staff",
    permission="labels.manage",
    answers={204: None},
    problems=("forbidden", "not_found"),
)
async def delete_label(call: Call) -> HTTPResponse:
    """The conversations that lose it are announced."""
    context = call.context
    loop = asyncio.get_running_loop()

    def announce(conversation_id: int) -> None:
        loop.call_soon_threadsafe(context.announcer.conversation_changed, conversation_id)

    await context.database.run(
        labels.remove, context.database, call.actor, call.ids["label_id"], announce
    )
    return empty()
