"""A real MySQL primary with a real replica, migrated; see tools/private_mysql.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from app.db import migrate
from tools import private_mysql
from tools.private_mysql import Servers


@pytest.fixture(scope="session")
def mysql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """One primary and one replica for all tests; a test that disturbs them puts them right."""
    folder = tmp_path_factory.mktemp("mysql") / "servers"
    with private_mysql.servers(folder, replica=True) as servers:
        migrate.upgrade(servers.primary.url("migrate"), say=lambda _line: None)
        servers.catch_up()
        yield servers
