"""One's own account: profile, password, sessions, second factor.

Except for the profile these need a session of a browser: a program with an API key, which may have
been stolen from a server, must not change how a person logs in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from sanic.response import HTTPResponse, empty

from app.chat import accounts, audit, second_factor, staff
from app.chat.accounts import Session
from app.chat.errors import InvalidCode, InvalidCredentials, Refused
from app.http import models
from app.http import models_account as bodies
from app.http.auth import attempt, csrf, set_cookie
from app.http.endpoint import Call, Endpoints, browser, json

endpoints = Endpoints("account")

_PASSWORD_PROBLEMS = ("forbidden", "wrong_password", "too_many_attempts")
_CODE_PROBLEMS = (*_PASSWORD_PROBLEMS, "wrong_code", "conflict")

P = ParamSpec("P")
T = TypeVar("T")


@endpoints.add(
    "PATCH",
    "/api/v1/me",
    "Change the own name, picture or availability",
    audience="staff",
    permission="account",
    body=bodies.ProfileChange,
    answers={200: models.User},
)
async def change_profile(call: Call) -> HTTPResponse:
    """Whoever is away gets no conversations automatically."""
    return json(
        await call.context.database.run(
            staff.change_profile,
            call.context.database,
            call.agent,
            call.body.model_dump(exclude_unset=True),
        )
    )


@endpoints.add(
    "POST",
    "/api/v1/me/password",
    "Change the own password",
    audience="staff",
    permission="account",
    body=bodies.PasswordChange,
    answers={200: bodies.Renewed},
    problems=_PASSWORD_PROBLEMS,
    session_only=True,
    limit="logins",
)
async def change_password(call: Call) -> HTTPResponse:
    """Ends every session of the account and opens a new one for the caller: take the new cookie
    and CSRF token."""
    token, session = await _checked(
        call,
        accounts.change_password,
        call.context.database,
        call.login,
        call.actor,
        password=call.body.password,
        new_password=call.body.new_password,
        browser=browser(call.request),
    )
    return _renewed(call, token, session, {})


@endpoints.add(
    "GET",
    "/api/v1/me/sessions",
    "Where one is logged in",
    audience="staff",
    permission="account",
    answers={200: bodies.BrowserSessions},
    problems=("forbidden",),
    session_only=True,
)
async def list_sessions(call: Call) -> HTTPResponse:
    """With the address and the browser that each was last used from."""
    items = await call.context.database.run(accounts.sessions_of, call.context.database, call.login)
    return json({"items": items, "next_cursor": None})


@endpoints.add(
    "DELETE",
    "/api/v1/me/sessions",
    "Log out everywhere else",
    audience="staff",
    permission="account",
    answers={204: None},
    problems=("forbidden",),
    session_only=True,
)
async def end_other_sessions(call: Call) -> HTTPResponse:
    """The calling session stays."""
    await call.context.database.run(accounts.end_other_sessions, call.context.database, call.login)
    return empty()


@endpoints.add(
    "DELETE",
    "/api/v1/me/sessions/{session}",
    "End one session",
    audience="staff",
    permission="account",
    answers={204: None},
    problems=("forbidden", "not_found"),
    session_only=True,
)
async def end_session(call: Call) -> HTTPResponse:
    """At once: its cookie is worth nothing any more."""
    await call.context.database.run(
        accounts.end_session, call.context.database, call.login, call.names["session"]
    )
    return empty()


@endpoints.add(
    "POST",
    "/api/v1/me/totp",
    "Begin to set up a second factor",
    audience="staff",
    permission="account",
    body=bodies.PasswordAgain,
    answers={200: bodies.TotpSecret},
    problems=(*_PASSWORD_PROBLEMS, "conflict"),
    session_only=True,
    limit="logins",
)
async def start_totp(call: Call) -> HTTPResponse:
    """A secret for an authenticator app (RFC 6238). It is in force once a code confirms it."""
    context, session = call.context, call.login

    def start() -> tuple[str, str]:
        row = accounts.verify_own(context.database, session, call.body.password)
        with context.database.write() as connection:
            return second_factor.start(connection, context.secret_box, row.id, row.email)

    secret, url = await _checked(call, start)
    return json({"secret": secret, "otpauth_url": url})


@endpoints.add(
    "POST",
    "/api/v1/me/totp/confirm",
    "Put the second factor in force with a first code",
    audience="staff",
    permission="account",
    body=bodies.CodeOnly,
    answers={200: bodies.TotpConfirmed},
    problems=("forbidden", "wrong_code", "too_many_attempts", "conflict"),
    session_only=True,
    limit="logins",
)
async def confirm_totp(call: Call) -> HTTPResponse:
    """Answers the recovery codes, once. Ends every session of the account and opens a new one for
    the caller."""
    context, session = call.context, call.login

    def confirm() -> tuple[list[str], str, Session]:
        with context.database.write() as connection:
            row = accounts.own_row(connection, session)
            if row.totp_enabled_at is not None or row.totp_secret is None:
                raise Refused("conflict", "There is nothing to confirm: begin with POST /me/totp.")
            codes = second_factor.confirm(connection, context.secret_box, row, call.body.code)
            audit.record(connection, call.actor, "user.totp_enabled", "user", object_id=row.id)
            token, renewed = accounts.rotate(connection, session, browser(call.request))
            return codes, token, renewed

    codes, token, renewed = await _checked(call, confirm)
    return _renewed(call, token, renewed, {"recovery_codes": codes})


@endpoints.add(
    "POST",
    "/api/v1/me/totp/disable",
    "Turn the second factor off",
    audience="staff",
    permission="account",
    body=bodies.PasswordAndCode,
    answers={204: None},
    problems=_CODE_PROBLEMS,
    session_only=True,
    limit="logins",
)
async def disable_totp(call: Call) -> HTTPResponse:
    """Needs the password and a code; a recovery code will do."""
    context, session = call.context, call.login

    def disable() -> None:
        accounts.verify_own(context.database, session, call.body.password)
        with context.database.write() as connection:
            row = accounts.own_row(connection, session)
            _require_in_force(row)
            second_factor.use(connection, context.secret_box, row, call.body.code)
            second_factor.disable(connection, row.id)
            audit.record(connection, call.actor, "user.totp_disabled", "user", object_id=row.id)

    await _checked(call, disable)
    return empty()


@endpoints.add(
    "POST",
    "/api/v1/me/totp/recovery-codes",
    "Replace the recovery codes",
    audience="staff",
    permission="account",
    body=bodies.PasswordAndCode,
    answers={200: bodies.RecoveryCodes},
    problems=_CODE_PROBLEMS,
    session_only=True,
    limit="logins",
)
async def replace_recovery_codes(call: Call) -> HTTPResponse:
    """The old ones stop working."""
    context, session = call.context, call.login

    def replace() -> list[str]:
        accounts.verify_own(context.database, session, call.body.password)
        with context.database.write() as connection:
            row = accounts.own_row(connection, session)
            _require_in_force(row)
            second_factor.use(connection, context.secret_box, row, call.body.code)
            audit.record(
                connection, call.actor, "user.recovery_codes_replaced", "user", object_id=row.id
            )
            return second_factor.new_recovery_codes(connection, row.id)

    return json({"recovery_codes": await _checked(call, replace)})


async def _checked(call: Call, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """As :func:`attempt`; for somebody who is logged in a wrong password is no reason to log in
    again, so that the answer is another one than at the login."""

    def checked(count_code: Callable[[], None]) -> T:
        # nobody else can use the code's places up: whoever gets here has a session
        count_code()
        return work(*args, **kwargs)

    try:
        return await attempt(call, call.agent.email, checked)
    except InvalidCredentials:
        raise Refused(
            "wrong_password", "Type the present password again.", field="password"
        ) from None
    except InvalidCode:
        raise Refused("wrong_code", "Wait for the app's next code.", field="code") from None


def _require_in_force(row: object) -> None:
    if getattr(row, "totp_enabled_at", None) is None:
        raise Refused("conflict", "There is no second factor in force.")


def _renewed(call: Call, token: str, session: Session, more: dict[str, object]) -> HTTPResponse:
    response = json({"csrf_token": csrf(call.context, session), **more})
    set_cookie(call.context, response, token)
    return response
