"""INSERT that updates the row that is already there, on MySQL and SQLite."""

from __future__ import annotations

from sqlalchemy import Dialect, Insert, func
from sqlalchemy.dialects import mysql, sqlite

from app.db import schema


def raise_read_mark(dialect: Dialect) -> Insert:
    """A statement that stores a read mark or moves it forward, never back.

    Its parameters are the columns of ``read_marks``.
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
            ]
        )
    on_sqlite = sqlite.insert(marks)
    excluded = on_sqlite.excluded
    return on_sqlite.on_conflict_do_update(
        index_elements=[column.name for column in marks.primary_key],
        set_={"seq": excluded.seq, "updated_at": excluded.updated_at},
        where=excluded.seq > marks.c.seq,
    )
