"""What can go wrong in the domain. app.http turns these into answers, in one place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ChatError(Exception):
    """The parent of all errors of the domain."""


class NotFound(ChatError):
    """There is no such thing, or the caller may not know of it."""


class Forbidden(ChatError):
    """The caller's role may not do this at all."""


class Refused(ChatError):
    """The request is understood and not carried out; nothing was changed.

    ``code`` is one of app.http.problems.CODES, ``detail`` a sentence that says what to do,
    ``field`` the field of the request that is to blame, ``extra`` more members of the answer.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        field: str | None = None,
        extra: Mapping[str, Any] | None = None,
        retry_seconds: int | None = None,
    ) -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail
        self.field = field
        self.extra = dict(extra or {})
        self.retry_seconds = retry_seconds


class FieldsRefused(ChatError):
    """Several fields of the request are wrong; ``fields`` says of each what it should be."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        super().__init__(", ".join(fields))
        self.fields = dict(fields)


class UnknownInbox(ChatError):
    """No inbox has this key."""


class InvalidCredentials(ChatError):
    """The e-mail address or the password is wrong; which one is not told."""


class CodeNeeded(ChatError):
    """The password is right; a code of the second factor is needed as well."""


class InvalidCode(ChatError):
    """The code of the second factor is wrong, too old, or was used before."""


class TooManyAttempts(ChatError):
    """Too many failed logins; ``retry_seconds`` is how long to wait."""

    def __init__(self, retry_seconds: int) -> None:
        super().__init__(f"wait {retry_seconds} seconds")
        self.retry_seconds = retry_seconds


class AlreadyClaimed(ChatError):
    """Another agent has the conversation; ``holder`` is that agent's UserRef."""

    def __init__(self, holder: dict[str, Any]) -> None:
        super().__init__("claimed by another agent")
        self.holder = holder


class ClientIdTaken(ChatError):
    """Another sender's message in this conversation has the same client_id."""


class MessageRefused(ChatError):
    """The database refuses to store this message, and would refuse it again."""


class Busy(ChatError):
    """The server or its database cannot take this now; ``retry_seconds``: when to try again."""

    def __init__(self, retry_seconds: int = 1) -> None:
        super().__init__(f"try again in {retry_seconds} seconds")
        self.retry_seconds = retry_seconds
