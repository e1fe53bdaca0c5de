"""Labels that staff put on conversations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, bindparam, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from app import clock
from app.chat import audit, text
from app.chat.errors import NotFound, Refused
from app.chat.permissions import Actor
from app.db import schema
from app.db.engines import Database

LABELS_MAX: Final = 500
# how many conversations lose a deleted label in one transaction
_CHUNK_ROWS: Final = 200

_l, _cl, _c = schema.labels, schema.conversation_labels, schema.conversations


def wire(row: Any) -> dict[str, Any]:
    """The Label of the API."""
    return {
        "id": row.id,
        "name": row.name,
        "color": row.color,
        "created_at": clock.wire(row.created_at),
    }


def everything(database: Database) -> list[dict[str, Any]]:
    """Every label by name; at most :data:`LABELS_MAX`. Blocking."""
    with database.view() as connection:
        rows = connection.execute(select(_l).order_by(_l.c.name, _l.c.id)).all()
    return [wire(row) for row in rows]


def create(database: Database, actor: Actor, *, name: str, color: str) -> dict[str, Any]:
    """Make a label. Raises :class:`Refused` when the name is taken. Blocking."""
    try:
        with database.write() as connection:
            _check_name(connection, name, own_id=None)
            result = connection.execute(
                insert(_l).values(name=name, color=color, created_at=clock.now())
            )
            key = result.inserted_primary_key
            assert key is not None  # noqa: S101  every dialect used here gives the new id
            audit.record(
                connection,
                actor,
                "label.created",
                "label",
                object_id=key[0],
                details={"name": name, "color": color},
            )
            return wire(_row(connection, int(key[0])))
    except IntegrityError:
        raise _taken() from None


def change(
    database: Database, actor: Actor, label_id: int, values: Mapping[str, Any]
) -> tuple[dict[str, Any], list[int]]:
    """Change ``name`` or ``color``; gives the label and conversations that show it (the newest).

    Raises :class:`NotFound`, or :class:`Refused` when the name is taken. Blocking.
    """
    try:
        with database.write() as connection:
            before = _row(connection, label_id)
            if "name" in values:
                _check_name(connection, values["name"], own_id=label_id)
            shown: Sequence[int] = ()
            if values and any(getattr(before, name) != values[name] for name in values):
                connection.execute(update(_l).where(_l.c.id == label_id).values(**values))
                audit.record(
                    connection,
                    actor,
                    "label.updated",
                    "label",
                    object_id=label_id,
                    details=audit.changes(values),
                )
                shown = _carrying(connection, label_id)
                _bump(connection, shown)
            return wire(_row(connection, label_id)), list(shown)
    except IntegrityError:
        raise _taken() from None


def remove(
    database: Database, actor: Actor, label_id: int, announce: Callable[[int], None]
) -> None:
    """Delete a label; it goes from its conversations first, some per transaction.

    ``announce`` is called with the id of each conversation that lost it, after the commit. Broken
    off half way, the label is still there and may be deleted again. Raises :class:`NotFound`.
    Blocking.
    """
    while True:
        with database.write() as connection:
            row = _row(connection, label_id)
            ids = _carrying(connection, label_id)
            if not ids:
                connection.execute(delete(_l).where(_l.c.id == label_id))
                audit.record(
                    connection,
                    actor,
                    "label.deleted",
                    "label",
                    object_id=label_id,
                    details={"name": row.name},
                )
                return
            _bump(connection, ids)
            connection.execute(
                delete(_cl).where(_cl.c.label_id == label_id, _cl.c.conversation_id.in_(ids))
            )
        for conversation_id in ids:
            announce(conversation_id)


def _carrying(connection: Connection, label_id: int) -> Sequence[int]:
    return (
        connection.execute(
            select(_cl.c.conversation_id)
            .where(_cl.c.label_id == label_id)
            .order_by(_cl.c.conversation_id.desc())
            .limit(_CHUNK_ROWS)
        )
        .scalars()
        .all()
    )


_LOCK: Final = (
    select(_c.c.id)
    .where(_c.c.id.in_(bindparam("ids", expanding=True)))
    .order_by(_c.c.id)
    .with_for_update()
)


def _bump(connection: Connection, ids: Sequence[int]) -> None:
    """Raise the conversations' versions; locked in the order of the writer, by id."""
    if ids:
        connection.execute(_LOCK, {"ids": sorted(ids)})
        connection.execute(
            update(_c).where(_c.c.id.in_(sorted(ids))).values(version=_c.c.version + 1)
        )


def _row(connection: Connection, label_id: int) -> Any:
    row = connection.execute(select(_l).where(_l.c.id == label_id)).one_or_none()
    if row is None:
        raise NotFound
    return row


def _check_name(connection: Connection, name: str, *, own_id: int | None) -> None:
    rows = connection.execute(select(_l.c.id, _l.c.name)).all()
    if own_id is None and len(rows) >= LABELS_MAX:
        raise Refused("conflict", f"There are {LABELS_MAX} labels already: delete one first.")
    if any(row.id != own_id and text.folded(row.name) == text.folded(name) for row in rows):
        raise _taken()


def _taken() -> Refused:
    return Refused("conflict", "Another label has this name: choose a different one.", field="name")
