"""Guessing passwords and codes: how many tries an account, an address, everybody has."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pyotp
import pytest

from app.http.context import CODE_ATTEMPTS_PER_ACCOUNT, LOGIN_ATTEMPTS_PER_ADDRESS
from tests.api.conftest import PASSWORD, Agent, Person, assert_problem, enrolled
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


@pytest.fixture
def person(behind_a_proxy: Deskline) -> Person:
    """An account of that server."""
    admin = Agent(behind_a_proxy, behind_a_proxy.email)
    email = f"staff-{uuid.uuid4()}@example.com"
    body = {"email": email, "name": "Staff", "password": PASSWORD}
    assert admin.post("/users", body).status_code == 201
    admin.http.close()
    return Person(behind_a_proxy, email)


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


def test_many_failures_block_the_account_from_this_address_only(behind_a_proxy: Deskline) -> None:
    known = {"email": behind_a_proxy.email, "password": behind_a_proxy.password}
    wrong = {**known, "password": "wrong-wrong"}
    codes = [log_in(behind_a_proxy, "192.0.2.1", **wrong).status_code for _ in range(11)]
    assert codes == [401] * 10 + [429]
    blocked = log_in(behind_a_proxy, "192.0.2.1", **known)
    assert_problem(blocked, 429, "too_many_attempts")
    assert 1 <= int(blocked.headers["Retry-After"]) <= 900
    assert log_in(behind_a_proxy, "192.0.2.2", **known).status_code == 200


def test_many_wrong_passwords_at_once_are_no_more_tries(behind_a_proxy: Deskline) -> None:
    body = {"email": f"{uuid.uuid4()}@example.com", "password": "wrong-wrong"}
    with ThreadPoolExecutor(50) as threads:
        answers = list(
            threads.map(lambda _: log_in(behind_a_proxy, "192.0.2.3", **body), range(50))
        )
    codes = [answer.status_code for answer in answers]
    # only a password that was looked at is answered with 401
    assert (codes.count(401), codes.count(429)) == (10, 40)


def test_guessing_the_present_password_is_throttled_like_a_login(person: Person) -> None:
    body = {"password": "guessed-wrong", "new_password": "a-second-password"}
    codes = [person.post("/me/password", body).status_code for _ in range(11)]
    assert codes == [422] * 10 + [429]
    right = person.post("/me/password", {**body, "password": PASSWORD})
    assert_problem(right, 429, "too_many_attempts")
    assert int(right.headers["Retry-After"]) >= 1


def test_codes_cannot_be_guessed(person: Person) -> None:
    app, _ = enrolled(person)
    wrong = [f"{n:06}" for n in range(20) if f"{n:06}" != app.now()][:10]
    for code in wrong:
        # the right password in between does not give new tries
        assert person.log_in_again(code=code).status_code == 401
        assert person.log_in_again().status_code in (401, 429)
    assert_problem(person.log_in_again(code=app.now()), 429, "too_many_attempts")


def test_many_codes_at_once_are_no_more_tries(person: Person) -> None:
    app, _ = enrolled(person)
    wrong = [f"{n:06}" for n in range(40) if f"{n:06}" != app.now()][:30]
    with ThreadPoolExecutor(len(wrong)) as threads:
        answers = list(threads.map(lambda code: person.log_in_again(code=code), wrong))
    codes = [answer.status_code for answer in answers]
    assert (codes.count(401), codes.count(429)) == (10, 20)
