"""The staff: who works here, with which role, for which inboxes. Accounts are never deleted, for
their messages stay; they are deactivated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from app import clock
from app.chat import access, accounts, audit, links, pages, permissions, second_factor
from app.chat.errors import NotFound, Refused
from app.chat.links import Site
from app.chat.permissions import Actor, Agent
from app.db import schema
from app.db.engines import Database

COLLEAGUES_MAX: Final = 500

_users, _members, _inboxes = schema.users, schema.inbox_members, schema.inboxes


def colleagues(
    database: Database, *, cursor: str | None, limit: int
) -> tuple[list[Any], str | None]:
    """A page of the active accounts, by id, as any agent may see them. Blocking."""
    rows, next_cursor = _page(database, [_users.c.active], cursor, limit)
    return [
        {
            "id": row.id,
            "name": row.name,
            "avatar_url": row.avatar_url,
            "availability": row.availability,
        }
        for row in rows
    ], next_cursor


def accounts_page(
    database: Database,
    *,
    text: str | None,
    role: str | None,
    active: bool | None,
    cursor: str | None,
    limit: int,
) -> tuple[list[dict[str, Any]], str | None]:
    """A page of all accounts, by id; ``text`` is a part of the name or address. Blocking."""
    wanted = []
    if text:
        wanted.append(
            or_(
                _users.c.name.contains(text, autoescape=True),
                _users.c.email.contains(text.lower(), autoescape=True),
            )
        )
    if role is not None:
        wanted.append(_users.c.role == role)
    if active is not None:
        wanted.append(_users.c.active == active)
    rows, next_cursor = _page(database, wanted, cursor, limit)
    with database.view() as connection:
        inboxes = _inboxes_of(connection, [row.id for row in rows])
    return [_wire(row, inboxes.get(row.id, [])) for row in rows], next_cursor


def one(database: Database, user_id: int) -> dict[str, Any]:
    """One account. Raises :class:`NotFound`. Blocking."""
    with database.read() as connection:
        return _read(connection, user_id)


def create(
    database: Database,
    actor: Actor,
    site: Site,
    *,
    password: str | None,
    inbox_ids: Sequence[int],
    **values: Any,
) -> dict[str, Any]:
    """Make an account; without ``password`` a mail invites its owner to choose one.

    ``values`` are email, name, role, avatar_url, all_inboxes and capacity. Raises
    :class:`Refused` when the address is taken or an inbox does not exist. Blocking.
    """
    values["email"] = accounts.normalized_email(values["email"])
    hashed = accounts.NO_PASSWORD if password is None else accounts.hash_password(password)
    try:
        with database.write() as connection:
            result = connection.execute(
                insert(_users).values(
                    **values, password_hash=hashed, active=True, created_at=clock.now()
                )
            )
            key = result.inserted_primary_key
            assert key is not None  # noqa: S101  every dialect used here gives the new id
            user_id = int(key[0])
            _set_inboxes(connection, user_id, inbox_ids)
            audit.record(
                connection,
                actor,
                "user.created",
                "user",
                object_id=user_id,
                details={**values, "inbox_ids": sorted(set(inbox_ids)), "invited": not password},
            )
            if password is None:
                links.invite(connection, site, actor, _row(connection, user_id))
            return _read(connection, user_id)
    except IntegrityError:
        raise Refused(
            "email_taken",
            "Change the account that has it, or use a different address.",
            field="email",
        ) from None


def invite_again(database: Database, actor: Actor, site: Site, user_id: int) -> None:
    """Send the invitation once more; the previous link stops working.

    Raises :class:`NotFound`, or :class:`Refused` when the account has a password. Blocking.
    """
    with database.write() as connection:
        user = _row(connection, user_id)
        if user.password_hash != accounts.NO_PASSWORD:
            raise Refused(
                "conflict", "This account has a password: its owner can ask for a new one."
            )
        if not user.active:
            raise Refused("conflict", "This account is deactivated: activate it first.")
        links.invite(connection, site, actor, user)
        audit.record(connection, actor, "user.invited", "user", object_id=user_id)


def change(
    database: Database, actor: Actor, user_id: int, values: Mapping[str, Any]
) -> dict[str, Any]:
    """Change name, role, avatar_url, active, all_inboxes, inbox_ids or capacity of an account.

    Deactivating ends its sessions, API keys and links at once. Raises :class:`NotFound`, or
    :class:`Refused` when no active admin would be left or an inbox does not exist. Blocking.
    """
    columns = {name: value for name, value in values.items() if name != "inbox_ids"}
    with database.write() as connection:
        # locked before it is looked at: two admins that demote each other at once take turns
        admins = (
            connection.execute(
                select(_users.c.id)
                .where(
                    _users.c.role == "admin",
                    _users.c.active,
                    _users.c.password_hash != accounts.NO_PASSWORD,
                )
                .order_by(_users.c.id)
                .with_for_update()
            )
            .scalars()
            .all()
        )
        before = _row(connection, user_id)
        leaves = not values.get("active", before.active)
        leaves |= values.get("role", before.role) != "admin"
        if leaves and list(admins) == [user_id]:
            raise Refused(
                "conflict", "This is the last active admin: make somebody else an admin first."
            )
        if columns:
            connection.execute(update(_users).where(_users.c.id == user_id).values(**columns))
        if "inbox_ids" in values:
            _set_inboxes(connection, user_id, values["inbox_ids"])
        if before.active and not values.get("active", True):
            _shut_out(connection, user_id)
        elif values.keys() & {"role", "all_inboxes", "inbox_ids"}:
            access.changed(connection, [access.user_owner(user_id)])
        if values:
            audit.record(
                connection,
                actor,
                "user.updated",
                "user",
                object_id=user_id,
                details=audit.changes(values),
            )
        return _read(connection, user_id)


def reset_second_factor(database: Database, actor: Actor, user_id: int) -> None:
    """Turn the second factor of an account off and end its sessions. Raises :class:`NotFound`.
    Blocking."""
    with database.write() as connection:
        _row(connection, user_id)
        second_factor.disable(connection, user_id)
        accounts.end_sessions(connection, user_id)
        audit.record(connection, actor, "user.totp_reset", "user", object_id=user_id)


def end_sessions(database: Database, actor: Actor, user_id: int) -> None:
    """End all sessions of an account. Raises :class:`NotFound`. Blocking."""
    with database.write() as connection:
        _row(connection, user_id)
        accounts.end_sessions(connection, user_id)
        audit.record(connection, actor, "user.sessions_ended", "user", object_id=user_id)


def profile(database: Database, agent: Agent) -> dict[str, Any]:
    """What the caller may know of the own account beyond :class:`Agent`. Blocking."""
    with database.view() as connection:
        row = _row(connection, agent.id)
    return {
        "availability": row.availability,
        "totp_enabled": row.totp_enabled_at is not None,
        "recovery_codes_left": second_factor.codes_left(row),
        "permissions": sorted(permissions.OF_ROLE.get(agent.role, frozenset())),
        "all_inboxes": agent.inbox_ids is None,
    }


def change_profile(database: Database, agent: Agent, values: Mapping[str, Any]) -> dict[str, Any]:
    """Change the own name, avatar_url or availability; gives the User of the API. Blocking."""
    with database.write() as connection:
        if values:
            connection.execute(update(_users).where(_users.c.id == agent.id).values(**values))
        row = _row(connection, agent.id)
    return {
        "id": row.id,
        "name": row.name,
        "email": row.email,
        "role": row.role,
        "avatar_url": row.avatar_url,
    }


def _shut_out(connection: Connection, user_id: int) -> None:
    accounts.end_sessions(connection, user_id)
    keys, tokens = schema.api_keys, schema.user_tokens
    connection.execute(
        update(keys)
        .where(keys.c.user_id == user_id, keys.c.revoked_at.is_(None))
        .values(revoked_at=clock.now())
    )
    connection.execute(delete(tokens).where(tokens.c.user_id == user_id))


def _set_inboxes(connection: Connection, user_id: int, inbox_ids: Sequence[int]) -> None:
    wanted = sorted(set(inbox_ids))
    if wanted:
        known = connection.execute(
            select(_inboxes.c.id).where(_inboxes.c.id.in_(wanted), _inboxes.c.archived_at.is_(None))
        ).scalars()
        missing = sorted(set(wanted) - set(known))
        if missing:
            raise Refused(
                "invalid_request",
                f"There is no inbox {', '.join(map(str, missing))}.",
                field="inbox_ids",
            )
    connection.execute(delete(_members).where(_members.c.user_id == user_id))
    if wanted:
        connection.execute(
            insert(_members),
            [{"user_id": user_id, "inbox_id": inbox_id} for inbox_id in wanted],
        )


def _page(
    database: Database, wanted: Sequence[Any], cursor: str | None, limit: int
) -> tuple[Sequence[Any], str | None]:
    query = select(_users).where(*wanted).order_by(_users.c.id).limit(limit + 1)
    if cursor:
        (after,) = pages.read_cursor(cursor, int)
        query = query.where(_users.c.id > after)
    with database.view() as connection:
        rows = connection.execute(query).all()
    more = len(rows) > limit
    return rows[:limit], pages.make_cursor(rows[limit - 1].id) if more else None


def _row(connection: Connection, user_id: int) -> Any:
    row = connection.execute(select(_users).where(_users.c.id == user_id)).one_or_none()
    if row is None:
        raise NotFound
    return row


def _read(connection: Connection, user_id: int) -> dict[str, Any]:
    row = _row(connection, user_id)
    return _wire(row, _inboxes_of(connection, [user_id]).get(user_id, []))


def _inboxes_of(connection: Connection, user_ids: Sequence[int]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    if user_ids:
        rows = connection.execute(
            select(_members.c.user_id, _members.c.inbox_id)
            .where(_members.c.user_id.in_(user_ids))
            .order_by(_members.c.user_id, _members.c.inbox_id)
        )
        for user_id, inbox_id in rows:
            found.setdefault(user_id, []).append(inbox_id)
    return found


def _wire(row: Any, inbox_ids: Sequence[int]) -> dict[str, Any]:
    """The StaffAccount of the API."""
    return {
        "id": row.id,
        "email": row.email,
        "name": row.name,
        "role": row.role,
        "avatar_url": row.avatar_url,
        "active": bool(row.active),
        "invited": row.password_hash == accounts.NO_PASSWORD,
        "availability": row.availability,
        "all_inboxes": bool(row.all_inboxes),
        "inbox_ids": list(inbox_ids),
        "capacity": row.capacity,
        "totp_enabled": row.totp_enabled_at is not None,
        "created_at": clock.wire(row.created_at),
    }
