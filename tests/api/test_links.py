"""Invitations and forgotten passwords: a server with mail, whose mails the tests read."""

from __future__ import annotations

import re
import sqlite3
import time
import uuid
from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any, cast

import httpx
import pyotp
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.api.conftest import PASSWORD, Agent, assert_problem
from tests.conftest import Deskline, embedded_deskline, free_port

WAIT_SECONDS = 20.0


class Mailbox:
    """What the mail server took."""

    def __init__(self) -> None:
        self.messages: list[EmailMessage] = []

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:
        content = cast(bytes, envelope.content)
        self.messages.append(cast(EmailMessage, message_from_bytes(content, policy=policy.default)))
        return "250 taken"

    def to(self, address: str, number: int = 1) -> EmailMessage:
        """The ``number``-th mail to an address; waits for it."""
        give_up_at = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < give_up_at:
            found = [message for message in self.messages if message["To"] == address]
            if len(found) >= number:
                return found[number - 1]
            time.sleep(0.05)
        pytest.fail(f"mail {number} to {address} did not arrive")

    def token(self, address: str, number: int = 1) -> str:
        """What stands behind the = of the link in that mail."""
        body = self.to(address, number).get_body(["plain"])
        assert body is not None
        link = re.search(r"/login#(?:invitation|reset)=([A-Za-z0-9_\-]{43})", body.get_content())
        assert link is not None, body.get_content()
        return link[1]


