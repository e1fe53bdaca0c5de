"""The machines are those of tests/cluster, reached in the same way; each agent has an account."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
import pytest

from tests.cluster.conftest import base_url, bridge, inventory, machine, primary, replica
from tests.conftest import Deskline

__all__ = ["base_url", "bridge", "inventory", "machine", "primary", "replica"]

AGENTS = int(os.environ.get("DESKLINE_CHAOS_AGENTS", "10"))


@dataclass(frozen=True)
class Accounts:
    """What the ledger reads; not shown when a test fails."""

    text: str = field(repr=False)


@pytest.fixture
def accounts(base_url: str) -> Iterator[Accounts]:
    """Accounts for the ledger, in its form; deactivated afterwards.

    One for each agent, as in a real team: requests are limited per account, and thirty people
    who share two of them would meet that limit while they try again during an outage.
    """
    demo = Deskline(base_url, "")
    run = secrets.token_hex(4)
    made: list[int] = []
    lines = []
    with httpx.Client(base_url=base_url, timeout=30) as http:
        login = {"email": demo.email, "password": demo.password}
        answer = http.post("/api/v1/auth/login", json=login)
        assert answer.status_code == 200, f"the demo's admin cannot log in: {answer.text}"
        http.headers["X-CSRF-Token"] = answer.json()["csrf_token"]
        try:
            for number in range(1, AGENTS + 1):
                account = {
                    "email": f"ledger-{run}-{number}@example.com",
                    "name": f"Ledger {number}",
                    "password": secrets.token_urlsafe(24),
                }
                answer = http.post("/api/v1/users", json=account)
                assert answer.status_code == 201, answer.text
                made.append(answer.json()["id"])
                lines.append(f"{account['email']} {account['password']}")
            yield Accounts("\n".join(lines))
        finally:
            for user_id in made:
                http.patch(f"/api/v1/users/{user_id}", json={"active": False})
