"""INSERT that updates the row that is already there, on MySQL and SQLite."""

from __future__ import annotations

from sqlalchemy import Dialect, Insert, case, func
from sqlalchemy.dialects import mysql, sqlite

from app.db import schema


def raise_read_mark(dialect: Dialect) -> Insert:
    """A statement that stores a read mark or moves it forward, never back.

    Its parameters are the columns of ``read_marks``; ``delivered_seq`` is moved likewise.
    """
    marks = schema.read_marks
    names = [column.name for column in marks.columns]
    if dialect.name == "mysql":
        on_mysql = mysql.insert(marks).values(dict.fromkeys(names))
        new = on_mysql.inserted
        # updated_at is first: MySQL assigns from left to right, and it compares the old seq
        return on_mysql.on_duplicate_key_update(
            [
                ("updated_at", func.if_(new.seq > marks.c.seq, new.updated_at, marks.c.updated_at)),
                ("seq", func.greatest(marks.c.seq, new.seq)),
                ("delivered_seq", func.greatest(marks.c.delivered_seq, new.delivered_seq)),
            ]
        )
    on_sqlite = sqlite.insert(marks)
    excluded = on_sqlite.excluded
    return on_sqlite.on_conflict_do_update(
        index_elements=[column.name for column in marks.primary_key],
        set_={
            "seq": func.max(marks.c.seq, excluded.seq),
            "delivered_seq": func.max(marks.c.delivered_seq, excluded.delivered_seq),
            "updated_at": case(
                (excluded.seq > marks.c.seq, excluded.updated_at), else_=marks.c.updated_at
            ),
        },
    )


def add_participants(dialect: Dialect) -> Insert:
    """A statement that adds an agent to a conversation's participants, unless it is one.

    Its parameters are ``conversation_id``, ``user_id`` and ``since``.
    """
    table = schema.participants
    if dialect.name == "mysql":
        # not INSERT IGNORE, which would also swallow other errors
        made = mysql.insert(table).values(dict.fromkeys([column.name for column in table.columns]))
        return made.on_duplicate_key_update(since=table.c.since)
    return sqlite.insert(table).on_conflict_do_nothing(
        index_elements=[column.name for column in table.primary_key]
    )


def add_search_mark(dialect: Dialect) -> Insert:
    """A statement that makes a conversation's search mark at 0, unless it has one.

    Its parameter is ``conversation_id``.
    """
    marks = schema.search_marks
    values = {"public_seq": 0, "staff_seq": 0}
    if dialect.name == "mysql":
        made = mysql.insert(marks).values(**values)
        return made.on_duplicate_key_update(public_seq=marks.c.public_seq)
    return sqlite.insert(marks).values(**values).on_conflict_do_nothing()
