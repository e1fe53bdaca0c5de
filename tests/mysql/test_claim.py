"""Fifty agents want one conversation at the same moment (ARCHITECTURE P9)."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from app.chat import accounts
from app.db import engines
from tests.api.conftest import Visitor
from tests.mysql.conftest import Web
from tools.private_mysql import Servers

# the servers are started within the first test
pytestmark = pytest.mark.timeout(300)

ROUNDS = 100
AGENTS = 50
PASSWORD = "password123"


@pytest.fixture
def emails(mysql: Servers, demo: None) -> list[str]:
    """The addresses of fifty agents."""
    addresses = [f"agent{number}@claim.example" for number in range(AGENTS)]
    engine = engines.make_engine(mysql.primary.url(), pool_size=1)
    with engines.write_transaction(engine) as connection:
        for number, email in enumerate(addresses):
            accounts.create(
                connection, email=email, name=f"Agent {number}", role="agent", password=PASSWORD
            )
    engine.dispose()
    return addresses


@pytest.mark.timeout(300)
async def test_one_winner_and_the_others_are_told_who(web: Web, emails: list[str]) -> None:
    clients = [httpx.AsyncClient(base_url=f"{web.url}/api/v1", timeout=30) for _ in range(AGENTS)]
    names: list[str] = []
    try:
        for client, email in zip(clients, emails, strict=True):
            answer = await client.post("/auth/login", json={"email": email, "password": PASSWORD})
            assert answer.status_code == 200, answer.text
            client.headers["X-CSRF-Token"] = answer.json()["csrf_token"]
            names.append(answer.json()["user"]["name"])
        conversations = await asyncio.to_thread(_conversations, web)
        for conversation in conversations:
            answers = await asyncio.gather(
                *(client.post(f"/conversations/{conversation}/claim") for client in clients)
            )
            winners = [
                name
                for name, answer in zip(names, answers, strict=True)
                if answer.status_code == 200
            ]
            assert len(winners) == 1
            won = answers[names.index(winners[0])].json()
            assert won["assignee"]["name"] == winners[0]
            lost = [answer for answer in answers if answer.status_code != 200]
            assert [answer.status_code for answer in lost] == [409] * (AGENTS - 1)
            for answer in lost:
                assert answer.json()["code"] == "conversation_already_claimed"
                assert answer.json()["holder"]["name"] == winners[0]
    finally:
        for client in clients:
            await client.aclose()


def _conversations(web: Web) -> list[int]:
    made = []
    for _ in range(ROUNDS):
        visitor = Visitor(web.deskline)
        made.append(visitor.conversation())
        visitor.http.close()
    return made
