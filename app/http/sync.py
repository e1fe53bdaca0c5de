"""Catching up with everything that a client watches."""

from __future__ import annotations

from sanic.response import HTTPResponse

from app.chat import sync, visitors
from app.chat.conversations import Filters
from app.chat.sync import Known
from app.db import schema
from app.http import models_sync, problems
from app.http.endpoint import Call, Endpoints, json
from app.http.models_sync import KnownSeqs

endpoints = Endpoints("sync")


@endpoints.add(
    "POST",
    "/api/v1/sync",
    "What was missed of the conversations that a client watches",
    audience="staff",
    permission="conversations",
    body=models_sync.SyncRequest,
    answers={200: models_sync.Sync},
    limit="reads",
)
async def sync_staff(call: Call) -> HTTPResponse:
    """For the time after a lost connection: at most 200 conversations and 500 messages at once,
    and `more` says that something is left. Reads the primary, so that nothing that was stored
    before the call is missing."""
    context, body = call.context, call.body
    view = None
    if body.view is not None:
        view = Filters(
            view=body.view,
            status=body.status,
            inbox_id=body.inbox,
            label_id=body.label,
            assignee_id=body.assignee,
            team_id=body.team,
            visitor_id=body.visitor,
            priority=body.priority,
        )
    known = {int(item): _known(told) for item, told in body.known.items()}
    return json(
        await context.database.run(
            sync.for_staff, context.database, call.agent, known, view=view, since=body.since
        )
    )


def _known(told: int | KnownSeqs) -> Known:
    if isinstance(told, int):
        return Known({schema.PUBLIC: told}, {})
    edits = told.edits
    pairs = ((schema.PUBLIC, told.public), (schema.STAFF, told.staff))
    edit_pairs = (
        ((schema.PUBLIC, edits.public), (schema.STAFF, edits.staff)) if edits is not None else ()
    )
    return Known(
        {stream: seq for stream, seq in pairs if seq is not None},
        {stream: number for stream, number in edit_pairs if number is not None},
    )


@endpoints.add(
    "POST",
    "/api/v1/widget/sync",
    "What a visitor missed of its conversations",
    audience="visitor",
    body=models_sync.WidgetSyncRequest,
    answers={200: models_sync.WidgetSync},
    limit="reads",
)
async def sync_visitor(call: Call) -> HTTPResponse:
    """As the staff's call, for the own conversations; notes never appear."""
    context = call.context
    known = {
        int(item): Known({schema.PUBLIC: told}, {})
        if isinstance(told, int)
        else Known(
            {schema.PUBLIC: told.seq},
            {schema.PUBLIC: told.edits} if told.edits is not None else {},
        )
        for item, told in call.body.known.items()
    }
    answer = await context.database.run(sync.for_visitor, context.database, call.who, known)
    if answer["gone"] and await context.database.run(visitors.is_gone, context.database, call.who):
        # nothing is gone: they moved to the visitor that this one turned out to be
        raise problems.not_authenticated()
    return json(answer)
