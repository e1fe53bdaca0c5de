"""Tries of logins from one address at many accounts, and at one account from many addresses."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pyotp
import pytest

from app.http.context import CODE_ATTEMPTS_PER_ACCOUNT, LOGIN_ATTEMPTS_PER_ADDRESS
from tests.api.conftest import Agent, assert_problem
from tests.conftest import Deskline, embedded_deskline


@pytest.fixture(scope="module")
def behind_a_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deskline]:
    """A server of its own: what is tried here would block the address for the other tests."""
    folder = tmp_path_factory.mktemp("limits")
    with embedded_deskline(folder, TRUSTED_PROXIES="127.0.0.0/8,::1/128") as running:
        yield running


def log_in(deskline: Deskline, address: str, **body: Any) -> httpx.Response:
    return httpx.post(
        f"{deskline.url}/api/v1/auth/login",
        json=body,
        headers={"X-Forwarded-For": address},
        timeout=20,
    )


def test_one_address_cannot_go_on_to_the_next_account(behind_a_proxy: Deskline) -> None:
    right = {"email": behind_a_proxy.email, "password": behind_a_proxy.password}
    for _ in range(LOGIN_ATTEMPTS_PER_ADDRESS):
        unknown = f"{uuid.uuid4()}@example.com"
        answer = log_in(behind_a_proxy, "203.0.113.7", email=unknown, password="wrong-wrong")
        assert_problem(answer, 401, "invalid_credentials")
    blocked = log_in(behind_a_proxy, "203.0.113.7", **right)
    assert_problem(blocked, 429, "too_many_attempts")
    assert 1 <= int(blocked.headers["Retry-After"]) <= 900
    assert log_in(behind_a_proxy, "203.0.113.8", **right).status_code == 200


def test_codes_are_counted_from_all_addresses_together(behind_a_proxy: Deskline) -> None:
    agent = Agent(behind_a_proxy, behind_a_proxy.second_email)
    password = behind_a_proxy.password
    app = pyotp.TOTP(agent.post("/me/totp", {"password": password}).json()["secret"])
    # the code of the step before leaves the present one for the test
    confirmed = agent.post("/me/totp/confirm", {"code": app.at(int(time.time()) - 30)})
    assert confirmed.status_code == 200, confirmed.text
    agent.http.close()
    known = {"email": behind_a_proxy.second_email, "password": password}
    wrong = [f"{n:06}" for n in range(2 * CODE_ATTEMPTS_PER_ACCOUNT) if f"{n:06}" != app.now()]
    for number, code in enumerate(wrong[:CODE_ATTEMPTS_PER_ACCOUNT]):
        answer = log_in(behind_a_proxy, f"198.51.100.{number}", **known, code=code)
        assert answer.status_code == 401, answer.text
    blocked = log_in(behind_a_proxy, "198.51.100.200", **known, code=app.now())
    assert_problem(blocked, 429, "too_many_attempts")
