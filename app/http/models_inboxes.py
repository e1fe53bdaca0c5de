"""The JSON of inboxes and business hours."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from pydantic import Field

from app.chat import business_hours as hours
from app.chat import inboxes
from app.chat.inboxes import InboxSettings
from app.chat.text import OneLine
from app.http.models import Request, Response, Timestamp, UserRef, unset

Id = Annotated[int, Field(ge=1, le=2**63 - 1)]
RetentionDays = Annotated[
    int,
    Field(ge=1, le=36_500, description="resolved conversations are deleted after so many days"),
]

# --- business hours ---------------------------------------------------------------------------


class HolidayAnswer(Response):
    date: date
    name: str
    hours: list[tuple[str, str]]


class WeeklyAnswer(Response):
    mon: list[tuple[str, str]]
    tue: list[tuple[str, str]]
    wed: list[tuple[str, str]]
    thu: list[tuple[str, str]]
    fri: list[tuple[str, str]]
    sat: list[tuple[str, str]]
    sun: list[tuple[str, str]]


class BusinessHours(Response):
    """``open`` and ``opens_at`` are of the moment of the answer."""

    id: int
    name: str
    time_zone: str
    weekly: WeeklyAnswer
    holidays: list[HolidayAnswer]
    open: bool
    opens_at: Timestamp | None
    created_at: Timestamp


class BusinessHoursPage(Response):
    """All of them, by name: there are at most 200."""

    items: list[BusinessHours]
    next_cursor: None


HoursName = Annotated[str, Field(min_length=1, max_length=100), OneLine]


class NewBusinessHours(Request):
    name: HoursName
    time_zone: hours.ZoneName
    weekly: hours.Weekly
    holidays: hours.Holidays = Field(default_factory=list)


class BusinessHoursChange(Request):
    """Fields that are left out stay as they are; a list is replaced as a whole."""

    name: HoursName = unset()
    time_zone: hours.ZoneName = unset()
    weekly: hours.Weekly = unset()
    holidays: hours.Holidays = unset()


# --- inboxes ----------------------------------------------------------------------------------


class ThemeAnswer(Response):
    position: str
    color_scheme: str
    launcher_text: dict[str, str]


class FormFieldAnswer(Response):
    name: str
    label: dict[str, str]
    type: str
    required: bool
    options: list[str]


class OfflineFormAnswer(Response):
    enabled: bool
    message: dict[str, str]


class Inbox(Response):
    """``identity_verified``: whether it has an identity secret, so that identities are signed."""

    id: int
    key: str
    name: str
    color: str
    greeting: str
    greetings: dict[str, str]
    languages: list[str]
    allowed_origins: list[str]
    theme: ThemeAnswer
    pre_chat: list[FormFieldAnswer]
    offline_form: OfflineFormAnswer
    consent: dict[str, str]
    csat_enabled: bool
    business_hours_id: int | None
    retention_days: int | None
    auto_assign: bool
    identity_verified: bool
    snippet: Annotated[str, Field(description="what the site puts into its pages")]
    created_at: Timestamp
    archived_at: Timestamp | None


class InboxPage(Response):
    items: list[Inbox]
    next_cursor: str | None


class InboxQuery(Request):
    archived: Annotated[bool, Field(description="archived ones too")] = False
    cursor: Annotated[str, Field(max_length=200)] | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 50


class NewInbox(InboxSettings):
    name: inboxes.Name
    key: inboxes.Key = unset()
    color: inboxes.Color = inboxes.DEFAULT_COLOR
    greeting: inboxes.Greeting = inboxes.DEFAULT_GREETING
    languages: inboxes.Languages = Field(default_factory=lambda: list(inboxes.DEFAULT_LANGUAGES))
    business_hours_id: Id | None = None
    retention_days: RetentionDays | None = None
    auto_assign: bool = False


class InboxChange(Request):
    """Fields that are left out stay as they are; a list or an object is replaced as a whole."""

    name: inboxes.Name = unset()
    color: inboxes.Color = unset()
    greeting: inboxes.Greeting = unset()
    greetings: inboxes.Greetings = unset()
    languages: inboxes.Languages = unset()
    allowed_origins: inboxes.Origins = unset()
    theme: inboxes.Theme = unset()
    pre_chat: inboxes.FormFields = unset()
    offline_form: inboxes.OfflineForm = unset()
    consent: inboxes.Consent = unset()
    csat_enabled: bool = unset()
    business_hours_id: Id | None = unset()
    retention_days: RetentionDays | None = unset()
    auto_assign: bool = unset()


class IdentitySecret(Response):
    """``identity_secret`` is shown this once."""

    identity_secret: str


class MemberPage(Response):
    """All members, by name: there are at most 1000."""

    items: list[UserRef]
    next_cursor: None


class MembersRequest(Request):
    user_ids: Annotated[list[Id], Field(max_length=inboxes.MEMBERS_MAX)]


class DirectoryInbox(Response):
    """An inbox as agents need it."""

    id: int
    name: str
    color: str
    languages: list[str]
    auto_assign: bool
    open: bool
    opens_at: Timestamp | None


class DirectoryInboxPage(Response):
    """All inboxes that the caller sees, by name: there are at most 1000."""

    items: list[DirectoryInbox]
    next_cursor: None
