"""Which addresses webhooks may call, and when deliveries are tried again."""

from __future__ import annotations

import ipaddress
import socket
from datetime import timedelta

import httpx
import pytest
from sqlalchemy import Connection, func, insert, select, update

from app import clock
from app.chat import webhooks
from app.chat.errors import NotFound
from app.chat.permissions import SYSTEM, Actor
from app.chat.webhooks import Attempt, Due
from app.db import schema
from app.db.engines import Database
from app.worker.webhooks import TargetRefused, find_address, is_public, new_client, send


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",  # noqa: S104  nobody listens there
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "192.0.0.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fc00::1",
        "fd12:3456::1",
        "ff02::1",
        "2001:db8::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
    ],
)
def test_no_address_of_our_own_network_is_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_public_addresses_are(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://localhost/",
        "http://[::1]/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://[::ffff:127.0.0.1]/",
        "http://169.254.169.254/latest/meta-data",
    ],
)
async def test_names_and_spellings_of_loopback_are_refused(url: str) -> None:
    with pytest.raises(TargetRefused):
        await find_address(httpx.URL(url), allow_private=False)


async def test_one_private_address_among_public_ones_is_enough_to_refuse(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def found(*addresses: str) -> None:
        answer = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, 443)) for one in addresses]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answer)

    url = httpx.URL("https://example.com/")
    found("93.184.215.14", "10.0.0.1")
    with pytest.raises(TargetRefused):
        await find_address(url, allow_private=False)
    found("93.184.215.14", "93.184.215.15")
    assert str(await find_address(url, allow_private=False)) == "93.184.215.14"


async def test_a_refused_target_is_a_failed_attempt_that_says_why() -> None:
    item = Due(1, 1, "e", "webhook.test", "{}", 0, clock.now(), "http://localhost:9/", "s")
    async with new_client() as client:
        attempt = await send(client, item, allow_private=False)
    assert attempt.response_status is None
    assert "DESKLINE_WEBHOOK_ALLOW_PRIVATE" in (attempt.error or "")


def test_retries_wait_longer_each_time_and_end_within_a_day(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliveries = schema.webhook_deliveries
    now = clock.now_source()
    monkeypatch.setattr(clock, "now_source", lambda: now)
    with database.write() as connection:
        connection.execute(
            insert(schema.webhooks).values(
                id=1,
                name="w",
                url="https://example.com/",
                events="[]",
                secret="s",
                active=True,
                created_at=clock.now(),
            )
        )
        connection.execute(
            insert(deliveries).values(
                id=1,
                webhook_id=1,
                event_id="e",
                event="webhook.test",
                payload='{"a": 1}',
                status="pending",
                attempts=0,
                next_attempt_at=clock.now(),
                created_at=clock.now(),
            )
        )
    waits: list[float] = []
    begun = now
    while True:
        with database.write() as connection:
            (item,) = webhooks.due(connection, {}, per_webhook=4, limit=10)
            webhooks.finish(connection, item, Attempt(500, "answered 500", 3), 1.0)
            row = connection.execute(select(deliveries)).one()
        if row.status == "failed":
            break
        waits.append((row.next_attempt_at - clock.now()).total_seconds())
        with database.read() as connection:
            assert webhooks.due(connection, {}, per_webhook=4, limit=10) == []
        now += row.next_attempt_at - clock.now()
    assert waits[:4] == [30, 60, 120, 240]
    assert waits == sorted(waits)
    assert timedelta(hours=17) < now - begun <= timedelta(hours=24)
    assert (row.attempts, row.next_attempt_at) == (len(waits) + 1, None)


def test_a_webhook_with_enough_under_way_gets_no_more(database: Database) -> None:
    with database.write() as connection:
        for hook in (1, 2):
            connection.execute(
                insert(schema.webhooks).values(
                    id=hook,
                    name="w",
                    url="https://example.com/",
                    events="[]",
                    secret="s",
                    active=True,
                    created_at=clock.now(),
                )
            )
            for number in range(10):
                connection.execute(
                    insert(schema.webhook_deliveries).values(
                        id=hook * 100 + number,
                        webhook_id=hook,
                        event_id=f"e{number}",
                        event="webhook.test",
                        payload='{"a": 1}',
                        status="pending",
                        attempts=0,
                        next_attempt_at=clock.now(),
                        created_at=clock.now(),
                    )
                )
        found = webhooks.due(connection, {1: {"e0", "e1", "e2"}}, per_webhook=4, limit=100)
        assert [item.id for item in found] == [103, 200, 201, 202, 203]
        assert len(webhooks.due(connection, {}, per_webhook=4, limit=5)) == 5
        connection.execute(update(schema.webhooks).values(active=False))
        assert webhooks.due(connection, {}, per_webhook=4, limit=100) == []


def test_a_long_log_goes_in_parts_with_its_webhook(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "REMOVED_ROWS", 4)
    deliveries = schema.webhook_deliveries
    with database.write() as connection:
        for hook in (1, 2):
            connection.execute(
                insert(schema.webhooks).values(
                    id=hook,
                    name="w",
                    url="https://example.com/",
                    events="[]",
                    secret="s",
                    active=True,
                    created_at=clock.now(),
                )
            )
            rows = [
                {
                    "webhook_id": hook,
                    "event_id": f"e{number}",
                    "event": "webhook.test",
                    "payload": "{}",
                    "status": "pending",
                    "attempts": 0,
                    "next_attempt_at": clock.now(),
                    "created_at": clock.now(),
                }
                for number in range(10)
            ]
            connection.execute(insert(deliveries), rows)
    left: list[int] = []
    remove_some = webhooks._remove_some

    def counted(connection: Connection, actor: Actor, webhook_id: int) -> bool:
        more = remove_some(connection, actor, webhook_id)
        mine = select(func.count()).where(deliveries.c.webhook_id == webhook_id)
        left.append(connection.execute(mine).scalar_one())
        # nothing more is sent meanwhile
        due = webhooks.due(connection, {}, per_webhook=100, limit=100)
        assert {item.webhook_id for item in due} == {2}
        return more

    monkeypatch.setattr(webhooks, "_remove_some", counted)
    webhooks.remove(database, SYSTEM, 1)
    assert left == [6, 2, 0, 0]
    with database.read() as connection:
        assert connection.execute(select(schema.webhooks.c.id)).scalars().all() == [2]
        assert connection.execute(select(func.count()).select_from(deliveries)).scalar_one() == 10
        actions = connection.execute(select(schema.audit_log.c.action)).scalars().all()
    assert actions == ["webhook.deleted"]
    with pytest.raises(NotFound):
        webhooks.remove(database, SYSTEM, 1)


def test_the_signature_is_as_documented() -> None:
    # printf '1700000000.{}' | openssl dgst -sha256 -hmac secret
    expected = "b8569b78799ff9e3cbff0fc2d63a33a2b57f3282abd07c37ae5e8e7d79a5f163"
    assert webhooks.signature("secret", 1_700_000_000, b"{}") == f"t=1700000000,v1={expected}"
