"""What several people do to accounts at once, on MySQL: exactly one wins."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pyotp
import pytest
from sqlalchemy import select, update

from app import config
from app.chat import accounts, links, second_factor, staff, teams
from app.chat.errors import ChatError, Refused
from app.chat.links import Site
from app.chat.permissions import Actor
from app.chat.second_factor import SecretBox
from app.db import schema
from app.db.engines import Database
from tests.unit.conftest import SECRETS
from tools.private_mysql import Servers

SITE = Site("https://chat.example")
ACTOR = Actor("system", None, "Test")
BOX = SecretBox("k" * 40)
AT_ONCE = 8


@pytest.fixture
def database(mysql: Servers) -> Iterator[Database]:
    env = {**SECRETS, "DESKLINE_DATABASE_URL": mysql.primary.url("app")}
    opened = Database(config.load("web", env))
    yield opened
    opened.close()


def account(database: Database, role: str = "agent") -> int:
    made = staff.create(
        database,
        ACTOR,
        SITE,
        password="a-first-password",
        inbox_ids=[],
        email=f"staff-{uuid.uuid4()}@example.com",
        name="Ann 安 😀",
        role=role,
        avatar_url=None,
        all_inboxes=True,
        capacity=10,
    )
    return int(made["id"])


def email(database: Database, user_id: int) -> str:
    return str(staff.one(database, user_id)["email"])


def at_once(work: Callable[[int], object]) -> list[object]:
    """What ``work`` gave or raised, run by several threads at once."""

    def guarded(number: int) -> object:
        try:
            return work(number)
        except ChatError as error:
            return error

    with ThreadPoolExecutor(AT_ONCE) as threads:
        return list(threads.map(guarded, range(AT_ONCE)))


def test_a_link_is_spent_once(database: Database) -> None:
    user_id = account(database)
    address = email(database, user_id)
    links.request_reset(database, SITE, address.upper())
    with database.read() as connection:
        text = connection.execute(
            select(schema.mails.c.body_text).where(schema.mails.c.to_address == address)
        ).scalar_one()
    token = text.partition("#reset=")[2].split()[0]

    def spend(number: int) -> str:
        return links.choose_password(database, "reset", token, f"password-{number}", None)

    results = at_once(spend)
    (winner,) = (number for number, result in enumerate(results) if result == address)
    assert all(isinstance(r, Refused) for n, r in enumerate(results) if n != winner)
    accounts.log_in(database, address, f"password-{winner}")


def test_a_forgotten_password_is_mailed_once(database: Database) -> None:
    address = email(database, account(database))
    at_once(lambda _: links.request_reset(database, SITE, address))
    with database.read() as connection:
        mails = connection.execute(
            select(schema.mails.c.id).where(schema.mails.c.to_address == address)
        ).all()
    assert len(mails) == 1


@pytest.mark.parametrize("kind", ["app", "recovery"])
def test_a_code_opens_one_session(database: Database, kind: str) -> None:
    user_id = account(database)
    with database.write() as connection:
        secret, _ = second_factor.start(connection, BOX, user_id, "x@example.com")
        codes = second_factor.new_recovery_codes(connection, user_id)
        connection.execute(
            update(schema.users)
            .where(schema.users.c.id == user_id)
            .values(totp_enabled_at=schema.users.c.created_at)
        )
    code = pyotp.TOTP(secret).now() if kind == "app" else codes[0]
    address = email(database, user_id)
    results = at_once(
        lambda _: accounts.log_in(database, address, "a-first-password", box=BOX, code=code)
    )
    assert len([result for result in results if isinstance(result, tuple)]) == 1


def test_one_admin_is_always_left(database: Database) -> None:
    with database.write() as connection:
        connection.execute(update(schema.users).values(role="agent"))
    admins = [account(database, "admin") for _ in range(AT_ONCE)]
    results = at_once(lambda n: staff.change(database, ACTOR, admins[n], {"role": "agent"}))
    assert len([result for result in results if isinstance(result, Refused)]) == 1
    roles = [staff.one(database, user_id)["role"] for user_id in admins]
    assert roles.count("admin") == 1


def test_an_address_is_taken_once(database: Database) -> None:
    address = f"Twin-{uuid.uuid4()}@example.com"

    def make(_number: int) -> object:
        return staff.create(
            database,
            ACTOR,
            SITE,
            password="a-first-password",
            inbox_ids=[],
            email=address,
            name="Twin",
            role="agent",
            avatar_url=None,
            all_inboxes=False,
            capacity=0,
        )

    results = at_once(make)
    assert len([result for result in results if isinstance(result, dict)]) == 1
    assert {r.code for r in results if isinstance(r, Refused)} == {"email_taken"}


def test_deactivating_wins_over_a_login_at_the_same_time(database: Database) -> None:
    user_id = account(database)
    address = email(database, user_id)

    def work(number: int) -> object:
        if number == 3:
            return staff.change(database, ACTOR, user_id, {"active": False})
        return accounts.log_in(database, address, "a-first-password")

    at_once(work)
    # no session that would come to life again with the account
    with database.read() as connection:
        left = connection.execute(
            select(schema.sessions.c.token_hash).where(schema.sessions.c.user_id == user_id)
        ).all()
    assert left == []


def test_a_teams_members_are_set_by_several_at_once(database: Database) -> None:
    users = [account(database) for _ in range(3)]
    team = teams.create(database, ACTOR, name=f"Team {uuid.uuid4()}", member_ids=[])["id"]
    results = at_once(lambda n: teams.set_member(database, ACTOR, team, users[n % 3], belongs=True))
    assert results == [None] * AT_ONCE
    assert len(teams.one(database, team)["members"]) == 3
