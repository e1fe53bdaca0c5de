"""Inboxes: one per site that carries the widget."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from sqlalchemy import Connection, Select, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from app import clock
from app.chat import access, audit, business_hours, languages, pages, permissions
from app.chat.business_hours import Hours
from app.chat.errors import NotFound, Refused, UnknownInbox
from app.chat.languages import Label, Language, LongText, ShortText, localized
from app.chat.permissions import Actor, Agent
from app.chat.text import NoNul, OneLine
from app.db import schema
from app.db.engines import Database

# empty: the widget greets in the language of its reader
DEFAULT_GREETING: Final = ""
DEFAULT_COLOR: Final = "#0d6b58"
DEFAULT_LANGUAGES: Final = ("en", "zh-Hant-TW")
INBOXES_MAX: Final = 1000
MEMBERS_MAX: Final = 1000

_inboxes, _members, _users = schema.inboxes, schema.inbox_members, schema.users
_hours = schema.business_hours

# --- what an admin sets ------------------------------------------------------------------------


def normalized_origin(text: str) -> str:
    """``scheme://host[:port]`` as browsers write it in the Origin header (RFC 6454 §6.2).

    In lower case, without the scheme's own port, with an international host name in its ASCII form.
    Raises ValueError with what it should be.
    """
    wrong = "should be https://HOST[:PORT] or http://HOST[:PORT] without a path"
    try:
        parts = urlsplit(text.strip())
        host, port = parts.hostname or "", parts.port
        host = host if ":" in host else host.encode("idna").decode("ascii")
    except ValueError:
        raise ValueError(wrong) from None
    if (
        parts.scheme not in ("http", "https")
        or not host
        or port == 0
        or any(character.isspace() or character in "*\\%" for character in host)
        or parts.username is not None
        or parts.path not in ("", "/")
        or parts.query
        or parts.fragment
        or "?" in text
        or "#" in text
    ):
        raise ValueError(wrong)
    if ":" in host:
        host = f"[{host}]"
    default = {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{host}" + (f":{port}" if port not in (None, default) else "")


def _unlike(items: list[str]) -> list[str]:
    return list(dict.fromkeys(items))


def _unlike_languages(tags: list[str]) -> list[str]:
    if len({tag.lower() for tag in tags}) != len(tags):
        raise ValueError("should name each language once")
    # the column's width
    if len(",".join(tags)) > 200:
        raise ValueError("should be fewer languages")
    return tags


Origin = Annotated[
    str,
    Field(min_length=1, max_length=255, examples=["https://shop.example"]),
    AfterValidator(normalized_origin),
]
Languages = Annotated[
    list[Language], Field(min_length=1, max_length=20), AfterValidator(_unlike_languages)
]
Color = Annotated[
    str, Field(pattern=r"^#[0-9a-fA-F]{6}$", description="#rrggbb", examples=["#0d6b58"])
]
Key = Annotated[
    str,
    Field(pattern=r"^[A-Za-z0-9_\-]{1,64}$", max_length=64, description="the widget's data-inbox"),
]
Name = Annotated[str, Field(min_length=1, max_length=100), OneLine]
Greeting = Annotated[
    str, Field(max_length=500, description="for whom greetings has no language"), NoNul
]


class Theme(BaseModel):
    """How the widget stands on the page."""

    position: Literal["left", "right"] = "right"
    color_scheme: Annotated[
        Literal["auto", "light", "dark"], Field(description="auto: as the visitor's system")
    ] = "auto"
    launcher_text: Annotated[dict[Language, Label], localized()] = {}


class FormField(BaseModel):
    """A question before the first message. ``name``, ``email`` and ``phone`` are kept with the
    visitor, everything with the conversation."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$", max_length=40)]
    label: dict[Language, Label] = Field(min_length=1, max_length=languages.LANGUAGES_MAX)
    type: Literal["text", "email", "phone", "textarea", "select", "checkbox"]
    required: bool = False
    options: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=100), OneLine]],
        Field(max_length=50, description="what a select offers"),
    ] = []

    @model_validator(mode="after")
    def _options_of_a_select(self) -> FormField:
        if self.type == "select" and not self.options:
            raise ValueError("a select should have options")
        if self.type != "select" and self.options:
            raise ValueError("only a select has options")
        if len(set(self.options)) != len(self.options):
            raise ValueError("the options of a select should differ")
        own = {"email": "email", "phone": "phone"}.get(self.name)
        if own is not None and self.type != own:
            raise ValueError(f"the field {self.name!r} should have the type {own}")
        return self


