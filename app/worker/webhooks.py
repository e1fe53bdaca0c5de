"""The jobs that turn what happened into deliveries, and send these.

At least once: a delivery is marked after its receiver took it, so a worker that dies in between
leaves it pending, and it is sent again under the same ids. Each webhook has a few deliveries under
way at a time, so that a slow receiver holds up nobody else.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
import ssl
import time
from typing import TYPE_CHECKING, Final

import httpx

from app import clock
from app.chat import webhooks
from app.chat.webhooks import Attempt, Due
from app.version import version

if TYPE_CHECKING:
    from app.worker.jobs import Run

EXPAND_EVERY_SECONDS: Final = 0.5
DELIVER_EVERY_SECONDS: Final = 0.5
FACTS_PER_TRANSACTION: Final = 200
TIMEOUT_SECONDS: Final = 10.0
IN_FLIGHT_MAX: Final = 32
IN_FLIGHT_PER_WEBHOOK: Final = 4
# a run takes up new work for so long, then lets another node have the lock
RUN_SECONDS: Final = 30.0
POLL_SECONDS: Final = 0.5
JITTER: Final = 0.2

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# addresses in these networks lead to an IPv4 address that stands inside them
_CARRIERS: Final = (
    ipaddress.ip_network("64:ff9b::/96"),
    ipaddress.ip_network("64:ff9b:1::/48"),
    ipaddress.ip_network("2002::/16"),
)


class TargetRefused(Exception):
    """The address may not be called, or does not exist; the text says which."""


async def expand(run: Run) -> int:
    """Turn facts into deliveries; gives how many facts."""
    database = run.tools.database

    def step() -> int:
        with database.write() as connection:
            run.check_fence(connection)
            return webhooks.expand(connection, FACTS_PER_TRANSACTION)

    expanded = 0
    while count := await database.run(step):
        expanded += count
        await run.go_on()
    return expanded


async def deliver(run: Run) -> int:
    """Send what is due, until nothing is; gives how many attempts were made."""
    database, allow_private = run.tools.database, run.tools.webhook_allow_private

    def find(busy: dict[int, set[str]], room: int) -> list[Due]:
        with database.read() as connection:
            return webhooks.due(connection, busy, per_webhook=IN_FLIGHT_PER_WEBHOOK, limit=room)

    def finish(sent: Due, attempt: Attempt) -> None:
        with database.write() as connection:
            run.check_fence(connection)
            spread = random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311  no secret
            webhooks.finish(connection, sent, attempt, spread)

    async def one(client: httpx.AsyncClient, item: Due) -> None:
        attempt = await send(client, item, allow_private=allow_private)
        await database.run(finish, item, attempt)

    attempts = 0
    stop_at = time.monotonic() + RUN_SECONDS
    in_flight: dict[asyncio.Task[None], Due] = {}
    async with new_client() as client:
        try:
            while True:
                if time.monotonic() < stop_at and len(in_flight) < IN_FLIGHT_MAX:
                    busy: dict[int, set[str]] = {}
                    for item in in_flight.values():
                        busy.setdefault(item.webhook_id, set()).add(item.event_id)
                    for item in await database.run(find, busy, IN_FLIGHT_MAX - len(in_flight)):
                        in_flight[asyncio.create_task(one(client, item))] = item
                        attempts += 1
                if not in_flight:
                    return attempts
                done, _ = await asyncio.wait(
                    in_flight, timeout=POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                for task in done:
                    del in_flight[task]
                    task.result()
                await run.go_on()
        finally:
            for task in in_flight:
                task.cancel()
            await asyncio.gather(*in_flight, return_exceptions=True)


def new_client() -> httpx.AsyncClient:
    """The client that deliveries are sent with: no redirects, no proxies of the environment."""
    return httpx.AsyncClient(
        timeout=TIMEOUT_SECONDS,
        follow_redirects=False,
        trust_env=False,
        limits=httpx.Limits(max_connections=IN_FLIGHT_MAX, max_keepalive_connections=0),
    )


async def send(client: httpx.AsyncClient, item: Due, *, allow_private: bool) -> Attempt:
    """Send a delivery once. What the receiver answers is not read beyond its status."""
    begun = time.monotonic()
    status, error = None, None
    body = item.payload.encode()
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            url = httpx.URL(item.url)
            address = await find_address(url, allow_private=allow_private)
            timestamp = int(clock.now_source().timestamp())
            # to the address that was checked: asked again, the name could lead elsewhere
            request = client.build_request(
                "POST",
                url.copy_with(host=str(address)),
                content=body,
                headers={
                    "Host": url.netloc.decode("ascii"),
                    "Content-Type": "application/json",
                    "User-Agent": f"Deskline/{version()}",
                    "X-Deskline-Event": item.event,
                    "X-Deskline-Delivery": str(item.id),
                    "X-Deskline-Signature": webhooks.signature(item.secret, timestamp, body),
                },
                extensions={"sni_hostname": url.host},
            )
            answer = await client.send(request, stream=True)
            await answer.aclose()
        status = answer.status_code
        if 300 <= status < 400:
            error = f"answered {status}: redirects are not followed"
        elif not 200 <= status < 300:
            error = f"answered {status}"
    except TargetRefused as refused:
        error = str(refused)
    except (TimeoutError, httpx.TimeoutException):
        error = f"no answer within {TIMEOUT_SECONDS:.0f} seconds"
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ssl.SSLError, ValueError) as failure:
        error = _words(failure)
    return Attempt(status, error, round((time.monotonic() - begun) * 1000))


def _words(failure: BaseException) -> str:
    text = str(failure).split("\n", 1)[0]
    return f"{type(failure).__name__}: {text}" if text else type(failure).__name__


async def find_address(url: httpx.URL, *, allow_private: bool) -> Address:
    """The address that the host of ``url`` has. Raises :class:`TargetRefused`.

    Unless ``allow_private``, every address of the host must be a public one: a webhook must not
    reach what only our own network can.
    """
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(url.host, port, type=1)
    except (OSError, UnicodeError):
        raise TargetRefused(f"the host {url.host} was not found") from None
    addresses = [ipaddress.ip_address(str(item[4][0]).partition("%")[0]) for item in found]
    if not addresses:
        raise TargetRefused(f"the host {url.host} was not found")
    if not allow_private and not all(is_public(address) for address in addresses):
        raise TargetRefused(
            f"the host {url.host} has a loopback, private or reserved address; "
            "DESKLINE_WEBHOOK_ALLOW_PRIVATE=true allows it"
        )
    return addresses[0]


def is_public(address: Address) -> bool:
    """Whether an address belongs to the internet at large (IANA's special-purpose registries)."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if any(address in network for network in _CARRIERS):
            return False
    return address.is_global and not address.is_multicast
