"""Connections to MySQL are encrypted when the server can, and cost no certificates' reading."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from sqlalchemy import text

from app.db import engines
from app.db.pool import Pool
from tools import private_mysql
from tools.private_mysql import Servers

CIPHER = "SHOW SESSION STATUS LIKE 'Ssl_cipher'"


async def ciphers(url: str) -> list[str]:
    """The ciphers of a connection of each driver; empty text for a plain one."""
    engine = engines.make_engine(url)
    pool = Pool(url, engine.dialect)
    try:
        with engine.connect() as connection:
            found = [connection.execute(text(CIPHER)).one()[1]]
        return [*found, (await pool.rows(CIPHER, (), seconds=5))[0][1]]
    finally:
        pool.close()
        engine.dispose()


async def test_both_drivers_encrypt_without_reading_certificates(
    mysql: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object, **__: object) -> ssl.SSLContext:
        raise AssertionError("the certificates of the computer are read for a connection")

    monkeypatch.setattr(ssl, "create_default_context", read)
    assert all(await ciphers(mysql.primary.url()))


async def test_a_url_may_say_otherwise(mysql: Servers) -> None:
    assert await ciphers(f"{mysql.primary.url()}?ssl_disabled=true") == ["", ""]


async def test_a_server_without_tls_is_reached_all_the_same(tmp_path: Path) -> None:
    with private_mysql.servers(tmp_path / "plain", options={"tls_version": "''"}) as servers:
        assert await ciphers(servers.primary.url()) == ["", ""]