def _unlike_fields(fields: list[FormField]) -> list[FormField]:
    if len({field.name for field in fields}) != len(fields):
        raise ValueError("should hold each name once")
    return fields


class OfflineForm(BaseModel):
    """What the widget says out of hours; messages are taken all the same."""

    enabled: bool = False
    message: Annotated[dict[Language, LongText], localized()] = {}


Origins = Annotated[
    list[Origin],
    Field(max_length=50, description="pages that may carry the widget; empty: any"),
    AfterValidator(_unlike),
]
FormFields = Annotated[list[FormField], Field(max_length=20), AfterValidator(_unlike_fields)]
Greetings = Annotated[dict[Language, ShortText], localized()]
Consent = Annotated[dict[Language, LongText], localized()]


class InboxSettings(BaseModel):
    """What is only shown or checked, never searched; ``inboxes.settings`` holds it as JSON."""

    model_config = ConfigDict(extra="ignore")

    greetings: Greetings = {}
    allowed_origins: Origins = []
    theme: Theme = Theme()
    pre_chat: FormFields = []
    offline_form: OfflineForm = OfflineForm()
    consent: Consent = {}
    csat_enabled: Annotated[
        bool, Field(description="whether visitors are asked how it was, after resolution")
    ] = True


def settings_of(row: Any) -> InboxSettings:
    """The settings of a row of ``inboxes``; the defaults where none were ever set."""
    if row.settings is None:
        return InboxSettings()
    return InboxSettings.model_validate_json(row.settings)


def identity_hash(secret: str, identifier: str) -> str:
    """HMAC-SHA256 of a visitor's identifier with the inbox's identity secret, in hex.

    The site's server makes it, so that nobody can say to be another of its customers.
    """
    return hmac.new(secret.encode(), identifier.encode(), "sha256").hexdigest()


# --- for the command line, the session and the lists -------------------------------------------


def create(connection: Connection, *, name: str, key: str | None = None) -> tuple[str, bool]:
    """Make an inbox; gives its key and whether it is new.

    With ``key`` an inbox that has it is left as it is; without, one of the same name is.
    """
    same = _inboxes.c.key == key if key else _inboxes.c.name == name
    present = connection.execute(
        select(_inboxes.c.key).where(same).order_by(_inboxes.c.id).limit(1)
    ).scalar()
    if present is not None:
        return str(present), False
    key = key or _new_key()
    try:
        with connection.begin_nested():
            connection.execute(
                insert(_inboxes).values(
                    key=key,
                    name=name,
                    greeting=DEFAULT_GREETING,
                    color=DEFAULT_COLOR,
                    languages=",".join(DEFAULT_LANGUAGES),
                    created_at=clock.now(),
                )
            )
    except IntegrityError:
        return key, False
    return key, True


def _new_key() -> str:
    return clock.token(12).replace("-", "x").replace("_", "y")


def refs(connection: Connection, agent: Agent) -> list[dict[str, Any]]:
    """The InboxRef of every inbox that the agent sees, by name."""
    rows = connection.execute(
        select(_inboxes.c.id, _inboxes.c.name)
        .where(_inboxes.c.archived_at.is_(None))
        .order_by(_inboxes.c.name, _inboxes.c.id)
    )
    return [
        {"id": row.id, "name": row.name} for row in rows if permissions.sees_inbox(agent, row.id)
    ]


def _with_hours() -> Select[Any]:
    return select(
        _inboxes,
        _hours.c.time_zone,
        _hours.c.weekly,
        _hours.c.holidays,
    ).outerjoin(_hours, _hours.c.id == _inboxes.c.business_hours_id)


def by_key(connection: Connection, key: str) -> Any:
    """The row of the inbox with this key, with its business hours.

    Raises :class:`UnknownInbox`, or :class:`Refused` when it is archived.
    """
    row = connection.execute(_with_hours().where(_inboxes.c.key == key)).one_or_none()
    if row is None:
        raise UnknownInbox
    if row.archived_at is not None:
        raise archived()
    return row


def by_id(connection: Connection, inbox_id: int) -> Any:
    """The row of an inbox with its business hours. Raises :class:`NotFound`."""
    row = connection.execute(_with_hours().where(_inboxes.c.id == inbox_id)).one_or_none()
    if row is None:
        raise NotFound
    return row


