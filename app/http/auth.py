"""Staff login and logout."""

from __future__ import annotations

from sanic.response import HTTPResponse, empty

from app.chat import accounts, inboxes
from app.chat.accounts import SESSION_LIFETIME, Session
from app.chat.errors import InvalidCredentials, TooManyAttempts
from app.http import models
from app.http.context import Context
from app.http.endpoint import SESSION_COOKIE, Call, Endpoints, json

endpoints = Endpoints("auth")


@endpoints.add(
    "POST",
    "/api/v1/auth/login",
    "Log in; sets the session cookie",
    audience="anyone",
    body=models.LoginRequest,
    answers={200: models.LoginResponse},
    problems=("invalid_credentials", "too_many_attempts"),
    limit="logins",
)
async def login(call: Call) -> HTTPResponse:
    """Check the password, unless there were too many failures for this account and address."""
    context, body = call.context, call.body
    address = call.request.ctx.client_address
    account = f"{accounts.normalized_email(body.email)}|{address}"
    for limit, key in (
        (context.login_per_account, account),
        (context.login_per_address, address),
    ):
        if seconds := await limit.blocked_seconds(key):
            raise TooManyAttempts(seconds)
    try:
        token, session = await context.database.run(
            accounts.log_in, context.database, body.email, body.password
        )
    except InvalidCredentials:
        await context.login_per_account.failed(account)
        await context.login_per_address.failed(address)
        raise
    await context.login_per_account.succeeded(account)
    call.request.ctx.user = f"agent:{session.agent.id}"
    response = json(
        {"user": accounts.user_wire(session.agent), "csrf_token": _csrf(context, session)}
    )
    response.add_cookie(
        SESSION_COOKIE,
        token,
        path="/",
        httponly=True,
        samesite="Lax",
        secure=context.settings.cookie_secure,
        max_age=int(SESSION_LIFETIME.total_seconds()),
    )
    return response


@endpoints.add(
    "POST",
    "/api/v1/auth/logout",
    "Log out; ends the session",
    audience="staff",
    permission="account",
    answers={204: None},
)
async def logout(call: Call) -> HTTPResponse:
    """End the session and clear the cookie."""
    assert call.session is not None  # noqa: S101  an endpoint for staff
    await call.context.database.run(accounts.log_out, call.context.database, call.session)
    response = empty()
    response.delete_cookie(SESSION_COOKIE, path="/")
    return response


@endpoints.add(
    "GET",
    "/api/v1/me",
    "Who is logged in, and what the dashboard needs to start",
    audience="staff",
    permission="account",
    answers={200: models.Me},
)
async def me(call: Call) -> HTTPResponse:
    """The account, its CSRF token, the options for pusher-js and the inboxes."""
    assert call.session is not None  # noqa: S101  an endpoint for staff
    database = call.context.database

    def read() -> list[dict[str, object]]:
        with database.view() as connection:
            return inboxes.refs(connection, call.agent)

    return json(
        {
            "user": accounts.user_wire(call.agent),
            "csrf_token": _csrf(call.context, call.session),
            "realtime": call.context.realtime(),
            "inboxes": await database.run(read),
        }
    )


def _csrf(context: Context, session: Session) -> str:
    return accounts.csrf_token(context.settings.secret_key, session.token_hash)
