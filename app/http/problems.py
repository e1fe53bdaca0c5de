"""Errors as problem documents (RFC 9457). The one place where errors become HTTP answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson
from pydantic import ValidationError
from sanic.exceptions import SanicException
from sanic.response import HTTPResponse, raw

from app import log
from app.chat import errors
from app.chat.pages import BadCursor
from app.db.engines import Unavailable

CONTENT_TYPE: Final = "application/problem+json"
MESSAGE_FIELD: Final = "body"

# code -> (status, title)
CODES: Final[Mapping[str, tuple[int, str]]] = {
    "invalid_request": (422, "The request is not valid"),
    "malformed_request": (400, "The request cannot be read"),
    "message_too_long": (422, "The message is too long"),
    "not_authenticated": (401, "Log in first"),
    "invalid_credentials": (401, "The e-mail address or the password is wrong"),
    "totp_required": (401, "A code of the second factor is needed"),
    "invalid_totp": (401, "The code of the second factor is wrong"),
    "wrong_password": (422, "The password is wrong"),
    "wrong_code": (422, "The code of the second factor is wrong"),
    "email_taken": (409, "Another account has this e-mail address"),
    "link_invalid": (410, "This link does not work any more"),
    "csrf_failed": (403, "The CSRF token is missing or wrong"),
    "forbidden": (403, "Not allowed"),
    "origin_not_allowed": (403, "Pages of this site may not call the API"),
    "visitor_blocked": (403, "This visitor is blocked"),
    "identity_not_verified": (403, "The visitor's identity is not signed"),
    "not_found": (404, "Not found"),
    "unknown_inbox": (404, "There is no such inbox"),
    "inbox_archived": (410, "This inbox is archived"),
    "method_not_allowed": (405, "This address does not know that method"),
    "conversation_already_claimed": (409, "Another agent has this conversation"),
    "conflict": (409, "It cannot be done in the present state"),
    "attachment_refused": (422, "The file cannot be taken"),
    "attachment_infected": (422, "The virus scanner refuses the file"),
    "attachment_type_refused": (415, "Files of this type are not taken"),
    "attachment_not_found": (422, "There is no such attachment to send"),
    "edit_window_over": (409, "It is too late to change this message"),
    "message_deleted": (409, "The message was deleted"),
    "client_id_conflict": (409, "Another message has this client_id"),
    "search_too_broad": (422, "Too much matches"),
    "payload_too_large": (413, "The request is too large"),
    "mail_not_configured": (409, "This installation cannot send mail"),
    "too_many_attempts": (429, "Too many failed attempts"),
    "rate_limited": (429, "Too many requests"),
    "internal_error": (500, "The server failed"),
    "service_unavailable": (503, "Busy or not ready"),
}


class Problem(Exception):
    """An error that is answered with a problem document."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        field_errors: list[dict[str, str]] | None = None,
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail
        self.field_errors = field_errors
        self.extra = extra or {}
        self.headers = dict(headers or {})

    @property
    def status(self) -> int:
        """The HTTP status of the code."""
        return CODES[self.code][0]

    def response(self) -> HTTPResponse:
        """The answer."""
        status, title = CODES[self.code]
        document: dict[str, Any] = {
            "type": "about:blank",
            "title": title,
            "status": status,
            "detail": self.detail,
            "code": self.code,
        }
        if self.field_errors is not None:
            document["errors"] = self.field_errors
        document.update(self.extra)
        headers = {"Cache-Control": "no-store", **self.headers}
        return raw(
            orjson.dumps(document), status=status, headers=headers, content_type=CONTENT_TYPE
        )


def not_authenticated() -> Problem:
    """401: there is no valid session or visitor token."""
    return Problem(
        "not_authenticated",
        "Send a valid session cookie or visitor token.",
        headers={"WWW-Authenticate": 'Bearer realm="deskline"'},
    )


def forbidden() -> Problem:
    """403: the caller may not do this."""
    return Problem("forbidden", "This account or visitor may not do that.")


def csrf_failed() -> Problem:
    """403: an unsafe call without the session's CSRF token."""
    return Problem(
        "csrf_failed",
        "Send the csrf_token of GET /api/v1/me in the X-CSRF-Token header.",
    )


