"""Mail: taken by a real SMTP server on loopback, retried, given up, and its secrets removed."""

from __future__ import annotations

import datetime
import ipaddress
import os
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from redis.asyncio import Redis
from sqlalchemy import select, update

from app import clock, config, doctor, embedded
from app.bus import connection as redis_connection
from app.bus.locks import FencedLock
from app.chat import mail as queue
from app.db import schema
from app.db.engines import Database
from app.worker import jobs, smtp
from app.worker import mail as job
from app.worker.jobs import Run, Tools
from app.worker.smtp import Letter, Post
from tests.conftest import ROOT, free_port
from tests.unit.conftest import SECRETS, Stand, settings_for

SENDER = "Shop <help@shop.example>"
ACCOUNT = ("mailer@shop.example", "p:a/s s@word")


@dataclass
class Inbox:
    """What the server took; ``answers`` are given to the next recipients instead of 250."""

    messages: list[EmailMessage] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)

    async def handle_RCPT(
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: Any
    ) -> str:
        answer = self.answers.pop(0) if self.answers else "250 OK"
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, _server: SMTP, session: Session, envelope: Envelope) -> str:
        content = cast(bytes, envelope.content)
        parsed = message_from_bytes(content, policy=policy.default)
        self.messages.append(cast(EmailMessage, parsed))
        self.encrypted.append(session.ssl is not None)
        return "250 taken"


def certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate for 127.0.0.1 that signs itself, and the server's side of it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "smtp test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .sign(key, hashes.SHA256())
    )
    path = folder / "cert.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_path = folder / "key.pem"
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, key_path)
    return path, context


Serve = Callable[..., int]


@pytest.fixture
def inbox() -> Inbox:
    return Inbox()


@pytest.fixture
def serve(inbox: Inbox) -> Iterator[Serve]:
    """Starts a server on loopback; gives its port."""
    with ExitStack() as stack:

        def start(**options: Any) -> int:
            port = free_port()
            controller = Controller(inbox, hostname="127.0.0.1", port=port, **options)
            controller.start()
            stack.callback(controller.stop)
            return port

        yield start


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[Redis]:
    with embedded.private_redis(tmp_path) as url:
        client = redis_connection.connect(url)
        yield client
        await client.aclose()


class Nobody:
    def messages_stored(self, _stored: object) -> None: ...

    def conversation_changed(self, _conversation_id: int) -> None: ...


async def a_run(database: Database, redis: Redis, post: Post | None) -> Run:
    lock = FencedLock(redis, "mail", seconds=10)
    held = await lock.take(await database.run(jobs.read_fence, database, "mail"))
    assert held is not None
    return Run(Tools(database, redis, "app1", Nobody(), post), lock, held)


def post(port: int) -> Post:
    return Post(config.smtp_server(f"smtp://127.0.0.1:{port}?starttls=none"), SENDER)


def write(database: Database, **more: Any) -> int:
    letter = {"to": "ann@example.com", "subject": "Grüße 你好", "text": "Secret: https://x/?t=1\n"}
    with database.write() as opened:
        return queue.queue(opened, "test", **{**letter, **more})


def row(database: Database, mail_id: int) -> Any:
    with database.read() as opened:
        return opened.execute(
            select(schema.mails).where(schema.mails.c.id == mail_id)
        ).one_or_none()


def make_due(database: Database) -> None:
    with database.write() as opened:
        opened.execute(update(schema.mails).values(next_attempt_at=clock.now()))


async def test_a_mail_arrives_as_written_and_its_texts_are_removed(
    database: Database, redis: Redis, serve: Serve, inbox: Inbox
) -> None:
    mail_id = write(database, html="<p>Secret</p>")
    assert await job.send_mails(await a_run(database, redis, post(serve()))) == 1
    (message,) = inbox.messages
    assert message["To"] == "ann@example.com"
    assert message["From"] == SENDER
    assert message["Subject"] == "Grüße 你好"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Message-ID"].endswith("@shop.example>")
    text, html = (message.get_body([kind]) for kind in ("plain", "html"))
    assert text is not None
    assert html is not None
    assert text.get_content().rstrip() == "Secret: https://x/?t=1"
    assert html.get_content().rstrip() == "<p>Secret</p>"
    stored = row(database, mail_id)
    assert (stored.status, stored.body_text, stored.body_html) == ("sent", "", None)
    assert stored.sent_at is not None


async def test_without_a_server_mail_waits(database: Database, redis: Redis) -> None:
    mail_id = write(database)
    assert await job.send_mails(await a_run(database, redis, None)) == 0
    assert (row(database, mail_id).status, row(database, mail_id).attempts) == ("pending", 0)


async def test_a_server_that_is_away_spends_no_tries(database: Database, redis: Redis) -> None:
    mail_id = write(database)
    with pytest.raises(OSError, match="refused"):
        await job.send_mails(await a_run(database, redis, post(free_port())))
    assert (row(database, mail_id).status, row(database, mail_id).attempts) == ("pending", 0)


async def test_not_now_is_tried_again_later_and_at_most_ten_times(
    database: Database, redis: Redis, serve: Serve, inbox: Inbox
) -> None:
    mail_id = write(database)
    run = await a_run(database, redis, post(serve()))
    inbox.answers = ["451 come back later"]
    assert await job.send_mails(run) == 0
    stored = row(database, mail_id)
    assert (stored.status, stored.attempts) == ("pending", 1)
    assert stored.error == "451 come back later"
    assert stored.next_attempt_at > clock.now() + datetime.timedelta(seconds=30)
    # not due yet
    assert await job.send_mails(run) == 0
    assert row(database, mail_id).attempts == 1
    for _ in range(9):
        inbox.answers = ["451 come back later"]
        make_due(database)
        await job.send_mails(run)
    stored = row(database, mail_id)
    assert (stored.status, stored.attempts, stored.body_text) == ("failed", 10, "")
    assert inbox.messages == []


