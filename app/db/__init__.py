"""The database: schema, engines, read routing, the group-commit writer, migrations."""