def invalid(error: ValidationError) -> Problem:
    """422 with one entry per wrong field; never the value that was sent."""
    found = [
        {"field": ".".join(str(part) for part in item["loc"]), "message": item["msg"]}
        for item in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    too_long = any(
        item["type"] == "string_too_long" and item["loc"] == (MESSAGE_FIELD,)
        for item in error.errors(include_url=False, include_context=False, include_input=False)
    )
    if any(item["type"] == "json_invalid" for item in error.errors(include_input=False)):
        return Problem("malformed_request", "The body should be a JSON object in UTF-8.")
    if too_long:
        return Problem(
            "message_too_long", "Shorten the message or send it in parts.", field_errors=found
        )
    return Problem("invalid_request", "Correct the fields named in errors.", field_errors=found)


def unavailable(retry_seconds: int = 1) -> Problem:
    """503 with Retry-After."""
    return Problem(
        "service_unavailable",
        "The request was not carried out; send it again in a moment.",
        headers={"Retry-After": str(retry_seconds)},
    )


def from_exception(error: BaseException) -> Problem:  # noqa: PLR0911, PLR0912  it is a table
    """The problem that an exception is answered with; what nobody expected is a 500."""
    match error:
        case Problem():
            return error
        case ValidationError():
            return invalid(error)
        case errors.NotFound():
            return Problem("not_found", "It does not exist, or it is not yours.")
        case errors.Forbidden():
            return forbidden()
        case errors.Refused():
            return _refused(error)
        case errors.FieldsRefused():
            found = [{"field": name, "message": text} for name, text in error.fields.items()]
            return Problem(
                "invalid_request", "Correct the fields named in errors.", field_errors=found
            )
        case errors.UnknownInbox():
            return Problem("unknown_inbox", "Check the data-inbox key of the widget's script tag.")
        case errors.InvalidCredentials():
            return Problem("invalid_credentials", "Check both and try again.")
        case errors.CodeNeeded():
            return Problem("totp_required", "Send the code of the authenticator app in code.")
        case errors.InvalidCode():
            return Problem("invalid_totp", "Wait for the app's next code, or use a recovery code.")
        case errors.TooManyAttempts():
            return Problem(
                "too_many_attempts",
                f"Try again in {error.retry_seconds} seconds.",
                headers={"Retry-After": str(error.retry_seconds)},
            )
        case errors.AlreadyClaimed():
            return Problem(
                "conversation_already_claimed",
                "The holder is named in holder.",
                extra={"holder": error.holder},
            )
        case errors.ClientIdTaken():
            return Problem("client_id_conflict", "Make a new UUID for each message.")
        case errors.MessageRefused():
            return Problem(
                "invalid_request",
                "The message holds something that cannot be stored.",
                field_errors=[{"field": MESSAGE_FIELD, "message": "cannot be stored"}],
            )
        case BadCursor():
            return Problem(
                "invalid_request",
                "Use the next_cursor of the previous page.",
                field_errors=[{"field": "cursor", "message": "is not a cursor of this list"}],
            )
        case errors.Busy():
            return unavailable(error.retry_seconds)
        case Unavailable():
            return unavailable()
        case SanicException():
            return _from_sanic(error)
        case _:
            return Problem(
                "internal_error",
                "It is logged; the X-Request-ID header names the log line.",
            )


def _refused(error: errors.Refused) -> Problem:
    headers = {}
    if error.retry_seconds is not None:
        headers["Retry-After"] = str(error.retry_seconds)
    field_errors = None
    if error.field is not None:
        field_errors = [{"field": error.field, "message": error.detail}]
    return Problem(
        error.code, error.detail, field_errors=field_errors, extra=error.extra, headers=headers
    )


def _from_sanic(error: SanicException) -> Problem:
    status = error.status_code
    headers = {str(name): str(value) for name, value in (error.headers or {}).items()}
    allow = {name: value for name, value in headers.items() if name.lower() == "allow"}
    match status:
        case 404:
            return Problem("not_found", "There is nothing at this address.")
        case 405:
            return Problem("method_not_allowed", "See the Allow header and /docs.", headers=allow)
        case 413:
            return Problem("payload_too_large", "Send less.")
        case 503:
            return unavailable()
        case _ if 400 <= status < 500:
            return Problem("malformed_request", "See the API documentation at /docs.")
        case _:
            return Problem("internal_error", "The server could not answer this request.")


def answer(error: BaseException, request_id: str) -> HTTPResponse:
    """The answer to an exception; logs those that are our fault."""
    problem = from_exception(error)
    if problem.status >= 500:
        logger = log.get("http")
        if problem.code == "internal_error":
            logger.error("request failed", request_id=request_id, exc_info=error)
        else:
            logger.warning(
                "request refused", request_id=request_id, reason=f"{type(error).__name__}: {error}"
            )
    return problem.response()
