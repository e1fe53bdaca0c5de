"""Admins keep accounts, teams and API keys; agents see their colleagues and teams."""

from __future__ import annotations

from sanic.response import HTTPResponse, empty

from app.chat import api_keys, mail, staff, teams
from app.chat.links import Site
from app.http import models_staff as models
from app.http.endpoint import Call, Endpoints, json

endpoints = Endpoints("staff")


# --- accounts ---------------------------------------------------------------------------------


@endpoints.add(
    "GET",
    "/api/v1/users",
    "All accounts of the staff",
    audience="staff",
    permission="users.manage",
    query=models.StaffAccountQuery,
    answers={200: models.StaffAccountPage},
    problems=("forbidden",),
)
async def list_users(call: Call) -> HTTPResponse:
    """Those that are deactivated as well."""
    query = call.query
    items, next_cursor = await call.context.database.run(
        staff.accounts_page,
        call.context.database,
        text=query.query,
        role=query.role,
        active=query.active,
        cursor=query.cursor,
        limit=query.limit,
    )
    return json({"items": items, "next_cursor": next_cursor})


@endpoints.add(
    "POST",
    "/api/v1/users",
    "Make an account",
    audience="staff",
    permission="users.manage",
    body=models.NewStaffAccount,
    answers={201: models.StaffAccount},
    problems=("forbidden", "email_taken", "mail_not_configured"),
    session_only=True,
)
async def create_user(call: Call) -> HTTPResponse:
    """Without a password its owner gets a mail with a link to choose one, valid for three days."""
    settings, values = call.context.settings, call.body.model_dump()
    language = values.pop("language")
    if values["password"] is None:
        mail.require(settings.mail_from)
    made = await call.context.database.run(
        staff.create,
        call.context.database,
        call.actor,
        Site(settings.public_url, language),
        **values,
    )
    return json(made, 201)


@endpoints.add(
    "GET",
    "/api/v1/users/{user_id}",
    "One account",
    audience="staff",
    permission="users.manage",
    answers={200: models.StaffAccount},
    problems=("forbidden", "not_found"),
)
async def get_user(call: Call) -> HTTPResponse:
    """As it is now."""
    return json(
        await call.context.database.run(staff.one, call.context.database, call.ids["user_id"])
    )


@endpoints.add(
    "PATCH",
    "/api/v1/users/{user_id}",
    "Change an account, or deactivate it",
    audience="staff",
    permission="users.manage",
    body=models.StaffAccountChange,
    answers={200: models.StaffAccount},
    problems=("forbidden", "not_found", "conflict"),
    session_only=True,
)
async def change_user(call: Call) -> HTTPResponse:
    """Accounts are not deleted, for their messages stay. Deactivating ends the sessions, API keys
    and links of the account at once. The last active admin stays one."""
    return json(
        await call.context.database.run(
            staff.change,
            call.context.database,
            call.actor,
            call.ids["user_id"],
            call.body.model_dump(exclude_unset=True),
        )
    )


@endpoints.add(
    "POST",
    "/api/v1/users/{user_id}/invite",
    "Send the invitation once more",
    audience="staff",
    permission="users.manage",
    body=models.Invitation,
    body_optional=True,
    answers={204: None},
    problems=("forbidden", "not_found", "conflict", "mail_not_configured"),
    session_only=True,
)
async def invite_user(call: Call) -> HTTPResponse:
    """The link of the previous mail stops working."""
    settings = call.context.settings
    mail.require(settings.mail_from)
    await call.context.database.run(
        staff.invite_again,
        call.context.database,
        call.actor,
        Site(settings.public_url, call.body.language),
        call.ids["user_id"],
    )
    return empty()


@endpoints.add(
    "DELETE",
    "/api/v1/users/{user_id}/totp",
    "Turn the second factor of an account off",
    audience="staff",
    permission="users.manage",
    answers={204: None},
    problems=("forbidden", "not_found"),
    session_only=True,
)
async def reset_user_totp(call: Call) -> HTTPResponse:
    """For somebody who lost the telephone and the recovery codes. Ends the account's sessions."""
    await call.context.database.run(
        staff.reset_second_factor, call.context.database, call.actor, call.ids["user_id"]
    )
    return empty()


@endpoints.add(
    "DELETE",
    "/api/v1/users/{user_id}/sessions",
    "Log an account out everywhere",
    audience="staff",
    permission="users.manage",
    answers={204: None},
    problems=("forbidden", "not_found"),
    session_only=True,
)
async def end_user_sessions(call: Call) -> HTTPResponse:
    """Its API keys stay valid."""
    await call.context.database.run(
        staff.end_sessions, call.context.database, call.actor, call.ids["user_id"]
    )
    return empty()


@endpoints.add(
    "GET",
    "/api/v1/colleagues",
    "The active accounts, as every agent may see them",
    audience="staff",
    permission="directory",
    query=models.ColleagueQuery,
    answers={200: models.ColleaguePage},
    etag=True,
)
async def list_colleagues(call: Call) -> HTTPResponse:
    """Who is present now, GET /api/v1/presence tells."""
    items, next_cursor = await call.context.database.run(
        staff.colleagues,
        call.context.database,
        cursor=call.query.cursor,
        limit=call.query.limit,
    )
    return json({"items": items, "next_cursor": next_cursor})


# --- teams ------------------------------------------------------------------------------------


