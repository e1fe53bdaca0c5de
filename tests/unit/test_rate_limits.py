"""Rate limits: decided at once on this node, shared with the others in the background."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from redis.asyncio import Redis

from app import embedded
from app.bus import connection, limits
from app.bus.limits import AttemptLimit, Pause, RateLimits
from app.http import server
from app.proxies import client_network

DEAD_REDIS = "redis://127.0.0.1:1/0"
# 60 a minute are 10 in a window
SIXTY = {"sends": 60, "reads": 0}

Make = Callable[..., RateLimits]


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with embedded.private_redis(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    client = connection.connect(redis_url)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
async def silent_redis() -> AsyncIterator[Redis]:
    """A server that takes connections and never answers."""

    async def listen(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    server_socket = await asyncio.start_server(listen, "127.0.0.1", 0)
    port = server_socket.sockets[0].getsockname()[1]
    client = connection.connect(f"redis://127.0.0.1:{port}/0")
    yield client
    await client.aclose()
    server_socket.close()


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_003.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def now() -> Clock:
    return Clock()


@pytest.fixture
async def make(redis: Redis, now: Clock) -> AsyncIterator[Make]:
    made: list[RateLimits] = []

    def build(client: Redis | None = None, *, enforce: bool = True) -> RateLimits:
        made.append(
            RateLimits(client or redis, SIXTY, per_caller=SIXTY, enforce=enforce, clock=now)  # type: ignore[arg-type]
        )
        return made[-1]

    yield build
    for one in made:
        await one.close()


def spend(rates: RateLimits, times: int, who: str = "10.0.0.1") -> list[int]:
    return [rates.spend("address", "sends", who) for _ in range(times)]


async def test_the_one_too_many_is_told_when_to_come_back(make: Make, now: Clock) -> None:
    rates = make()
    assert spend(rates, 12) == [0] * 10 + [7, 7]
    assert spend(rates, 1, "10.0.0.2") == [0]
    assert rates.spend("caller", "sends", "10.0.0.1") == 0
    assert rates.statistics.refused == {("sends", "address"): 2}
    now.now += 6.5
    assert spend(rates, 1) == [1]
    now.now += 0.5
    assert spend(rates, 11) == [0] * 10 + [10]


async def test_zero_and_an_unnamed_kind_stand_for_no_limit(make: Make) -> None:
    rates = make()
    assert {rates.spend("address", "reads", "a") for _ in range(1000)} == {0}
    assert {rates.spend("caller", "logins", "a") for _ in range(1000)} == {0}


async def test_observing_refuses_nothing_and_counts(make: Make) -> None:
    rates = make(enforce=False)
    assert spend(rates, 15) == [0] * 15
    assert rates.statistics.refused == {("sends", "address"): 5}


async def test_the_nodes_share_one_limit(make: Make, redis: Redis) -> None:
    one, two = make(), make()
    assert spend(one, 6) == [0] * 6
    assert spend(two, 3) == [0] * 3
    for rates in (one, two, one):
        await rates.exchange()
    # six and three are used: one is left, on whichever node
    spend(one, 1)
    await one.exchange()
    spend(two, 1)
    await two.exchange()
    await one.exchange()
    assert spend(two, 1) != [0]
    keys = await redis.keys()
    assert keys
    assert not [key for key in keys if b"10.0.0.1" in key]
    for key in keys:
        assert 0 < await redis.ttl(key) <= 2 * limits.WINDOW_SECONDS


async def test_the_exchange_runs_by_itself(make: Make) -> None:
    one, two = make(), make()
    spend(one, 10)
    for _ in range(50):
        spend(two, 1, "somebody")
        await asyncio.sleep(0.05)
        if one.statistics.failures:
            pytest.fail("Redis did not answer")
        if spend(two, 1)[0]:
            return
    pytest.fail("the second node never learned of the first one's requests")


async def test_what_is_far_from_its_limit_costs_no_traffic(redis: Redis, now: Clock) -> None:
    rates = RateLimits(redis, {"sends": 600}, clock=now)
    for number in range(500):
        spend(rates, 9, f"10.1.{number // 250}.{number % 250}")
    await rates.exchange()
    assert await redis.keys() == []
    await rates.close()


async def test_a_silent_redis_delays_nothing_and_the_own_count_decides(
    make: Make, silent_redis: Redis
) -> None:
    rates = make(silent_redis)
    started = time.monotonic()
    assert spend(rates, 11) == [0] * 10 + [7]
    assert time.monotonic() - started < 0.05
    with pytest.raises((TimeoutError, OSError, limits.RedisError)):
        await rates.exchange()
    assert spend(rates, 1) == [7]


async def test_a_redis_that_lost_its_data_gives_nobody_new_requests(
    make: Make, redis: Redis
) -> None:
    rates = make()
    spend(rates, 9)
    await rates.exchange()
    await redis.flushall()
    spend(rates, 1)
    await rates.exchange()
    assert spend(rates, 1) == [7]


async def test_the_memory_is_bounded(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_COUNTS", 100)
    rates = make()
    for number in range(1000):
        spend(rates, 1, str(number))
    assert len(rates._counts) == 100
    await rates.exchange()


async def test_a_login_waits_for_a_silent_redis_once_and_briefly(silent_redis: Redis) -> None:
    pause = Pause()
    limit, other = (
        AttemptLimit(silent_redis, name, attempts=3, window_seconds=60, pause=pause)
        for name in ("login", "codes")
    )
    started = time.monotonic()
    for _ in range(3):
        assert await limit.take("a") == 0
    assert await limit.take("a") > 0
    assert await other.take("a") == 0
    await other.give_back("a")
    assert time.monotonic() - started < 0.4


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("not an address", "not an address"),
    ],
)
def test_an_ipv6_client_is_its_network(address: str, counted: str) -> None:
    assert client_network(address) == counted


def test_every_call_but_those_of_machines_has_a_limit() -> None:
    free = {endpoint.path for endpoint in server.endpoints() if endpoint.limit is None}
    assert free == {"/healthz", "/readyz", "/metrics"}
    for endpoint in server.endpoints():
        assert endpoint.limit is None or endpoint.limit in limits.TRAFFIC