async def test_a_recipient_that_does_not_exist_is_given_up_and_harms_no_other(
    database: Database, redis: Redis, serve: Serve, inbox: Inbox
) -> None:
    wrong, right = write(database), write(database, to="bo@example.com")
    inbox.answers = ["550 no such mailbox"]
    assert await job.send_mails(await a_run(database, redis, post(serve()))) == 1
    assert (row(database, wrong).status, row(database, wrong).body_text) == ("failed", "")
    assert row(database, right).status == "sent"
    with database.read() as opened:
        assert job.counts(opened) == {"pending": 0, "sent": 1, "failed": 1}


async def test_a_line_break_cannot_smuggle_a_header_in(
    database: Database, redis: Redis, serve: Serve, inbox: Inbox
) -> None:
    mail_id = write(database, subject="Hello\r\nBcc: everybody@example.com")
    await job.send_mails(await a_run(database, redis, post(serve())))
    assert row(database, mail_id).status == "failed"
    assert inbox.messages == []


async def test_old_mail_is_given_up_and_forgotten(database: Database, redis: Redis) -> None:
    late, old, fresh = write(database), write(database), write(database)
    now = clock.now()
    with database.write() as opened:
        for mail_id, status, days in ((late, "pending", 4), (old, "sent", 31)):
            opened.execute(
                update(schema.mails)
                .where(schema.mails.c.id == mail_id)
                .values(status=status, created_at=now - datetime.timedelta(days=days))
            )
    assert await job.purge_mails(await a_run(database, redis, None)) == 2
    assert (row(database, late).status, row(database, late).body_text) == ("failed", "")
    assert row(database, old) is None
    assert row(database, fresh).status == "pending"


def a_letter() -> Letter:
    return Letter(1, "ann@example.com", "Hello", "text\n", None, clock.now())


def authenticate(
    _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, data: Any
) -> AuthResult:
    assert isinstance(data, LoginPassword)
    given = (data.login.decode(), data.password.decode())
    return AuthResult(success=given == ACCOUNT, handled=False)


def test_starttls_and_the_account_are_used(
    tmp_path: Path, serve: Serve, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted, context = certificate(tmp_path)
    port = serve(
        tls_context=context, require_starttls=True, authenticator=authenticate, auth_required=True
    )
    url = f"smtp://mailer%40shop.example:p%3Aa%2Fs%20s%40word@127.0.0.1:{port}"
    server = config.smtp_server(url)
    with pytest.raises(ssl.SSLCertVerificationError):
        smtp.connect(server)
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    client = smtp.connect(server)
    smtp.deliver(client, a_letter(), SENDER)
    smtp.hang_up(client)
    assert inbox.encrypted == [True]
    with pytest.raises(OSError, match="535"):
        smtp.connect(config.smtp_server(url.replace("p%3Aa", "wrong")))


def test_a_password_is_never_sent_to_a_server_without_tls(serve: Serve) -> None:
    port = serve()
    with pytest.raises(OSError, match="STARTTLS"):
        smtp.connect(config.smtp_server(f"smtp://u:p@127.0.0.1:{port}"))


@pytest.mark.parametrize("answers", [True, False])
def test_the_doctor_looks_at_the_mail_server(stand: Stand, serve: Serve, answers: bool) -> None:
    port = serve() if answers else free_port()
    settings = settings_for(
        stand.path,
        DESKLINE_SMTP_URL=f"smtp://127.0.0.1:{port}?starttls=none",
        DESKLINE_MAIL_FROM=SENDER,
    )
    (check,) = (found for found in doctor.examine(settings) if found.name == "mail")
    assert check.ok is answers
    assert str(port) in check.finding


def eventually(check: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 60
    while not check():
        assert time.monotonic() < give_up_at
        time.sleep(0.2)


def test_a_worker_tells_that_its_mail_server_is_away_and_sends_once_it_is_back(
    tmp_path: Path, database: Database, stand: Stand, inbox: Inbox
) -> None:
    write(database)
    mail_port, port = free_port(), free_port()
    with embedded.private_redis(tmp_path) as redis_url:
        worker = subprocess.Popen(
            [sys.executable, "-m", "app", "worker"],
            cwd=ROOT,
            env={
                **{name: value for name, value in os.environ.items() if "DESKLINE" not in name},
                **SECRETS,
                "DESKLINE_DATABASE_URL": f"sqlite:///{stand.path}",
                "DESKLINE_REDIS_URL": redis_url,
                "DESKLINE_WORKER_PORT": str(port),
                "DESKLINE_SMTP_URL": f"smtp://127.0.0.1:{mail_port}?starttls=none",
                "DESKLINE_MAIL_FROM": SENDER,
            },
            stdout=subprocess.DEVNULL,
        )

        def says(line: str) -> bool:
            try:
                answer = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=5)
            except httpx.HTTPError:
                return False
            return line in answer.text.splitlines()

        try:
            eventually(lambda: says('deskline_job_paused{job="mail"} 1.0'))
            assert says('deskline_mails{status="pending"} 1.0')
            controller = Controller(inbox, hostname="127.0.0.1", port=mail_port)
            controller.start()
            try:
                eventually(lambda: says('deskline_mails{status="sent"} 1.0'))
                eventually(lambda: says('deskline_job_paused{job="mail"} 0.0'))
            finally:
                controller.stop()
        finally:
            worker.terminate()
            worker.wait(30)
    assert len(inbox.messages) == 1