@pytest.fixture(scope="module")
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture(scope="module")
def posting(mailbox: Mailbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deskline]:
    """A Deskline that hands its mail to the mailbox."""
    port = free_port()
    controller = Controller(mailbox, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        with embedded_deskline(
            tmp_path_factory.mktemp("posting"),
            SMTP_URL=f"smtp://127.0.0.1:{port}?starttls=none",
            MAIL_FROM="Shop <help@shop.example>",
        ) as running:
            yield running
    finally:
        controller.stop()


@pytest.fixture(scope="module")
def admin(posting: Deskline) -> Iterator[Agent]:
    logged_in = Agent(posting, posting.email)
    yield logged_in
    logged_in.http.close()


def an_address() -> str:
    return f"staff-{uuid.uuid4()}@example.com"


def call(deskline: Deskline, path: str, body: Any) -> httpx.Response:
    return httpx.post(f"{deskline.url}/api/v1{path}", json=body, timeout=20)


def log_in(deskline: Deskline, email: str, password: str, **more: Any) -> httpx.Response:
    return call(deskline, "/auth/login", {"email": email, "password": password, **more})


def invited(admin: Agent, email: str, **more: Any) -> int:
    answer = admin.post("/users", {"email": email, "name": "Bo", **more})
    assert answer.status_code == 201, answer.text
    assert answer.json()["invited"] is True
    return int(answer.json()["id"])


def test_an_invitation_lets_its_owner_choose_a_password_once(
    posting: Deskline, admin: Agent, mailbox: Mailbox
) -> None:
    email = an_address()
    user_id = invited(admin, email)
    mail = mailbox.to(email)
    assert mail["From"] == "Shop <help@shop.example>"
    assert admin.user["name"] in mail["Subject"]
    # no password logs in before one was chosen
    for guess in ("", "x", PASSWORD):
        answer = log_in(posting, email, guess or " ")
        assert_problem(answer, 401, "invalid_credentials")
    body = {"token": mailbox.token(email), "password": PASSWORD}
    accepted = call(posting, "/auth/invitation/accept", body)
    assert accepted.status_code == 200, accepted.text
    assert accepted.json() == {"email": email}
    assert log_in(posting, email, PASSWORD).status_code == 200
    assert admin.get(f"/users/{user_id}").json()["invited"] is False
    again = call(posting, "/auth/invitation/accept", {**body, "password": "somebody-elses"})
    assert_problem(again, 410, "link_invalid")
    assert_problem(log_in(posting, email, "somebody-elses"), 401, "invalid_credentials")
    assert_problem(admin.post(f"/users/{user_id}/invite"), 409, "conflict")


def test_invitations_are_written_in_chinese_as_well(admin: Agent, mailbox: Mailbox) -> None:
    email = an_address()
    invited(admin, email, language="zh-Hant-TW")
    body = mailbox.to(email).get_body(["plain"])
    assert body is not None
    assert "請由此設定密碼" in body.get_content()
    assert mailbox.token(email)


def test_a_new_invitation_replaces_the_old_one(
    posting: Deskline, admin: Agent, mailbox: Mailbox
) -> None:
    email = an_address()
    user_id = invited(admin, email)
    old = mailbox.token(email)
    assert admin.post(f"/users/{user_id}/invite", {"language": "en"}).status_code == 204
    new = mailbox.token(email, 2)
    wrong = call(posting, "/auth/invitation/accept", {"token": old, "password": PASSWORD})
    assert_problem(wrong, 410, "link_invalid")
    right = call(posting, "/auth/invitation/accept", {"token": new, "password": PASSWORD})
    assert right.status_code == 200
    assert_problem(admin.post("/users/0/invite"), 404, "not_found")


def test_the_invitation_of_a_deactivated_account_is_worth_nothing(
    posting: Deskline, admin: Agent, mailbox: Mailbox
) -> None:
    email = an_address()
    user_id = invited(admin, email)
    token = mailbox.token(email)
    admin.patch(f"/users/{user_id}", {"active": False})
    body = {"token": token, "password": PASSWORD}
    assert_problem(call(posting, "/auth/invitation/accept", body), 410, "link_invalid")
    assert_problem(admin.post(f"/users/{user_id}/invite"), 409, "conflict")


def an_account(admin: Agent) -> str:
    email = an_address()
    body = {"email": email, "name": "Cy", "password": PASSWORD}
    assert admin.post("/users", body).status_code == 201
    return email


def test_a_forgotten_password_is_replaced_by_way_of_a_mail(
    posting: Deskline, admin: Agent, mailbox: Mailbox
) -> None:
    email = an_account(admin)
    cookie = log_in(posting, email, PASSWORD).cookies["deskline_session"]
    assert call(posting, "/auth/password-reset", {"email": email.upper()}).status_code == 204
    body = {"token": mailbox.token(email), "password": "a-second-password"}
    # the link of one purpose is not good for another
    assert_problem(call(posting, "/auth/invitation/accept", body), 410, "link_invalid")
    done = call(posting, "/auth/password-reset/confirm", body)
    assert done.json() == {"email": email}
    assert_problem(log_in(posting, email, PASSWORD), 401, "invalid_credentials")
    assert log_in(posting, email, "a-second-password").status_code == 200
    old = httpx.get(f"{posting.url}/api/v1/me", cookies={"deskline_session": cookie})
    assert_problem(old, 401, "not_authenticated")
    assert_problem(call(posting, "/auth/password-reset/confirm", body), 410, "link_invalid")


def test_a_new_password_does_not_turn_the_second_factor_off(
    posting: Deskline, admin: Agent, mailbox: Mailbox
) -> None:
    email = an_account(admin)
    person = Agent(Deskline(posting.url, posting.ws_url, password=PASSWORD), email)
    app = pyotp.TOTP(person.post("/me/totp", {"password": PASSWORD}).json()["secret"])
    code = app.at(int(time.time()) - 30)
    assert person.post("/me/totp/confirm", {"code": code}).status_code == 200
    call(posting, "/auth/password-reset", {"email": email})
    body = {"token": mailbox.token(email), "password": "a-second-password"}
    assert call(posting, "/auth/password-reset/confirm", body).status_code == 200
    assert_problem(log_in(posting, email, "a-second-password"), 401, "totp_required")
    assert log_in(posting, email, "a-second-password", code=app.now()).status_code == 200


def test_known_and_unknown_addresses_are_answered_alike(posting: Deskline, admin: Agent) -> None:
    answers, seconds = [], []
    for email in (an_account(admin), an_address()):
        started = time.monotonic()
        answers.append(call(posting, "/auth/password-reset", {"email": email}))
        seconds.append(time.monotonic() - started)
    known, unknown = answers
    assert (known.status_code, known.content) == (unknown.status_code, unknown.content)
    for told in answers:
        # what differs by nature
        for name in ("x-request-id", "date"):
            told.headers.pop(name, None)
    assert known.headers == unknown.headers
    assert min(seconds) >= 0.25


def test_nobody_fills_the_mailbox_of_another(
    posting: Deskline, admin: Agent, mailbox: Mailbox
) -> None:
    email = an_account(admin)
    for _ in range(4):
        assert call(posting, "/auth/password-reset", {"email": email}).status_code == 204
    mailbox.to(email)
    probe = an_account(admin)
    call(posting, "/auth/password-reset", {"email": probe})
    mailbox.to(probe)
    assert len([message for message in mailbox.messages if message["To"] == email]) == 1


def test_tokens_are_stored_as_hashes_and_mails_forgotten(
    posting: Deskline, admin: Agent, mailbox: Mailbox
) -> None:
    email = an_account(admin)
    call(posting, "/auth/password-reset", {"email": email})
    token = mailbox.token(email)
    assert posting.data_dir is not None
    path = posting.data_dir / "deskline.db"
    give_up_at = time.monotonic() + WAIT_SECONDS
    while True:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
            (status, text) = database.execute(
                "SELECT status, body_text FROM mails WHERE to_address = ?", (email,)
            ).fetchone()
            dump = "\n".join(str(row) for row in database.execute("SELECT * FROM user_tokens"))
        if status == "sent" or time.monotonic() > give_up_at:
            break
        time.sleep(0.1)
    assert (status, text) == ("sent", "")
    assert token not in dump


def test_old_links_do_not_work(posting: Deskline, admin: Agent, mailbox: Mailbox) -> None:
    email = an_account(admin)
    call(posting, "/auth/password-reset", {"email": email})
    token = mailbox.token(email)
    assert posting.data_dir is not None
    with sqlite3.connect(posting.data_dir / "deskline.db", timeout=10) as database:
        database.execute("UPDATE user_tokens SET expires_at = '2020-01-01 00:00:00.000000'")
    body = {"token": token, "password": "a-second-password"}
    assert_problem(call(posting, "/auth/password-reset/confirm", body), 410, "link_invalid")
    assert log_in(posting, email, PASSWORD).status_code == 200


@pytest.mark.parametrize("token", ["", "x" * 201, "forged", "é\x00"])
def test_forged_tokens(posting: Deskline, token: str) -> None:
    for path in ("/auth/password-reset/confirm", "/auth/invitation/accept"):
        answer = call(posting, path, {"token": token, "password": PASSWORD})
        if 1 <= len(token) <= 200:
            assert_problem(answer, 410, "link_invalid")
        else:
            assert_problem(answer, 422, "invalid_request")


def test_the_log_holds_no_token(posting: Deskline, admin: Agent, mailbox: Mailbox) -> None:
    email = an_address()
    invited(admin, email)
    token = mailbox.token(email)
    call(posting, "/auth/invitation/accept", {"token": token, "password": PASSWORD})
    assert posting.data_dir is not None
    said = (posting.data_dir / "deskline.log").read_text(encoding="utf-8")
    assert "/api/v1/auth/invitation/accept" in said
    assert token not in said
    assert PASSWORD not in said


def test_without_mail_a_forgotten_password_is_the_admins_to_set(deskline: Deskline) -> None:
    answer = call(deskline, "/auth/password-reset", {"email": an_address()})
    if answer.status_code == 204:
        pytest.skip("this deployment can send mail")
    assert_problem(answer, 409, "mail_not_configured")
