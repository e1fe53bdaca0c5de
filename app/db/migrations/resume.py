"""Steps of a migration that may be run again.

MySQL commits each DDL statement by itself: a migration that was killed half way leaves its first
steps behind. These steps look before they work, so that the next run goes on from there.
"""

from __future__ import annotations

from typing import Any

from alembic import op
from sqlalchemy import Column, inspect
from sqlalchemy.schema import SchemaItem

MYSQL_TABLE: dict[str, Any] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_0900_ai_ci",
}


def create_table(name: str, *items: SchemaItem) -> None:
    """Create a table, unless it is there."""
    if not inspect(op.get_bind()).has_table(name):
        op.create_table(name, *items, **MYSQL_TABLE)


def create_index(name: str, table: str, columns: list[str], *, unique: bool = False) -> None:
    """Create an index, unless it is there."""
    present = {index["name"] for index in inspect(op.get_bind()).get_indexes(table)}
    if name not in present:
        op.create_index(name, table, columns, unique=unique)


def add_column(table: str, column: Column[Any]) -> None:
    """Add a column, unless it is there. It must be nullable or have a server default."""
    present = {column["name"] for column in inspect(op.get_bind()).get_columns(table)}
    if column.name not in present:
        op.add_column(table, column)
