"""The second factor and sessions by the clock, on a database without a server."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pyotp
import pytest
from sqlalchemy import insert, select, update
from structlog.testing import capture_logs

from app import clock
from app.chat import accounts, api_keys, letters, links, second_factor
from app.chat.accounts import Browser, Session
from app.chat.errors import InvalidCode, Refused
from app.chat.links import Site
from app.chat.logins import Logins
from app.chat.permissions import Actor
from app.chat.second_factor import SecretBox
from app.db import schema
from app.db.engines import Database
from app.db.reads import Reads

BOX = SecretBox("k" * 40)
# RFC 6238, appendix B: SHA-1, the key of 20 bytes, the last six digits
RFC_SECRET = base64.b32encode(b"12345678901234567890").decode()
RFC_CODES = [
    (59, "287082"),
    (1111111109, "081804"),
    (1111111111, "050471"),
    (1234567890, "005924"),
    (2000000000, "279037"),
    (20000000000, "353130"),
]
USER_ID = 1


def set_clock(monkeypatch: pytest.MonkeyPatch, moment: datetime) -> None:
    monkeypatch.setattr(clock, "now_source", lambda: moment)


def row(database: Database) -> Any:
    with database.read() as connection:
        return connection.execute(select(schema.users).where(schema.users.c.id == USER_ID)).one()


def with_secret(database: Database, secret: str = RFC_SECRET) -> None:
    with database.write() as connection:
        connection.execute(
            update(schema.users)
            .where(schema.users.c.id == USER_ID)
            .values(totp_secret=BOX.close(secret), totp_last_step=None)
        )


def use(database: Database, code: str, box: SecretBox = BOX) -> None:
    with database.write() as connection:
        second_factor.use(connection, box, row(database), code)


@pytest.mark.parametrize(("seconds", "code"), RFC_CODES)
def test_the_codes_are_those_of_the_rfc(
    database: Database, monkeypatch: pytest.MonkeyPatch, seconds: int, code: str
) -> None:
    with_secret(database)
    set_clock(monkeypatch, datetime.fromtimestamp(seconds, UTC))
    use(database, f" {code[:3]} {code[3:]} ")
    with pytest.raises(InvalidCode):
        use(database, code)


@pytest.mark.parametrize(("off", "good"), [(-61, False), (-30, True), (30, True), (61, False)])
def test_a_clock_may_be_off_by_one_step(
    database: Database, monkeypatch: pytest.MonkeyPatch, off: int, good: bool
) -> None:
    with_secret(database)
    moment = datetime(2026, 11, 24, 8, 0, 15, tzinfo=UTC)
    set_clock(monkeypatch, moment)
    code = pyotp.TOTP(RFC_SECRET).at(moment + timedelta(seconds=off))
    if good:
        use(database, code)
    else:
        with pytest.raises(InvalidCode):
            use(database, code)


def test_after_a_later_code_an_earlier_one_is_used_up(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_secret(database)
    moment = datetime(2026, 11, 24, 8, 0, 15, tzinfo=UTC)
    set_clock(monkeypatch, moment)
    totp = pyotp.TOTP(RFC_SECRET)
    use(database, totp.at(moment))
    with pytest.raises(InvalidCode):
        use(database, totp.at(moment - timedelta(seconds=30)))


def test_the_secret_is_not_in_the_database_and_needs_the_secret_key(database: Database) -> None:
    with database.write() as connection:
        secret, url = second_factor.start(connection, BOX, USER_ID, "ann@example.com")
    stored = row(database).totp_secret
    assert secret not in stored
    assert len(stored) <= 255
    assert BOX.open(stored) == secret
    assert SecretBox("o" * 40).open(stored) is None
    assert BOX.open(stored[:-4] + "AAAA") is None
    assert pyotp.parse_uri(url).name == "ann@example.com"


def test_with_another_secret_key_only_recovery_codes_work(database: Database) -> None:
    with_secret(database)
    with database.write() as connection:
        codes = second_factor.new_recovery_codes(connection, USER_ID)
    with capture_logs() as lines, pytest.raises(InvalidCode):
        use(database, pyotp.TOTP(RFC_SECRET).now(), SecretBox("o" * 40))
    assert "DESKLINE_SECRET_KEY" in str(lines)
    use(database, codes[0], SecretBox("o" * 40))


def test_recovery_codes_are_stored_as_hashes(database: Database) -> None:
    with database.write() as connection:
        codes = second_factor.new_recovery_codes(connection, USER_ID)
    stored = row(database).recovery_codes
    assert all(code not in stored and code.replace("-", "") not in stored for code in codes)
    plain = codes[0].replace("-", "")
    assert hashlib.sha256(plain.encode()).hexdigest() in stored
    for wrong in ("", "x", codes[0][:-1], "é" * 6):
        with pytest.raises(InvalidCode):
            use(database, wrong)
    assert second_factor.codes_left(row(database)) == 10


# --- sessions by the clock --------------------------------------------------------------------


def test_one_that_is_in_force_is_not_taken_away_by_beginning_anew(database: Database) -> None:
    with_secret(database)
    app = pyotp.TOTP(RFC_SECRET)
    with database.write() as connection:
        second_factor.confirm(connection, BOX, row(database), app.now())
    with database.write() as connection, pytest.raises(Refused):
        second_factor.start(connection, BOX, USER_ID, "ann@example.com")
    assert row(database).totp_enabled_at is not None
    assert BOX.open(row(database).totp_secret) == RFC_SECRET


def test_a_code_confirms_the_secret_that_it_belongs_to(database: Database) -> None:
    with_secret(database)
    read_before = row(database)
    with database.write() as connection:  # another tab begins
        second_factor.start(connection, BOX, USER_ID, "ann@example.com")
    with database.write() as connection, pytest.raises(InvalidCode):
        second_factor.confirm(connection, BOX, read_before, pyotp.TOTP(RFC_SECRET).now())
    assert row(database).totp_enabled_at is None


def find(database: Database, token: str, browser: Browser = accounts.NOWHERE) -> Session | None:
    async def look() -> Session | None:
        return await Logins(database, Reads(database)).session(token, browser)

    return asyncio.run(look())


def opened(database: Database) -> str:
    with database.write() as connection:
        return accounts.open_session(connection, USER_ID, Browser("192.0.2.1", "Old"))[0]


def test_a_session_ends_after_its_longest_time_however_much_it_is_used(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
    set_clock(monkeypatch, start)
    token = opened(database)
    for days in range(10, 90, 10):
        set_clock(monkeypatch, start + timedelta(days=days))
        assert find(database, token) is not None, days
    set_clock(monkeypatch, start + timedelta(days=89, hours=23))
    assert find(database, token) is not None
    set_clock(monkeypatch, start + timedelta(days=90, seconds=1))
    assert find(database, token) is None


def test_use_is_noted_at_most_every_five_minutes(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
    set_clock(monkeypatch, start)
    token = opened(database)

    def noted() -> Any:
        with database.read() as connection:
            return connection.execute(select(schema.sessions)).one()

    new = Browser("192.0.2.9", "New" + "x" * 400)
    set_clock(monkeypatch, start + timedelta(minutes=4))
    assert find(database, token, new) is not None
    assert (noted().address, noted().user_agent) == ("192.0.2.1", "Old")
    set_clock(monkeypatch, start + timedelta(minutes=6))
    assert find(database, token, new) is not None
    assert (noted().address, len(noted().user_agent)) == ("192.0.2.9", 300)
    assert noted().last_seen_at == datetime(2026, 11, 24, 8, 6)


def test_the_oldest_sessions_make_room(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "SESSIONS_PER_ACCOUNT", 3)
    start = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
    tokens = []
    for minutes in range(5):
        set_clock(monkeypatch, start + timedelta(minutes=minutes))
        tokens.append(opened(database))
    assert [find(database, token) is not None for token in tokens] == [False] * 2 + [True] * 3


def test_an_api_key_ends_in_time(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    start = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
    set_clock(monkeypatch, start)
    actor = Actor("agent", USER_ID, "Ann")
    key = api_keys.create(database, actor, name="robot", user_id=USER_ID, days=2)["key"]

    def valid() -> bool:
        async def look() -> Session | None:
            return await Logins(database, Reads(database)).api_key(key)

        return asyncio.run(look()) is not None

    set_clock(monkeypatch, start + timedelta(days=1, hours=23))
    assert valid()
    set_clock(monkeypatch, start + timedelta(days=2, seconds=1))
    assert not valid()


def test_links_that_are_too_old_are_worth_nothing_and_are_purged(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = datetime(2026, 11, 24, 8, 0, tzinfo=UTC)
    set_clock(monkeypatch, start)
    links.request_reset(database, Site("https://chat.example"), " ANN@example.com")
    with database.read() as connection:
        text = connection.execute(select(schema.mails.c.body_text)).scalar_one()
    token = text.partition("#reset=")[2].split()[0]
    set_clock(monkeypatch, start + timedelta(hours=2, seconds=1))
    with pytest.raises(Refused, match="link_invalid"):
        links.choose_password(database, "reset", token, "a-new-password", None)
    with database.write() as connection:
        assert accounts.purge_tokens(connection, 10) == 1
        assert accounts.purge_tokens(connection, 10) == 0


def test_a_disabled_account_gets_no_link(database: Database) -> None:
    with database.write() as connection:
        connection.execute(update(schema.users).values(active=False))
    links.request_reset(database, Site("https://chat.example"), "ann@example.com")
    with database.read() as connection:
        assert connection.execute(select(schema.mails)).first() is None


@pytest.mark.parametrize("kind", ["invitation", "reset"])
def test_letters_say_the_same_in_both_languages(kind: letters.Kind) -> None:
    values = {"name": "N-安", "inviter": "I-李", "site": "S", "link": "L-link", "hours": 71}
    made = [
        letters.write(kind, language, **values)  # type: ignore[arg-type]
        for language in ("en", "zh-Hant-TW")
    ]
    for subject, text in made:
        assert "{" not in subject + text
        assert "\n" not in subject
        for value in ("N-安", "L-link", "71", "S"):
            assert value in text
        assert ("I-李" in text) == (kind == "invitation")


def test_an_account_without_a_password_takes_as_long_to_refuse(database: Database) -> None:
    """Neither the hash that stands for none nor a damaged one lets anybody in."""
    with database.write() as connection:
        connection.execute(
            insert(schema.users).values(
                id=2,
                email="bo@example.com",
                name="Bo",
                role="agent",
                password_hash=accounts.NO_PASSWORD,
                active=True,
                created_at=clock.now(),
            )
        )
    for password in ("", "x", "password123"):
        with pytest.raises(accounts.InvalidCredentials):
            accounts.log_in(database, "bo@example.com", password)