def allowed_origins(database: Database) -> dict[int, frozenset[str]]:
    """Of each inbox that allows any, the origins of pages that may call the API. Blocking."""
    with database.view() as connection:
        rows = connection.execute(
            select(_inboxes.c.id, _inboxes.c.settings).where(
                _inboxes.c.settings.is_not(None), _inboxes.c.archived_at.is_(None)
            )
        ).all()
    found = {row.id: frozenset(settings_of(row).allowed_origins) for row in rows}
    return {inbox_id: origins for inbox_id, origins in found.items() if origins}


def origins_of_key(database: Database, key: str) -> frozenset[str] | None:
    """The origins that the inbox with this key allows; None when there is no such inbox.
    Blocking."""
    with database.view() as connection:
        row = connection.execute(
            select(_inboxes.c.settings).where(_inboxes.c.key == key)
        ).one_or_none()
    return frozenset(settings_of(row).allowed_origins) if row is not None else None


def archived() -> Refused:
    """What a visitor of an archived inbox is told."""
    return Refused("inbox_archived", "This chat is closed. Please contact the site in another way.")


def hours_of(row: Any) -> Hours | None:
    """The business hours of a row of :func:`by_key`; None: always open."""
    return business_hours.of_row(row) if row.time_zone is not None else None


def widget_wire(row: Any, *, language: str | None, in_conversation: bool) -> dict[str, Any]:
    """What the widget may know of its inbox, in the language of its visitor."""
    settings = settings_of(row)
    is_now, opens_at = business_hours.state(hours_of(row), clock.now())
    offline = settings.offline_form
    return {
        "id": row.id,
        "name": row.name,
        "greeting": languages.choose(settings.greetings, language) or row.greeting,
        "color": row.color,
        "languages": row.languages.split(","),
        "theme": {
            "position": settings.theme.position,
            "color_scheme": settings.theme.color_scheme,
            "launcher_text": languages.choose(settings.theme.launcher_text, language),
        },
        "open": is_now,
        "opens_at": clock.wire(opens_at) if opens_at is not None else None,
        "offline_form": {
            "enabled": offline.enabled,
            "message": languages.choose(offline.message, language),
        },
        "consent": languages.choose(settings.consent, language),
        "csat_enabled": settings.csat_enabled,
        "pre_chat": [
            {
                "name": field.name,
                "label": languages.choose(field.label, language),
                "type": field.type,
                "required": field.required,
                "options": field.options,
            }
            for field in settings.pre_chat
        ],
        "form_required": not in_conversation and any(f.required for f in settings.pre_chat),
    }


def directory(database: Database, agent: Agent) -> list[dict[str, Any]]:
    """The inboxes that the agent sees, by name, as it needs them to work. Blocking."""
    query = _with_hours().where(_inboxes.c.archived_at.is_(None))
    if agent.inbox_ids is not None:
        query = query.where(_inboxes.c.id.in_(sorted(agent.inbox_ids)))
    with database.view() as connection:
        rows = connection.execute(query.order_by(_inboxes.c.name, _inboxes.c.id)).all()
    return [_directory_wire(row) for row in rows]


def _directory_wire(row: Any) -> dict[str, Any]:
    is_now, opens_at = business_hours.state(hours_of(row), clock.now())
    return {
        "id": row.id,
        "name": row.name,
        "color": row.color,
        "languages": row.languages.split(","),
        "auto_assign": row.auto_assign,
        "open": is_now,
        "opens_at": clock.wire(opens_at) if opens_at is not None else None,
    }


# --- for admins --------------------------------------------------------------------------------


def wire(row: Any, public_url: str) -> dict[str, Any]:
    """The Inbox of the API; the identity secret is never in it."""
    return {
        "id": row.id,
        "key": row.key,
        "name": row.name,
        "color": row.color,
        "greeting": row.greeting,
        "languages": row.languages.split(","),
        "business_hours_id": row.business_hours_id,
        "retention_days": row.retention_days,
        "auto_assign": row.auto_assign,
        "identity_verified": row.identity_secret is not None,
        **settings_of(row).model_dump(),
        "snippet": f'<script src="{public_url}/widget.js" data-inbox="{row.key}" async></script>',
        "created_at": clock.wire(row.created_at),
        "archived_at": clock.wire(row.archived_at) if row.archived_at is not None else None,
    }


