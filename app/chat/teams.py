"""Teams: groups of agents that a conversation can be transferred to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from app import clock
from app.chat import audit, text
from app.chat.errors import NotFound, Refused
from app.chat.permissions import Actor
from app.db import schema
from app.db.engines import Database

TEAMS_MAX: Final = 200
MEMBERS_MAX: Final = 500

_teams, _members, _users = schema.teams, schema.team_members, schema.users


def everything(database: Database) -> list[dict[str, Any]]:
    """Every team with its active members, by name; at most :data:`TEAMS_MAX`. Blocking."""
    with database.view() as connection:
        rows = connection.execute(select(_teams).order_by(_teams.c.name, _teams.c.id)).all()
        members = _members_of(connection, [row.id for row in rows])
    return [_wire(row, members.get(row.id, [])) for row in rows]


def one(database: Database, team_id: int) -> dict[str, Any]:
    """One team. Raises :class:`NotFound`. Blocking."""
    with database.read() as connection:
        return _read(connection, team_id)


def create(
    database: Database, actor: Actor, *, name: str, member_ids: Sequence[int]
) -> dict[str, Any]:
    """Make a team. Raises :class:`Refused` when the name is taken or a member unknown. Blocking."""
    try:
        with database.write() as connection:
            _check_name(connection, name, own_id=None)
            result = connection.execute(insert(_teams).values(name=name, created_at=clock.now()))
            key = result.inserted_primary_key
            assert key is not None  # noqa: S101  every dialect used here gives the new id
            team_id = int(key[0])
            _set_members(connection, team_id, member_ids)
            audit.record(
                connection,
                actor,
                "team.created",
                "team",
                object_id=team_id,
                details={"name": name, "member_ids": sorted(set(member_ids))},
            )
            return _read(connection, team_id)
    except IntegrityError:
        raise _taken() from None


def change(
    database: Database, actor: Actor, team_id: int, values: Mapping[str, Any]
) -> dict[str, Any]:
    """Change ``name`` or ``member_ids``. Raises :class:`NotFound` or :class:`Refused`. Blocking."""
    try:
        with database.write() as connection:
            _row(connection, team_id, lock=True)
            if "name" in values:
                _check_name(connection, values["name"], own_id=team_id)
                connection.execute(
                    update(_teams).where(_teams.c.id == team_id).values(name=values["name"])
                )
            if "member_ids" in values:
                _set_members(connection, team_id, values["member_ids"])
            if values:
                audit.record(
                    connection,
                    actor,
                    "team.updated",
                    "team",
                    object_id=team_id,
                    details=audit.changes(values),
                )
            return _read(connection, team_id)
    except IntegrityError:
        raise _taken() from None


def set_member(
    database: Database, actor: Actor, team_id: int, user_id: int, *, belongs: bool
) -> None:
    """Add an agent to a team or take it out; doing so twice changes nothing.

    Raises :class:`NotFound` for an unknown team or account, and :class:`Refused` when the team is
    full. Blocking.
    """
    with database.write() as connection:
        _row(connection, team_id, lock=True)
        member = (_members.c.team_id == team_id) & (_members.c.user_id == user_id)
        present = connection.execute(select(_members).where(member)).first() is not None
        known = select(_users.c.id).where(_users.c.id == user_id)
        if connection.execute(known).first() is None:
            raise NotFound
        if present == belongs:
            return
        if belongs:
            count = connection.execute(
                select(func.count()).where(_members.c.team_id == team_id)
            ).scalar_one()
            if count >= MEMBERS_MAX:
                raise Refused("conflict", f"A team has at most {MEMBERS_MAX} members.")
            connection.execute(insert(_members).values(team_id=team_id, user_id=user_id))
        else:
            connection.execute(delete(_members).where(member))
        audit.record(
            connection,
            actor,
            "team.member_added" if belongs else "team.member_removed",
            "team",
            object_id=team_id,
            details={"user_id": user_id},
        )


def remove(database: Database, actor: Actor, team_id: int) -> None:
    """Delete a team. Raises :class:`NotFound`, or :class:`Refused` while unresolved conversations
    wait for it. Blocking."""
    conversations = schema.conversations
    with database.write() as connection:
        row = _row(connection, team_id, lock=True)
        waiting = connection.execute(
            select(func.count()).where(
                conversations.c.team_id == team_id,
                conversations.c.status.in_(("open", "snoozed")),
            )
        ).scalar_one()
        if waiting:
            raise Refused(
                "conflict",
                f"{waiting} conversations wait for this team: transfer or resolve them first.",
            )
        connection.execute(delete(_teams).where(_teams.c.id == team_id))
        audit.record(
            connection,
            actor,
            "team.deleted",
            "team",
            object_id=team_id,
            details={"name": row.name},
        )


def _set_members(connection: Connection, team_id: int, member_ids: Sequence[int]) -> None:
    wanted = sorted(set(member_ids))
    if wanted:
        known = connection.execute(select(_users.c.id).where(_users.c.id.in_(wanted))).scalars()
        missing = sorted(set(wanted) - set(known))
        if missing:
            raise Refused(
                "invalid_request",
                f"There is no account {', '.join(map(str, missing))}.",
                field="member_ids",
            )
    connection.execute(delete(_members).where(_members.c.team_id == team_id))
    if wanted:
        connection.execute(
            insert(_members), [{"team_id": team_id, "user_id": user_id} for user_id in wanted]
        )


def _row(connection: Connection, team_id: int, *, lock: bool = False) -> Any:
    query = select(_teams).where(_teams.c.id == team_id)
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise NotFound
    return row


def _read(connection: Connection, team_id: int) -> dict[str, Any]:
    row = _row(connection, team_id)
    return _wire(row, _members_of(connection, [team_id]).get(team_id, []))


def _members_of(connection: Connection, team_ids: Sequence[int]) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = {}
    if team_ids:
        rows = connection.execute(
            select(_members.c.team_id, _users.c.id, _users.c.name, _users.c.avatar_url)
            .join(_users, _users.c.id == _members.c.user_id)
            .where(_members.c.team_id.in_(team_ids), _users.c.active)
            .order_by(_users.c.name, _users.c.id)
        )
        for team_id, user_id, name, avatar_url in rows:
            member = {"id": user_id, "name": name, "avatar_url": avatar_url}
            found.setdefault(team_id, []).append(member)
    return found


def _wire(row: Any, members: Sequence[Any]) -> dict[str, Any]:
    """The Team of the API."""
    return {
        "id": row.id,
        "name": row.name,
        "members": list(members),
        "created_at": clock.wire(row.created_at),
    }


def _check_name(connection: Connection, name: str, *, own_id: int | None) -> None:
    rows = connection.execute(select(_teams.c.id, _teams.c.name)).all()
    if own_id is None and len(rows) >= TEAMS_MAX:
        raise Refused("conflict", f"There are {TEAMS_MAX} teams already: delete one first.")
    if any(row.id != own_id and text.folded(row.name) == text.folded(name) for row in rows):
        raise _taken()


def _taken() -> Refused:
    return Refused("conflict", "Another team has this name: choose a different one.", field="name")
