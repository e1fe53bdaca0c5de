"""Staff login, logout, and passwords chosen by way of a link in a mail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from sanic.response import HTTPResponse, empty

from app.bus.limits import AttemptLimit
from app.chat import accounts, inboxes, links, mail, staff
from app.chat.accounts import SESSION_LIFETIME, Session
from app.chat.errors import InvalidCode, InvalidCredentials, TooManyAttempts
from app.chat.links import Purpose, Site
from app.http import models_account as models
from app.http.context import Context
from app.http.endpoint import SESSION_COOKIE, Call, Endpoints, browser, json

endpoints = Endpoints("auth")

# how long the answer to a forgotten password takes at least, whether the address is known or not
RESET_SECONDS: Final = 0.25

T = TypeVar("T")


@endpoints.add(
    "POST",
    "/api/v1/auth/login",
    "Log in; sets the session cookie",
    audience="anyone",
    body=models.LoginRequest,
    answers={200: models.LoginResponse},
    problems=("invalid_credentials", "totp_required", "invalid_totp", "too_many_attempts"),
    limit="logins",
)
async def login(call: Call) -> HTTPResponse:
    """Checks the password and, where there is one, the second factor, unless there were too many
    failures for this account and address. A session that the browser came with ends."""
    context, body = call.context, call.body

    def log_in(count_code: Callable[[], None]) -> tuple[str, Session]:
        return accounts.log_in(
            context.database,
            body.email,
            body.password,
            box=context.secret_box,
            code=body.code,
            browser=browser(call.request),
            replaces=call.request.cookies.get(SESSION_COOKIE),
            count_code=count_code,
        )

    token, session = await attempt(call, body.email, log_in)
    call.request.ctx.user = f"agent:{session.agent.id}"
    response = json(
        {"user": accounts.user_wire(session.agent), "csrf_token": csrf(context, session)}
    )
    set_cookie(context, response, token)
    return response


@endpoints.add(
    "POST",
    "/api/v1/auth/logout",
    "Log out; ends the session",
    audience="staff",
    permission="account",
    answers={204: None},
    problems=("forbidden",),
    session_only=True,
)
async def logout(call: Call) -> HTTPResponse:
    """End the session and clear the cookie."""
    await call.context.database.run(accounts.log_out, call.context.database, call.login)
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
    database = call.context.database

    def read() -> tuple[list[dict[str, object]], dict[str, object]]:
        with database.view() as connection:
            refs = inboxes.refs(connection, call.agent)
        return refs, staff.profile(database, call.agent)

    refs, profile = await database.run(read)
    return json(
        {
            "user": accounts.user_wire(call.agent),
            "csrf_token": csrf(call.context, call.login),
            "realtime": call.context.realtime(),
            "inboxes": refs,
            **profile,
        }
    )


@endpoints.add(
    "POST",
    "/api/v1/auth/password-reset",
    "Ask for a mail with a link to choose a new password",
    audience="anyone",
    body=models.ResetRequest,
    answers={204: None},
    problems=("mail_not_configured", "too_many_attempts", "service_unavailable"),
    limit="logins",
)
async def request_password_reset(call: Call) -> HTTPResponse:
    """The answer is the same, and takes as long, whether the address has an account or not. An
    account gets at most one such mail in five minutes."""
    context = call.context
    mail.require(context.settings.mail_from)
    network = call.request.ctx.client_network
    if seconds := await context.resets_per_address.take(network):
        raise TooManyAttempts(seconds)
    site = Site(context.settings.public_url, call.body.language)
    work = context.database.run(links.request_reset, context.database, site, call.body.email)
    await asyncio.gather(work, asyncio.sleep(RESET_SECONDS))
    return empty()


@endpoints.add(
    "POST",
    "/api/v1/auth/password-reset/confirm",
    "Choose a new password with the link of the mail",
    audience="anyone",
    body=models.ChoosePassword,
    answers={200: models.PasswordChosen},
    problems=("link_invalid", "service_unavailable"),
    limit="logins",
)
async def confirm_password_reset(call: Call) -> HTTPResponse:
    """Ends every session of the account. The second factor stays."""
    return await _choose(call, "reset")


@endpoints.add(
    "POST",
    "/api/v1/auth/invitation/accept",
    "Choose the first password with the link of an invitation",
    audience="anyone",
    body=models.ChoosePassword,
    answers={200: models.PasswordChosen},
    problems=("link_invalid", "service_unavailable"),
    limit="logins",
)
async def accept_invitation(call: Call) -> HTTPResponse:
    """Log in with it afterwards."""
    return await _choose(call, "invite")


async def _choose(call: Call, purpose: Purpose) -> HTTPResponse:
    email = await call.context.database.run(
        links.choose_password,
        call.context.database,
        purpose,
        call.body.token,
        call.body.password,
        call.request.ctx.client_address,
    )
    return json({"email": email})


async def attempt(call: Call, email: str, work: Callable[[Callable[[], None]], T]) -> T:
    """Run ``work``, which checks a password or a code, unless too many tries failed lately.

    It runs in a thread and calls what it is given before it checks a code. A try is counted before
    it is made, so that many at once find no more places than one after the other, and given back
    unless it failed. Raises what ``work`` raises, or :class:`TooManyAttempts`.
    """
    context = call.context
    normalized = accounts.normalized_email(email)
    network = call.request.ctx.client_network
    per_account = (context.login_per_account, f"{normalized}|{network}")
    per_address = (context.login_per_address, network)
    # only whoever knows the password gets so far: this one counts from everywhere
    codes = (context.codes_per_account, normalized)
    taken: list[tuple[AttemptLimit, str]] = []
    loop = asyncio.get_running_loop()

    async def take(*limits: tuple[AttemptLimit, str]) -> None:
        # at once, so that a Redis that hangs is waited for only once
        waits = await asyncio.gather(*(limit.take(key) for limit, key in limits))
        taken.extend(one for one, seconds in zip(limits, waits, strict=True) if not seconds)
        if seconds := max(waits):
            raise TooManyAttempts(seconds)

    def count_code() -> None:
        asyncio.run_coroutine_threadsafe(take(codes), loop).result()

    try:
        await take(per_account, per_address)
        done = await context.database.run(work, count_code)
    except InvalidCode:
        raise
    except InvalidCredentials:
        await _give_back([one for one in taken if one is codes])
        raise
    except Exception:  # a code that is missing, a database that is away: nothing was guessed
        await _give_back(taken)
        raise
    await asyncio.gather(
        context.login_per_account.forget(per_account[1]),
        _give_back([one for one in taken if one is not per_account]),
    )
    return done


async def _give_back(taken: Sequence[tuple[AttemptLimit, str]]) -> None:
    await asyncio.gather(*(limit.give_back(key) for limit, key in taken))


def set_cookie(context: Context, response: HTTPResponse, token: str) -> None:
    """Give the browser its session; how long it is valid, the server decides."""
    response.add_cookie(
        SESSION_COOKIE,
        token,
        path="/",
        httponly=True,
        samesite="Lax",
        secure=context.settings.cookie_secure,
        max_age=int(SESSION_LIFETIME.total_seconds()),
    )


def csrf(context: Context, session: Session) -> str:
    """The CSRF token of a session; an API key has and needs none."""
    if session.api_key_id is not None:
        return ""
    return accounts.csrf_token(context.settings.secret_key, session.token_hash)
