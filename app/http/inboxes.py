"""Inboxes and business hours: admins keep them, agents read what they need."""

from __future__ import annotations

from typing import Any

from sanic.response import HTTPResponse, empty

from app.chat import business_hours, inboxes
from app.http import models_inboxes as models
from app.http.endpoint import Call, Endpoints, json

endpoints = Endpoints("inboxes")


def _wire(call: Call, row: Any) -> dict[str, Any]:
    return inboxes.wire(row, call.context.settings.public_url)


@endpoints.add(
    "GET",
    "/api/v1/directory/inboxes",
    "The inboxes that the caller sees",
    audience="staff",
    permission="directory",
    answers={200: models.DirectoryInboxPage},
    etag=True,
)
async def list_own_inboxes(call: Call) -> HTTPResponse:
    """Without the archived ones; with whether they are open at this moment."""
    items = await call.context.database.run(inboxes.directory, call.context.database, call.agent)
    return json({"items": items, "next_cursor": None})


@endpoints.add(
    "GET",
    "/api/v1/inboxes",
    "Inboxes with all their settings",
    audience="staff",
    permission="inboxes.manage",
    query=models.InboxQuery,
    answers={200: models.InboxPage},
    problems=("forbidden",),
    etag=True,
)
async def list_inboxes(call: Call) -> HTTPResponse:
    """The oldest first."""
    query = call.query
    rows, next_cursor = await call.context.database.run(
        inboxes.page,
        call.context.database,
        archived_too=query.archived,
        cursor=query.cursor,
        limit=query.limit,
    )
    return json({"items": [_wire(call, row) for row in rows], "next_cursor": next_cursor})


@endpoints.add(
    "POST",
    "/api/v1/inboxes",
    "Make an inbox",
    audience="staff",
    permission="inboxes.manage",
    body=models.NewInbox,
    answers={201: models.Inbox},
    problems=("forbidden", "conflict"),
)
async def create_inbox(call: Call) -> HTTPResponse:
    """Without a key it gets a random one."""
    row = await call.context.database.run(
        inboxes.add, call.context.database, call.actor, call.body.model_dump(exclude_unset=True)
    )
    return json(_wire(call, row), 201)


@endpoints.add(
    "GET",
    "/api/v1/inboxes/{inbox_id}",
    "One inbox with all its settings",
    audience="staff",
    permission="inboxes.manage",
    answers={200: models.Inbox},
    problems=("forbidden", "not_found"),
)
async def get_inbox(call: Call) -> HTTPResponse:
    """Its identity secret is never in it."""
    row = await call.context.database.run(inboxes.one, call.context.database, call.ids["inbox_id"])
    return json(_wire(call, row))


@endpoints.add(
    "PATCH",
    "/api/v1/inboxes/{inbox_id}",
    "Change an inbox",
    audience="staff",
    permission="inboxes.manage",
    body=models.InboxChange,
    answers={200: models.Inbox},
    problems=("forbidden", "not_found"),
)
async def change_inbox(call: Call) -> HTTPResponse:
    """Widgets show it when their visitor opens them the next time."""
    row = await call.context.database.run(
        inboxes.change,
        call.context.database,
        call.actor,
        call.ids["inbox_id"],
        call.body.model_dump(exclude_unset=True),
    )
    call.context.doors.forget()
    return json(_wire(call, row))


@endpoints.add(
    "POST",
    "/api/v1/inboxes/{inbox_id}/archive",
    "Archive an inbox: its widget opens no more",
    audience="staff",
    permission="inboxes.manage",
    answers={200: models.Inbox},
    problems=("forbidden", "not_found"),
)
async def archive_inbox(call: Call) -> HTTPResponse:
    """Conversations stay, and may be brought to their end."""
    return await _set_archived(call, away=True)


@endpoints.add(
    "POST",
    "/api/v1/inboxes/{inbox_id}/restore",
    "Bring an archived inbox back",
    audience="staff",
    permission="inboxes.manage",
    answers={200: models.Inbox},
    problems=("forbidden", "not_found"),
)
async def restore_inbox(call: Call) -> HTTPResponse:
    """Its key opens it again."""
    return await _set_archived(call, away=False)


async def _set_archived(call: Call, *, away: bool) -> HTTPResponse:
    row = await call.context.database.run(
        inboxes.set_archived,
        call.context.database,
        call.actor,
        call.ids["inbox_id"],
        away=away,
    )
    call.context.doors.forget()
    return json(_wire(call, row))


@endpoints.add(
    "POST",
    "/api/v1/inboxes/{inbox_id}/rotate-key",
    "Give an inbox a new key",
    audience="staff",
    permission="inboxes.manage",
    answers={200: models.Inbox},
    problems=("forbidden", "not_found"),
)
async def rotate_inbox_key(call: Call) -> HTTPResponse:
    """The old key opens nothing from now on: change the snippet in the site's pages."""
    row = await call.context.database.run(
        inboxes.rotate_key, call.context.database, call.actor, call.ids["inbox_id"]
    )
    return json(_wire(call, row))