def page(
    database: Database, *, archived_too: bool, cursor: str | None, limit: int
) -> tuple[Sequence[Any], str | None]:
    """Rows of inboxes, the oldest first, and the cursor of the next page.

    Raises :class:`app.chat.pages.BadCursor`. Blocking.
    """
    query = select(_inboxes).order_by(_inboxes.c.id).limit(limit + 1)
    if not archived_too:
        query = query.where(_inboxes.c.archived_at.is_(None))
    if cursor is not None:
        (last_id,) = pages.read_cursor(cursor, int)
        query = query.where(_inboxes.c.id > last_id)
    with database.read() as connection:
        rows = connection.execute(query).all()
    return rows[:limit], pages.make_cursor(rows[limit - 1].id) if len(rows) > limit else None


def one(database: Database, inbox_id: int) -> Any:
    """The row of an inbox. Raises :class:`NotFound`. Blocking."""
    with database.read() as connection:
        return by_id(connection, inbox_id)


def add(database: Database, actor: Actor, values: Mapping[str, Any]) -> Any:
    """Make an inbox of columns and fields of :class:`InboxSettings`, all checked; gives its row.

    Raises :class:`Refused` when the key is taken or something named does not exist. Blocking.
    """
    settings, columns = _apart(values)
    columns["key"] = columns.get("key") or _new_key()
    try:
        with database.write() as connection:
            count = connection.execute(select(func.count()).select_from(_inboxes)).scalar_one()
            if count >= INBOXES_MAX:
                raise Refused("conflict", f"There are {INBOXES_MAX} inboxes already.")
            _check_hours(connection, columns)
            result = connection.execute(
                insert(_inboxes).values(
                    **{
                        "greeting": DEFAULT_GREETING,
                        "color": DEFAULT_COLOR,
                        "languages": ",".join(DEFAULT_LANGUAGES),
                        **columns,
                    },
                    settings=InboxSettings.model_validate(settings).model_dump_json(),
                    created_at=clock.now(),
                )
            )
            new = result.inserted_primary_key
            assert new is not None  # noqa: S101  every dialect used here gives the new id
            audit.record(
                connection,
                actor,
                "inbox.created",
                "inbox",
                object_id=new[0],
                details={"name": columns["name"], "key": columns["key"]},
            )
            return by_id(connection, int(new[0]))
    except IntegrityError:
        raise Refused(
            "conflict", "Another inbox has this key: choose a different one.", field="key"
        ) from None


def change(database: Database, actor: Actor, inbox_id: int, values: Mapping[str, Any]) -> Any:
    """Change some of the values that :func:`add` takes, except the key; gives the row.

    Raises :class:`NotFound`, or :class:`Refused` when something named does not exist. Blocking.
    """
    settings, columns = _apart(values)
    with database.write() as connection:
        before = _lock(connection, inbox_id)
        if settings:
            known = settings_of(before).model_dump()
            columns["settings"] = InboxSettings.model_validate(known | settings).model_dump_json()
        if columns:
            _check_hours(connection, columns)
            connection.execute(update(_inboxes).where(_inboxes.c.id == inbox_id).values(**columns))
            shown = {name: value for name, value in columns.items() if name != "settings"}
            audit.record(
                connection,
                actor,
                "inbox.updated",
                "inbox",
                object_id=inbox_id,
                details=audit.changes(shown | settings),
            )
        return by_id(connection, inbox_id)


def set_archived(database: Database, actor: Actor, inbox_id: int, *, away: bool) -> Any:
    """Archive an inbox, or bring it back; gives its row. Raises :class:`NotFound`. Blocking."""
    with database.write() as connection:
        row = _lock(connection, inbox_id)
        if (row.archived_at is not None) != away:
            _set(connection, inbox_id, archived_at=clock.now() if away else None)
            audit.record(
                connection,
                actor,
                "inbox.archived" if away else "inbox.restored",
                "inbox",
                object_id=inbox_id,
                details={"name": row.name},
            )
        return by_id(connection, inbox_id)


def rotate_key(database: Database, actor: Actor, inbox_id: int) -> Any:
    """Give an inbox a new key; the old one opens nothing any more. Gives its row.

    Visitors keep their tokens and conversations. Raises :class:`NotFound`. Blocking.
    """
    with database.write() as connection:
        _lock(connection, inbox_id)
        key = _new_key()
        _set(connection, inbox_id, key=key)
        audit.record(
            connection,
            actor,
            "inbox.key_rotated",
            "inbox",
            object_id=inbox_id,
            details={"key": key},
        )
        return by_id(connection, inbox_id)


