"""The JSON of the staff: accounts, colleagues, teams, API keys."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from app.chat.letters import Language
from app.chat.staff import COLLEAGUES_MAX
from app.chat.teams import MEMBERS_MAX
from app.http.models import NoNul, OneLine, Request, Response, Timestamp, UserRef, unset
from app.http.models_account import (
    Availability,
    AvatarUrl,
    EmailAddress,
    NewPassword,
    PersonName,
)

Id = Annotated[int, Field(ge=1, le=2**63 - 1)]
Role = Literal["admin", "agent"]
Cursor = Annotated[str, Field(max_length=200)]
InboxIds = Annotated[
    list[Id],
    Field(max_length=1000, description="what the account sees unless all_inboxes is true"),
]
Capacity = Annotated[
    int,
    Field(ge=0, le=1000, description="open conversations that automatic assignment gives at most"),
]


# --- accounts ---------------------------------------------------------------------------------


class StaffAccount(Response):
    """An account as admins see it; ``invited``: its owner has not chosen a password yet."""

    id: int
    email: str
    name: str
    role: Role
    avatar_url: str | None
    active: bool
    invited: bool
    availability: Availability
    all_inboxes: bool
    inbox_ids: list[int]
    capacity: int
    totp_enabled: bool
    created_at: Timestamp


class StaffAccountPage(Response):
    """By id, which is the order in which they were made."""

    items: list[StaffAccount]
    next_cursor: str | None


class StaffAccountQuery(Request):
    query: Annotated[
        str | None, Field(max_length=100, description="a part of the name or address"), NoNul
    ] = None
    role: Role | None = None
    active: bool | None = None
    cursor: Cursor | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 50


class NewStaffAccount(Request):
    """Without ``password`` a mail invites the owner to choose one."""

    email: EmailAddress
    name: PersonName
    role: Role = "agent"
    avatar_url: AvatarUrl | None = None
    all_inboxes: bool = True
    inbox_ids: InboxIds = Field(default_factory=list)
    capacity: Capacity = 10
    password: NewPassword | None = None
    language: Annotated[Language, Field(description="of the mail")] = "en"


class StaffAccountChange(Request):
    """Fields that are left out stay as they are."""

    name: PersonName = unset()
    role: Role = unset()
    avatar_url: AvatarUrl | None = unset()
    active: Annotated[
        bool, Field(description="false ends its sessions and API keys at once, for good")
    ] = unset()
    all_inboxes: bool = unset()
    inbox_ids: InboxIds = unset()
    capacity: Capacity = unset()


class Invitation(Request):
    language: Annotated[Language, Field(description="of the mail")] = "en"


class Colleague(Response):
    id: int
    name: str
    avatar_url: str | None
    availability: Availability


class ColleaguePage(Response):
    items: list[Colleague]
    next_cursor: str | None


class ColleagueQuery(Request):
    cursor: Cursor | None = None
    limit: Annotated[int, Field(ge=1, le=COLLEAGUES_MAX)] = COLLEAGUES_MAX


# --- teams ------------------------------------------------------------------------------------

TeamName = Annotated[str, Field(min_length=1, max_length=100), OneLine]
MemberIds = Annotated[list[Id], Field(max_length=MEMBERS_MAX)]


class Team(Response):
    """With its active members, by name."""

    id: int
    name: str
    members: list[UserRef]
    created_at: Timestamp


class TeamPage(Response):
    """All teams, by name: there are at most 200."""

    items: list[Team]
    next_cursor: None


class NewTeam(Request):
    name: TeamName
    member_ids: MemberIds = Field(default_factory=list)


class TeamChange(Request):
    """Fields that are left out stay as they are."""

    name: TeamName = unset()
    member_ids: MemberIds = unset()


# --- API keys ---------------------------------------------------------------------------------


class ApiKey(Response):
    """A key, known by its first characters; ``user`` is the account that it acts as."""

    id: int
    name: str
    prefix: Annotated[str, Field(examples=["dk_Zr4kQ9"])]
    user: UserRef
    created_at: Timestamp
    expires_at: Timestamp | None
    last_used_at: Annotated[Timestamp | None, Field(description="to five minutes")]
    revoked_at: Timestamp | None


class NewlyMadeApiKey(ApiKey):
    """With the key itself, which is shown only now."""

    key: Annotated[str, Field(examples=["dk_Zr4kQ9…"])]


class ApiKeyPage(Response):
    """Newest first."""

    items: list[ApiKey]
    next_cursor: str | None


class ApiKeyQuery(Request):
    cursor: Cursor | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 50


class NewApiKey(Request):
    name: Annotated[str, Field(min_length=1, max_length=100), OneLine]
    user_id: Annotated[
        Id | None, Field(description="the account that it acts as; left out: the caller's own")
    ] = None
    days: Annotated[
        int | None,
        Field(ge=1, le=3650, description="how long it is valid; left out: until revoked"),
    ] = None