@endpoints.add(
    "POST",
    "/api/v1/inboxes/{inbox_id}/identity-secret",
    "Make or replace the secret that signs visitors' identities",
    audience="staff",
    permission="inboxes.manage",
    answers={201: models.IdentitySecret},
    problems=("forbidden", "not_found"),
)
async def rotate_identity_secret(call: Call) -> HTTPResponse:
    """Shown once. The site's server signs each identifier: hex(HMAC-SHA256(secret, identifier))."""
    secret = await call.context.database.run(
        inboxes.rotate_identity_secret, call.context.database, call.actor, call.ids["inbox_id"]
    )
    return json({"identity_secret": secret}, 201)


@endpoints.add(
    "DELETE",
    "/api/v1/inboxes/{inbox_id}/identity-secret",
    "Take identities unverified again",
    audience="staff",
    permission="inboxes.manage",
    answers={204: None},
    problems=("forbidden", "not_found"),
)
async def remove_identity_secret(call: Call) -> HTTPResponse:
    """Identities may then tell a name and an address, but not who somebody is."""
    await call.context.database.run(
        inboxes.remove_identity_secret, call.context.database, call.actor, call.ids["inbox_id"]
    )
    return empty()


@endpoints.add(
    "GET",
    "/api/v1/inboxes/{inbox_id}/members",
    "The accounts that see an inbox by membership",
    audience="staff",
    permission="inboxes.manage",
    answers={200: models.MemberPage},
    problems=("forbidden", "not_found"),
)
async def list_inbox_members(call: Call) -> HTTPResponse:
    """Accounts that see every inbox need no membership."""
    items = await call.context.database.run(
        inboxes.members, call.context.database, call.ids["inbox_id"]
    )
    return json({"items": items, "next_cursor": None})


@endpoints.add(
    "PUT",
    "/api/v1/inboxes/{inbox_id}/members",
    "Let exactly these accounts be members",
    audience="staff",
    permission="inboxes.manage",
    body=models.MembersRequest,
    answers={200: models.MemberPage},
    problems=("forbidden", "not_found"),
)
async def set_inbox_members(call: Call) -> HTTPResponse:
    """Members see the inbox from their next request on."""
    items = await call.context.database.run(
        inboxes.set_members,
        call.context.database,
        call.actor,
        call.ids["inbox_id"],
        call.body.user_ids,
    )
    return json({"items": items, "next_cursor": None})


# --- business hours ---------------------------------------------------------------------------


@endpoints.add(
    "GET",
    "/api/v1/business-hours",
    "All business hours, by name",
    audience="staff",
    permission="inboxes.manage",
    answers={200: models.BusinessHoursPage},
    problems=("forbidden",),
)
async def list_business_hours(call: Call) -> HTTPResponse:
    """With whether they are open at this moment."""
    items = await call.context.database.run(business_hours.everything, call.context.database)
    return json({"items": items, "next_cursor": None})


@endpoints.add(
    "POST",
    "/api/v1/business-hours",
    "Make business hours",
    audience="staff",
    permission="inboxes.manage",
    body=models.NewBusinessHours,
    answers={201: models.BusinessHours},
    problems=("forbidden", "conflict"),
)
async def create_business_hours(call: Call) -> HTTPResponse:
    """Times are wall clock times of the time zone, whatever its clocks do."""
    made = await call.context.database.run(
        business_hours.create, call.context.database, call.actor, call.body.model_dump()
    )
    return json(made, 201)


@endpoints.add(
    "GET",
    "/api/v1/business-hours/{hours_id}",
    "Business hours",
    audience="staff",
    permission="inboxes.manage",
    answers={200: models.BusinessHours},
    problems=("forbidden", "not_found"),
)
async def get_business_hours(call: Call) -> HTTPResponse:
    """With whether they are open at this moment."""
    return json(
        await call.context.database.run(
            business_hours.one, call.context.database, call.ids["hours_id"]
        )
    )


@endpoints.add(
    "PATCH",
    "/api/v1/business-hours/{hours_id}",
    "Change business hours",
    audience="staff",
    permission="inboxes.manage",
    body=models.BusinessHoursChange,
    answers={200: models.BusinessHours},
    problems=("forbidden", "not_found"),
)
async def change_business_hours(call: Call) -> HTTPResponse:
    """All inboxes that have them follow."""
    return json(
        await call.context.database.run(
            business_hours.change,
            call.context.database,
            call.actor,
            call.ids["hours_id"],
            call.body.model_dump(exclude_unset=True),
        )
    )


@endpoints.add(
    "DELETE",
    "/api/v1/business-hours/{hours_id}",
    "Delete business hours that no inbox has",
    audience="staff",
    permission="inboxes.manage",
    answers={204: None},
    problems=("forbidden", "not_found", "conflict"),
)
async def delete_business_hours(call: Call) -> HTTPResponse:
    """409 names an inbox that has them."""
    await call.context.database.run(
        business_hours.remove, call.context.database, call.actor, call.ids["hours_id"]
    )
    return empty()
