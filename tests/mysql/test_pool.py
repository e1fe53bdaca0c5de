"""Reads on the event loop over a real server: what breaks is noticed, bounded and made good."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from asyncmy.errors import Error as DriverError
from sqlalchemy import create_engine, make_url

from app.db import engines
from app.db.engines import Unavailable
from app.db.pool import Pool
from tools import private_mysql
from tools.private_mysql import Server, Servers

# the servers are started within the first test
pytestmark = pytest.mark.timeout(300)


@asynccontextmanager
async def pool_to(url: str, **options: int) -> AsyncIterator[Pool]:
    engine = create_engine(url, paramstyle="format")
    pool = Pool(url, engine.dialect, **options)
    try:
        yield pool
    finally:
        pool.close()
        engine.dispose()


async def ask(pool: Pool, text: str, *values: object, seconds: float = 5) -> list[object]:
    return [row[0] for row in await pool.rows(text, values, seconds=seconds)]


@pytest.mark.parametrize("query", ["", "?ssl_disabled=true"])
async def test_an_account_of_caching_sha2_password_is_let_in(mysql: Servers, query: str) -> None:
    """For the first time since the server started: later the server remembers the password."""
    mysql.primary.sql("FLUSH PRIVILEGES")
    async with pool_to(mysql.primary.url() + query) as pool:
        rows = await pool.rows("SHOW SESSION STATUS LIKE 'Ssl_cipher'", (), seconds=5)
        assert bool(rows[0][1]) == (query == "")


async def test_a_password_with_every_kind_of_character(mysql: Servers) -> None:
    password = "a@b:c/d%é訂"
    mysql.primary.sql("CREATE USER odd@'127.0.0.1' IDENTIFIED BY %s", password)
    try:
        url = make_url(mysql.primary.url()).set(username="odd", password=password, database="")
        async with pool_to(url.render_as_string(hide_password=False)) as pool:
            assert await ask(pool, "SELECT 1") == [1]
    finally:
        mysql.primary.sql("DROP USER odd@'127.0.0.1'")


async def test_text_is_unicode_and_times_are_utc(mysql: Servers) -> None:
    async with pool_to(mysql.primary.url()) as pool:
        assert await ask(pool, "SELECT %s", "訂單 😀") == ["訂單 😀"]
        assert await ask(pool, "SELECT @@session.time_zone") == ["+00:00"]


async def test_a_wrong_statement_tells_so_and_the_pool_lives(mysql: Servers) -> None:
    async with pool_to(mysql.primary.url(), size=1) as pool:
        with pytest.raises(DriverError):
            await ask(pool, "SELECT nonsense FROM nowhere")
        assert await ask(pool, "SELECT 1") == [1]


async def test_connections_that_the_server_ended_are_replaced_unnoticed(mysql: Servers) -> None:
    async with pool_to(mysql.primary.url(), size=3) as pool:
        threads = await asyncio.gather(
            *(ask(pool, "SELECT CONNECTION_ID() + 0 * SLEEP(0.1)") for _ in range(3))
        )
        for (thread,) in threads:
            mysql.primary.sql(f"KILL {thread}")
        answers = await asyncio.gather(*(ask(pool, "SELECT %s", number) for number in range(9)))
        assert answers == [[number] for number in range(9)]


async def test_no_more_statements_run_at_a_time_than_the_pool_is_large(mysql: Servers) -> None:
    async with pool_to(mysql.primary.url(), size=2) as pool:
        await ask(pool, "SELECT 1")
        started = time.monotonic()
        await asyncio.gather(*(ask(pool, "SELECT SLEEP(0.2)") for _ in range(6)))
        assert 0.55 < time.monotonic() - started < 2
        with pytest.raises(Unavailable, match="no free connection"):
            await asyncio.gather(
                *(ask(pool, "SELECT SLEEP(1)", seconds=2) for _ in range(2)),
                ask(pool, "SELECT 1", seconds=0.2),
            )


async def test_who_waits_for_a_connection_is_bounded(
    mysql: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "MAX_WAITING", 3)
    async with pool_to(mysql.primary.url(), size=1) as pool:
        outcomes = await asyncio.gather(
            *(ask(pool, "SELECT SLEEP(0.1)") for _ in range(6)), return_exceptions=True
        )
        assert [outcome for outcome in outcomes if outcome == [0]] == [[0]] * 4
        refused = [outcome for outcome in outcomes if isinstance(outcome, Unavailable)]
        assert [str(error) for error in refused] == ["too many queries are waiting"] * 2


async def test_a_cancelled_statement_does_not_spoil_the_next_one(mysql: Servers) -> None:
    async with pool_to(mysql.primary.url(), size=1) as pool:
        slow = asyncio.create_task(ask(pool, "SELECT SLEEP(5)"))
        waiting = asyncio.create_task(ask(pool, "SELECT 7"))
        await asyncio.sleep(0.3)
        slow.cancel()
        assert await waiting == [7]


async def test_a_statement_has_a_time_limit(mysql: Servers) -> None:
    async with pool_to(mysql.primary.url()) as pool:
        started = time.monotonic()
        with pytest.raises(Unavailable):
            await ask(pool, "SELECT SLEEP(10)", seconds=0.3)
        assert time.monotonic() - started < 1
        assert await ask(pool, "SELECT 1") == [1]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server of its own, to be ill-treated; it offers no TLS."""
    with private_mysql.servers(tmp_path / "own", options={"tls_version": ""}) as servers:
        yield servers.primary


async def test_a_server_that_hangs_or_is_gone_is_told_in_time(server: Server) -> None:
    async with pool_to(server.url(), size=2) as pool:
        assert await ask(pool, "SELECT 1") == [1]  # without TLS, which it does not have
        server.pause()
        for _ in range(3):  # the first over the old connection, the others over new ones
            started = time.monotonic()
            with pytest.raises(Unavailable, match="no answer in time"):
                await ask(pool, "SELECT 1", seconds=0.5)
            assert time.monotonic() - started < 1
        server.resume()
        assert await ask(pool, "SELECT 1") == [1]
        server.kill()
        with pytest.raises(Unavailable):
            await ask(pool, "SELECT 1")
        server.start()
        assert await ask(pool, "SELECT 1") == [1]
