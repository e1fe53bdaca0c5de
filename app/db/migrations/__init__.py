"""Alembic migrations, the same for MySQL and SQLite; expand-then-contract (ARCHITECTURE §4)."""
