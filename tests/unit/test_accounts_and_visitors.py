"""Passwords, sessions, tokens, and what is made of a visitor's headers."""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, delete, select, text, update

from app import clock
from app.chat import accounts, channels, conversations, inboxes, sync, visitors
from app.chat.accounts import Session
from app.chat.errors import CodeNeeded, InvalidCredentials
from app.chat.logins import Logins
from app.chat.permissions import VisitorIdentity
from app.chat.visitors import VisitorTokens
from app.db import schema
from app.db.engines import Database
from app.db.reads import Reads
from app.gateway import pusher
from app.gateway.applications import Application
from app.proxies import client_address

KEY = "k" * 40


def find_session(database: Database, token: str) -> Session | None:
    """As the web process does it for a cookie."""

    async def find() -> Session | None:
        return await Logins(database, Reads(database)).session(token)

    return asyncio.run(find())


@pytest.fixture
def with_account(database: Database) -> Database:
    with database.write() as connection:
        assert accounts.create(
            connection, email="Bo@Example.com ", name="Bo", role="agent", password="right-horse"
        )
    return database


def test_passwords_are_stored_as_argon2id(with_account: Database) -> None:
    with with_account.read() as connection:
        stored = connection.execute(
            select(schema.users.c.password_hash).where(schema.users.c.name == "Bo")
        ).scalar_one()
    assert stored.startswith("$argon2id$")


def test_login_finds_the_account_whatever_the_case(with_account: Database) -> None:
    token, session = accounts.log_in(with_account, " BO@example.COM", "right-horse")
    found = find_session(with_account, token)
    assert found == session
    assert found is not None
    assert found.agent.name == "Bo"


def test_the_database_holds_no_usable_token(with_account: Database) -> None:
    token, session = accounts.log_in(with_account, "bo@example.com", "right-horse")
    with with_account.read() as connection:
        stored = connection.execute(select(schema.sessions.c.token_hash)).scalars().all()
    assert stored == [session.token_hash]
    assert token not in stored
    assert find_session(with_account, session.token_hash) is None


@pytest.mark.parametrize(
    ("email", "password"), [("bo@example.com", "wrong"), ("no@example.com", "right-horse")]
)
def test_wrong_credentials(with_account: Database, email: str, password: str) -> None:
    with pytest.raises(InvalidCredentials):
        accounts.log_in(with_account, email, password)


def test_a_disabled_account_is_out_at_once(with_account: Database) -> None:
    token, _ = accounts.log_in(with_account, "bo@example.com", "right-horse")
    with with_account.write() as connection:
        connection.execute(text("UPDATE users SET active = 0 WHERE name = 'Bo'"))
    assert find_session(with_account, token) is None
    with pytest.raises(InvalidCredentials):
        accounts.log_in(with_account, "bo@example.com", "right-horse")


