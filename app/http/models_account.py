"""The JSON of one's own account: login, password, sessions, second factor, profile."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from app.chat import text
from app.chat.accounts import PASSWORD_MAX_CHARACTERS, PASSWORD_MIN_CHARACTERS
from app.chat.letters import Language
from app.chat.permissions import Permission
from app.http.models import (
    InboxRef,
    NoNul,
    OneLine,
    Realtime,
    Request,
    Response,
    Timestamp,
    User,
    unset,
)

EmailAddress = Annotated[
    str,
    Field(
        min_length=3,
        max_length=254,
        pattern=r"^[^@\s]{1,64}@[^@\s]{1,189}$",
        examples=["ann@example.com"],
    ),
    text.OneWord,
]
Password = Annotated[str, Field(min_length=1, max_length=PASSWORD_MAX_CHARACTERS)]
NewPassword = Annotated[
    str,
    Field(
        min_length=PASSWORD_MIN_CHARACTERS,
        max_length=PASSWORD_MAX_CHARACTERS,
        examples=["correct horse battery staple"],
    ),
    NoNul,
]
Code = Annotated[
    str,
    Field(
        min_length=6,
        max_length=40,
        description="of the authenticator app (six digits), or a recovery code",
        examples=["123456"],
    ),
]
LinkToken = Annotated[
    str,
    Field(
        min_length=1,
        max_length=200,
        description="what stands behind the = of the link in the mail",
        examples=["k5Q0…"],
    ),
]
PersonName = Annotated[str, Field(min_length=1, max_length=100), OneLine]
AvatarUrl = Annotated[
    str,
    Field(
        max_length=500,
        pattern=r"^https?://[^\s/]+(/\S*)?$",
        examples=["https://example.com/ann.png"],
    ),
    text.OneWord,
]
Availability = Literal["online", "away"]


class LoginRequest(Request):
    email: Annotated[str, Field(min_length=3, max_length=254)]
    password: Password
    code: Annotated[
        Code | None, Field(description="of the second factor, when the answer was totp_required")
    ] = None


class LoginResponse(Response):
    user: User
    csrf_token: str


class Me(Response):
    """The caller's account; ``csrf_token`` is empty for an API key, which needs none."""

    user: User
    csrf_token: str
    realtime: Realtime
    inboxes: list[InboxRef]
    all_inboxes: Annotated[bool, Field(description="whether new inboxes are seen as well")]
    availability: Availability
    permissions: list[Permission]
    totp_enabled: bool
    recovery_codes_left: int


class ProfileChange(Request):
    """Fields that are left out stay as they are."""

    name: PersonName = unset()
    avatar_url: AvatarUrl | None = unset()
    availability: Availability = unset()


class PasswordChange(Request):
    password: Annotated[Password, Field(description="the present one")]
    new_password: NewPassword


class Renewed(Response):
    """The session was replaced by a new one, in the cookie; all others of the account ended."""

    csrf_token: str


class ResetRequest(Request):
    email: EmailAddress
    language: Annotated[Language, Field(description="of the mail")] = "en"


class ChoosePassword(Request):
    token: LinkToken
    password: NewPassword


class PasswordChosen(Response):
    email: Annotated[str, Field(description="the address to log in with")]


class BrowserSession(Response):
    id: Annotated[str, Field(examples=["0c9d1e6f2b7a48d35e90716c2f4b8a13"])]
    current: Annotated[bool, Field(description="whether it is the one that asks")]
    address: str | None
    user_agent: str | None
    created_at: Timestamp
    last_seen_at: Annotated[Timestamp, Field(description="to five minutes")]
    expires_at: Timestamp


class BrowserSessions(Response):
    """The valid sessions of the account, last used first."""

    items: list[BrowserSession]
    next_cursor: None


class PasswordAgain(Request):
    password: Password


class PasswordAndCode(Request):
    password: Password
    code: Code


class CodeOnly(Request):
    code: Code


class TotpSecret(Response):
    """To be shown as a QR code of ``otpauth_url``; not in force before it is confirmed."""

    secret: Annotated[str, Field(examples=["JBSWY3DPEHPK3PXP"])]
    otpauth_url: Annotated[
        str, Field(examples=["otpauth://totp/Deskline:ann%40example.com?secret=JBSWY3DPEHPK3PXP"])
    ]


class RecoveryCodes(Response):
    """Each works once instead of a code of the app. They are shown only now."""

    recovery_codes: Annotated[list[str], Field(examples=[["abcd-efgh-jkmn-pqrs"]])]


class TotpConfirmed(RecoveryCodes):
    """The second factor is in force; the session was replaced, all others ended."""

    csrf_token: str