@endpoints.add(
    "GET",
    "/api/v1/teams",
    "All teams, by name",
    audience="staff",
    permission="directory",
    answers={200: models.TeamPage},
    etag=True,
)
async def list_teams(call: Call) -> HTTPResponse:
    """With their active members."""
    items = await call.context.database.run(teams.everything, call.context.database)
    return json({"items": items, "next_cursor": None})


@endpoints.add(
    "POST",
    "/api/v1/teams",
    "Make a team",
    audience="staff",
    permission="teams.manage",
    body=models.NewTeam,
    answers={201: models.Team},
    problems=("forbidden", "conflict"),
)
async def create_team(call: Call) -> HTTPResponse:
    """Names differ by more than their case."""
    made = await call.context.database.run(
        teams.create,
        call.context.database,
        call.actor,
        name=call.body.name,
        member_ids=call.body.member_ids,
    )
    return json(made, 201)


@endpoints.add(
    "GET",
    "/api/v1/teams/{team_id}",
    "One team",
    audience="staff",
    permission="directory",
    answers={200: models.Team},
    problems=("not_found",),
)
async def get_team(call: Call) -> HTTPResponse:
    """With its active members."""
    return json(
        await call.context.database.run(teams.one, call.context.database, call.ids["team_id"])
    )


@endpoints.add(
    "PATCH",
    "/api/v1/teams/{team_id}",
    "Rename a team or set its members",
    audience="staff",
    permission="teams.manage",
    body=models.TeamChange,
    answers={200: models.Team},
    problems=("forbidden", "not_found", "conflict"),
)
async def change_team(call: Call) -> HTTPResponse:
    """``member_ids`` replaces all members."""
    return json(
        await call.context.database.run(
            teams.change,
            call.context.database,
            call.actor,
            call.ids["team_id"],
            call.body.model_dump(exclude_unset=True),
        )
    )


@endpoints.add(
    "DELETE",
    "/api/v1/teams/{team_id}",
    "Delete a team",
    audience="staff",
    permission="teams.manage",
    answers={204: None},
    problems=("forbidden", "not_found", "conflict"),
)
async def delete_team(call: Call) -> HTTPResponse:
    """Refused while unresolved conversations wait for it."""
    await call.context.database.run(
        teams.remove, call.context.database, call.actor, call.ids["team_id"]
    )
    return empty()


@endpoints.add(
    "PUT",
    "/api/v1/teams/{team_id}/members/{user_id}",
    "Put an agent into a team",
    audience="staff",
    permission="teams.manage",
    answers={204: None},
    problems=("forbidden", "not_found", "conflict"),
)
async def add_team_member(call: Call) -> HTTPResponse:
    """Twice changes nothing."""
    return await _set_member(call, belongs=True)


@endpoints.add(
    "DELETE",
    "/api/v1/teams/{team_id}/members/{user_id}",
    "Take an agent out of a team",
    audience="staff",
    permission="teams.manage",
    answers={204: None},
    problems=("forbidden", "not_found"),
)
async def remove_team_member(call: Call) -> HTTPResponse:
    """Twice changes nothing."""
    return await _set_member(call, belongs=False)


async def _set_member(call: Call, *, belongs: bool) -> HTTPResponse:
    await call.context.database.run(
        teams.set_member,
        call.context.database,
        call.actor,
        call.ids["team_id"],
        call.ids["user_id"],
        belongs=belongs,
    )
    return empty()


# --- API keys ---------------------------------------------------------------------------------


@endpoints.add(
    "GET",
    "/api/v1/api-keys",
    "All API keys, newest first",
    audience="staff",
    permission="api_keys.manage",
    query=models.ApiKeyQuery,
    answers={200: models.ApiKeyPage},
    problems=("forbidden",),
    session_only=True,
)
async def list_api_keys(call: Call) -> HTTPResponse:
    """Those that were revoked as well."""
    items, next_cursor = await call.context.database.run(
        api_keys.page, call.context.database, cursor=call.query.cursor, limit=call.query.limit
    )
    return json({"items": items, "next_cursor": next_cursor})


@endpoints.add(
    "POST",
    "/api/v1/api-keys",
    "Make an API key",
    audience="staff",
    permission="api_keys.manage",
    body=models.NewApiKey,
    answers={201: models.NewlyMadeApiKey},
    problems=("forbidden", "conflict"),
    session_only=True,
)
async def create_api_key(call: Call) -> HTTPResponse:
    """For the header ``Authorization: Bearer dk_…``; it acts as the account, needs no CSRF token,
    and cannot make keys itself."""
    body = call.body
    made = await call.context.database.run(
        api_keys.create,
        call.context.database,
        call.actor,
        name=body.name,
        user_id=body.user_id if body.user_id is not None else call.agent.id,
        days=body.days,
    )
    return json(made, 201)


@endpoints.add(
    "DELETE",
    "/api/v1/api-keys/{api_key_id}",
    "Revoke an API key",
    audience="staff",
    permission="api_keys.manage",
    answers={204: None},
    problems=("forbidden", "not_found"),
    session_only=True,
)
async def revoke_api_key(call: Call) -> HTTPResponse:
    """At once and for good; twice changes nothing."""
    await call.context.database.run(
        api_keys.revoke, call.context.database, call.actor, call.ids["api_key_id"]
    )
    return empty()