def test_sessions_expire_and_are_renewed_by_use(
    with_account: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = clock.now_source()
    token, _ = accounts.log_in(with_account, "bo@example.com", "right-horse")
    for days in (8, 16, 24):
        monkeypatch.setattr(clock, "now_source", lambda days=days: start + timedelta(days=days))
        assert find_session(with_account, token) is not None
    monkeypatch.setattr(clock, "now_source", lambda: start + timedelta(days=24 + 15))
    assert find_session(with_account, token) is None


def test_a_new_password_ends_all_sessions(with_account: Database) -> None:
    token, _ = accounts.log_in(with_account, "bo@example.com", "right-horse")
    with with_account.write() as connection:
        assert accounts.set_password(connection, email="BO@example.com", password="new-horse-1")
        assert not accounts.set_password(connection, email="x@example.com", password="x" * 8)
    assert find_session(with_account, token) is None
    accounts.log_in(with_account, "bo@example.com", "new-horse-1")


def test_a_login_does_not_pass_by_a_second_factor_that_comes_meanwhile(
    with_account: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = accounts.check_password

    def check_slowly(stored: str, password: str) -> None:
        check(stored, password)
        with with_account.write() as connection:
            connection.execute(update(schema.users).values(totp_enabled_at=clock.now()))

    monkeypatch.setattr(accounts, "check_password", check_slowly)
    with pytest.raises(CodeNeeded):
        accounts.log_in(with_account, "bo@example.com", "right-horse")
    with with_account.read() as connection:
        assert connection.execute(select(schema.sessions)).all() == []


def test_a_password_that_was_replaced_meanwhile_changes_nothing(
    with_account: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, session = accounts.log_in(with_account, "bo@example.com", "right-horse")
    hash_password = accounts.hash_password

    def hash_slowly(password: str) -> str:
        monkeypatch.setattr(accounts, "hash_password", hash_password)
        with with_account.write() as connection:  # the owner, who shuts the stranger out
            accounts.set_password(connection, email="bo@example.com", password="owners-horse")
        return hash_password(password)

    monkeypatch.setattr(accounts, "hash_password", hash_slowly)
    with pytest.raises(InvalidCredentials):
        accounts.change_password(
            with_account,
            session,
            session.actor(None),
            password="right-horse",
            new_password="strangers-horse",
            browser=accounts.NOWHERE,
        )
    accounts.log_in(with_account, "bo@example.com", "owners-horse")


def test_making_things_twice_changes_nothing(with_account: Database) -> None:
    with with_account.write() as connection:
        assert not accounts.create(
            connection, email="bo@example.com", name="Other", role="admin", password="x" * 8
        )
        key, created = inboxes.create(connection, name="New shop")
        assert created
        assert inboxes.create(connection, name="New shop") == (key, False)
        assert inboxes.create(connection, name="Else", key=key) == (key, False)


def test_csrf_tokens_belong_to_one_session() -> None:
    token = accounts.csrf_token(KEY, "hash-a")
    assert accounts.csrf_matches(KEY, "hash-a", token)
    for wrong in ("", "é", token[:-1], token.upper(), accounts.csrf_token(KEY, "hash-b")):
        assert not accounts.csrf_matches(KEY, "hash-a", wrong)


def test_a_conversation_that_is_removed_meanwhile_is_left_out_of_a_visitors_sync(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows_of, gone = conversations.rows_of, schema.conversations.c.id == 1

    def after_its_removal(connection: Connection, ids: Collection[int], me: int) -> list[Any]:
        if ids:  # it was found, and is gone when it is read
            connection.execute(delete(schema.conversations).where(gone))
        return rows_of(connection, ids, me)

    monkeypatch.setattr(conversations, "rows_of", after_its_removal)
    assert sync.for_visitor(database, VisitorIdentity(1, 1), {})["new"] == []


def test_visitor_tokens_cannot_be_made_without_the_key() -> None:
    tokens = VisitorTokens(KEY)
    identity = VisitorIdentity(7, 3)
    token = tokens.make(identity)
    assert tokens.read(token) == identity
    damaged = token[:-2] + ("AA" if token[-2:] != "AA" else "BB")
    for wrong in (damaged, "", "x.y.z", VisitorTokens("o" * 40).make(identity)):
        assert tokens.read(wrong) is None


def test_visitor_tokens_grow_old_for_calls_long_before_they_do_for_resuming(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokens = VisitorTokens(KEY)
    identity = VisitorIdentity(7, 3)
    start = clock.now_source()
    token = tokens.make(identity)
    for later, calls, resumes in (
        # another node's clock may be behind
        (timedelta(seconds=-10), True, True),
        (timedelta(hours=23), True, True),
        (timedelta(hours=25), False, True),
        (timedelta(days=399), False, True),
        (timedelta(days=401), False, False),
        (timedelta(hours=-1), False, False),
    ):
        monkeypatch.setattr(clock, "now_source", lambda later=later: start + later)
        assert (tokens.read(token) is not None) is calls, later
        assert (tokens.read_to_resume(token) is not None) is resumes, later


@pytest.mark.parametrize(
    ("user_agent", "name"),
    [
        (
            "Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0",
            "Firefox 133, Linux",
        ),
        (
            "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/130.0.0.0 Safari/537.36 "
            "Edg/130.0",
            "Edge 130, Windows",
        ),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605 Version/17.0 "
            "Mobile/15E148 Safari/604.1",
            "Safari 17, iOS",
        ),
        (
            "Mozilla/5.0 (Linux; Android 14) Chrome/130.0 Mobile Safari/537.36",
            "Chrome 130, Android",
        ),
        ("curl/8", None),
        ("", None),
    ],
)
def test_browser_names(user_agent: str, name: str | None) -> None:
    assert visitors.browser_name(user_agent) == name


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://a.example/b?c=d", "https://a.example/b?c=d"),
        ("javascript:alert(1)", None),
        ("https://a.example/\x00", None),
        ("data:text/html,x", None),
        ("http://[", None),
        ("", None),
        (None, None),
    ],
)
def test_only_web_addresses_are_shown_to_staff(url: str | None, kept: str | None) -> None:
    assert visitors.web_url(url) == kept


def test_signatures_say_whose_they_are_and_are_made_as_the_public_documentation_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moment = datetime(2026, 11, 24, tzinfo=UTC)
    monkeypatch.setattr(clock, "now_source", lambda: moment)
    visitor = VisitorIdentity(7, 1)
    signed = channels.sign("a-key", "a-secret", "1234.1234", "private-foobar", visitor)
    data = {"owner": "visitor.7", "until": int(moment.timestamp()) + channels.SIGNATURE_SECONDS}
    assert json.loads(signed["channel_data"]) == data
    application = Application("1", "a-key", b"a-secret")
    assert signed["auth"] == pusher.sign_channel(
        application, "1234.1234", "private-foobar", signed["channel_data"]
    )


PROXIES = tuple(ipaddress.ip_network(n) for n in ("10.0.0.1/32", "192.168.0.0/16", "fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "1.1.1.1, 203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "203.0.113.9, 192.168.7.7", "203.0.113.9"),
        ("10.0.0.1", "192.168.1.1", "192.168.1.1"),
        ("10.0.0.1", None, "10.0.0.1"),
        ("10.0.0.1", "nonsense", "10.0.0.1"),
        ("10.0.0.1", "203.0.113.9, nonsense", "10.0.0.1"),
        ("10.0.0.2", "203.0.113.9", "10.0.0.2"),
        ("203.0.113.5", "10.0.0.1", "203.0.113.5"),
        ("fd00::1", "2001:db8::9", "2001:db8::9"),
        ("::ffff:10.0.0.1", "203.0.113.9", "203.0.113.9"),
    ],
)
def test_the_real_address_behind_trusted_proxies(
    peer: str, forwarded: str | None, client: str
) -> None:
    assert client_address(peer, forwarded, PROXIES) == client