def rotate_identity_secret(database: Database, actor: Actor, inbox_id: int) -> str:
    """Give an inbox a new identity secret; gives it, for the only time.

    What was signed with the old one is refused from now on. Raises :class:`NotFound`. Blocking.
    """
    secret = clock.token(32)
    _set_identity_secret(database, actor, inbox_id, secret, "inbox.identity_secret_rotated")
    return secret


def remove_identity_secret(database: Database, actor: Actor, inbox_id: int) -> None:
    """Take identities unverified from now on. Raises :class:`NotFound`. Blocking."""
    _set_identity_secret(database, actor, inbox_id, None, "inbox.identity_secret_removed")


def _set_identity_secret(
    database: Database, actor: Actor, inbox_id: int, secret: str | None, action: str
) -> None:
    with database.write() as connection:
        _lock(connection, inbox_id)
        _set(connection, inbox_id, identity_secret=secret)
        audit.record(connection, actor, action, "inbox", object_id=inbox_id)


def members(database: Database, inbox_id: int) -> list[dict[str, Any]]:
    """The accounts that see the inbox by membership, by name. Raises :class:`NotFound`."""
    with database.read() as connection:
        by_id(connection, inbox_id)
        return _member_list(connection, inbox_id)


def set_members(
    database: Database, actor: Actor, inbox_id: int, user_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """Let exactly these accounts be members; gives them by name.

    Raises :class:`NotFound`, or :class:`Refused` when an account does not exist. Blocking.
    """
    wanted = set(user_ids)
    with database.write() as connection:
        _lock(connection, inbox_id)
        known = set(
            connection.execute(select(_users.c.id).where(_users.c.id.in_(sorted(wanted)))).scalars()
        )
        if missing := sorted(wanted - known):
            raise Refused("invalid_request", f"There is no account {missing[0]}.", field="user_ids")
        before = set(
            connection.execute(
                select(_members.c.user_id).where(_members.c.inbox_id == inbox_id)
            ).scalars()
        )
        if gone := sorted(before - wanted):
            connection.execute(
                delete(_members).where(
                    _members.c.inbox_id == inbox_id, _members.c.user_id.in_(gone)
                )
            )
            access.changed(connection, map(access.user_owner, gone))
        if new := sorted(wanted - before):
            connection.execute(
                insert(_members), [{"inbox_id": inbox_id, "user_id": user} for user in new]
            )
        if gone or new:
            audit.record(
                connection,
                actor,
                "inbox.members_changed",
                "inbox",
                object_id=inbox_id,
                details={"added": new, "removed": gone},
            )
        return _member_list(connection, inbox_id)


def _member_list(connection: Connection, inbox_id: int) -> list[dict[str, Any]]:
    rows = connection.execute(
        select(_users.c.id, _users.c.name, _users.c.avatar_url)
        .join(_members, _members.c.user_id == _users.c.id)
        .where(_members.c.inbox_id == inbox_id)
        .order_by(_users.c.name, _users.c.id)
    )
    return [{"id": row.id, "name": row.name, "avatar_url": row.avatar_url} for row in rows]


def _lock(connection: Connection, inbox_id: int) -> Any:
    row = connection.execute(
        select(_inboxes).where(_inboxes.c.id == inbox_id).with_for_update()
    ).one_or_none()
    if row is None:
        raise NotFound
    return row


def _set(connection: Connection, inbox_id: int, **values: str | datetime | None) -> None:
    connection.execute(update(_inboxes).where(_inboxes.c.id == inbox_id).values(**values))


def _apart(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields of :class:`InboxSettings`, and the columns."""
    settings = {name: value for name, value in values.items() if name in InboxSettings.model_fields}
    columns = {name: value for name, value in values.items() if name not in settings}
    if "languages" in columns:
        columns["languages"] = ",".join(columns["languages"])
    return settings, columns


def _check_hours(connection: Connection, columns: Mapping[str, Any]) -> None:
    hours_id = columns.get("business_hours_id")
    if hours_id is not None and business_hours.lock(connection, hours_id) is None:
        raise Refused(
            "invalid_request", "There are no such business hours.", field="business_hours_id"
        )
