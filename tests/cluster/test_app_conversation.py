"""Promises of the whole: a conversation uses every node, and goes on when some of them stop."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest
from testinfra.host import Host

from tests.api.conftest import Agent, Visitor
from tests.cluster.app_client import Listener, fetch
from tests.cluster.conftest import Inventory, Mysql
from tests.conftest import Deskline

Machine = Callable[[str], Host]
SEND_EVERY_SECONDS = 0.1
# Longer than Nginx leaves a failed node alone.
OUTAGE_SECONDS = 7.0


@pytest.fixture(scope="module")
def cluster(base_url: str) -> Deskline:
    return Deskline(base_url, base_url.replace("http", "ws", 1))


@pytest.fixture(scope="module")
def agent(cluster: Deskline) -> Iterator[Agent]:
    logged_in = Agent(cluster, cluster.email)
    yield logged_in
    logged_in.http.close()


@pytest.fixture
def visitor(cluster: Deskline) -> Iterator[Visitor]:
    made = Visitor(cluster)
    yield made
    made.http.close()


@asynccontextmanager
async def listening(
    cluster: Deskline, agent: Agent, conversation_id: int
) -> AsyncIterator[Listener]:
    """A member of the staff who has the conversation open."""
    async with (
        httpx.AsyncClient(base_url=cluster.url, cookies=agent.http.cookies, timeout=20) as http,
        Listener(http, agent.csrf, conversation_id) as listener,
    ):
        yield listener


def sockets(host: Host, address: str) -> int:
    """How many sockets a gateway has."""
    _, _, shown = fetch(host, f"http://{address}:8081/metrics")
    found = re.search(r"^deskline_gateway_connections (\d+)", shown, re.MULTILINE)
    assert found, shown
    return int(found[1])


async def test_two_conversations_reach_both_app_nodes_and_both_gateways(
    cluster: Deskline, agent: Agent, inventory: Inventory, machine: Machine
) -> None:
    visitors = [Visitor(cluster), Visitor(cluster)]
    conversations = [visitor.conversation("hello") for visitor in visitors]
    gateways = inventory.groups["realtime"]

    def open_sockets() -> list[int]:
        return [sockets(machine(name), inventory.address(name)) for name in gateways]

    before = open_sockets()
    async with (
        listening(cluster, agent, conversations[0]) as first,
        listening(cluster, agent, conversations[1]) as second,
    ):
        during = open_sockets()
        assert all(now > then for now, then in zip(during, before, strict=True))
        nodes: set[str] = set()
        for turn in range(4):
            for visitor, conversation_id in zip(visitors, conversations, strict=True):
                sent = visitor.send(conversation_id, f"turn {turn}")
                assert sent.status_code == 201, sent.text
                nodes.add(sent.headers["X-Deskline-Node"])
        assert nodes == set(inventory.groups["app"])
        for listener in (first, second):
            await listener.until(lambda seen: seen.live == 4, "four messages must arrive live")
            assert listener.seqs == [1, 2, 3, 4, 5]
            assert listener.connections == 1


def test_a_message_is_on_the_replica(visitor: Visitor, primary: Mysql, replica: Mysql) -> None:
    body = f"for the replica {uuid.uuid4()}"
    conversation_id = visitor.conversation(body)
    where = f"conversation_id = {conversation_id}"
    stored = f"SELECT body FROM deskline.messages WHERE {where}"  # noqa: S608  a number of ours
    assert primary.lines(stored) == [body]
    for _ in range(50):
        if replica.lines(stored) == [body]:
            return
        time.sleep(0.1)
    pytest.fail("the message did not reach the replica within 5 s")


def history_reads(server: Mysql) -> int:
    """How many statements that read messages the server has carried out."""
    return int(
        server.value(
            "SELECT COALESCE(SUM(count_star), 0)"
            " FROM performance_schema.events_statements_summary_by_digest"
            " WHERE schema_name = 'deskline'"
            # the web nodes prepare it once per connection and then only execute it
            " AND REGEXP_LIKE(digest_text, '^(EXECUTE )?SELECT .*`messages` [.] `body`')"
        )
    )


def test_history_is_read_on_the_replica(
    agent: Agent, visitor: Visitor, primary: Mysql, replica: Mysql
) -> None:
    conversation_id = visitor.conversation("one")
    for body in ("two", "three"):
        assert visitor.send(conversation_id, body).status_code == 201
    where = f"id = {conversation_id}"
    seq = f"SELECT last_seq_public FROM deskline.conversations WHERE {where}"  # noqa: S608  a number of ours
    for _ in range(50):
        if replica.lines(seq) == ["3"]:
            break
        time.sleep(0.1)
    reads = 20
    before_primary, before_replica = history_reads(primary), history_reads(replica)
    for _ in range(reads):
        answer = agent.get(f"/conversations/{conversation_id}/messages", known_seq=3)
        assert answer.headers["X-Deskline-Read"] == "replica"
        assert [item["seq"] for item in answer.json()["items"]] == [1, 2, 3]
    assert history_reads(replica) - before_replica >= reads
    assert history_reads(primary) - before_primary < reads


class Sender:
    """A visitor who writes a message every tenth of a second and expects each to be accepted."""

    def __init__(self, visitor: Visitor, conversation_id: int) -> None:
        self._visitor = visitor
        self._conversation_id = conversation_id
        self._stop = asyncio.Event()
        self.slowest_seconds = 0.0
        self.sent = 0

    async def run(self) -> None:
        while not self._stop.is_set():
            begun = time.monotonic()
            answer = await asyncio.to_thread(
                self._visitor.send, self._conversation_id, f"message {self.sent}"
            )
            assert answer.status_code in (200, 201), answer.text
            self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - begun)
            self.sent += 1
            await asyncio.sleep(SEND_EVERY_SECONDS)

    def stop(self) -> None:
        self._stop.set()


# Ends with 1 unless the answer is a 2xx.
OPEN = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=5)"


def wait_until_ready(machine: Machine, inventory: Inventory, nodes: dict[str, int]) -> None:
    """Wait for /readyz on the port of each node. Raises AssertionError after 30 s."""
    for name, port in nodes.items():
        url = f"http://{inventory.address(name)}:{port}/readyz"
        until = time.monotonic() + 30
        while machine(name).run("python3 -c %s %s", OPEN, url).rc:
            assert time.monotonic() < until, f"{url} does not answer 200"
            time.sleep(0.5)


@pytest.mark.heavy
@pytest.mark.parametrize("how", ["stop", "kill --signal=KILL"], ids=["stopped", "killed"])
@pytest.mark.parametrize("lost", [0, 1], ids=["first-nodes", "second-nodes"])
async def test_the_conversation_goes_on_without_an_app_node_and_a_gateway(
    cluster: Deskline,
    agent: Agent,
    visitor: Visitor,
    *,
    inventory: Inventory,
    machine: Machine,
    lost: int,
    how: str,
) -> None:
    """Both gateways are lost in turn, so one of the two runs takes the listener's socket away."""
    app, gateway = (inventory.groups[group][lost] for group in ("app", "realtime"))
    units = {app: ("deskline-web", 8000), gateway: ("deskline-gateway", 8081)}
    conversation_id = visitor.conversation("hello")
    sender = Sender(visitor, conversation_id)
    async with (
        listening(cluster, agent, conversation_id) as first,
        listening(cluster, agent, conversation_id) as second,
    ):
        sending = asyncio.create_task(sender.run())
        try:
            await asyncio.sleep(1)
            for name, (unit, _) in units.items():
                done = await asyncio.to_thread(machine(name).run, f"systemctl {how} {unit}")
                assert done.rc == 0, done.stderr
            await asyncio.sleep(OUTAGE_SECONDS)
        finally:
            for name, (unit, _) in units.items():
                await asyncio.to_thread(machine(name).run, f"systemctl start {unit}")
            sender.stop()
        await sending
        await asyncio.to_thread(
            wait_until_ready, machine, inventory, {name: port for name, (_, port) in units.items()}
        )
        everything = list(range(1, sender.sent + 2))
        for listener in (first, second):
            await listener.until(
                lambda seen: seen.seqs[-1] == everything[-1], f"{sender.sent} messages were sent"
            )
            assert listener.seqs == everything, "a message is missing, doubled or out of order"
        assert first.connections + second.connections > 2, "no listener lost its gateway"
    assert sender.sent > OUTAGE_SECONDS
    # One connection attempt to a node that is gone, never a time-out that a person would notice.
    assert sender.slowest_seconds < 3
