"""Handing mail to an SMTP server (RFC 5321), over TLS unless the settings say otherwise."""

from __future__ import annotations

import smtplib
import ssl
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from typing import Final

from app.config import SmtpServer

TIMEOUT_SECONDS: Final = 10.0
REASON_MAX_CHARACTERS: Final = 300


@dataclass(frozen=True, slots=True)
class Post:
    """The server that takes our mail, and whom it is from."""

    server: SmtpServer
    sender: str


@dataclass(frozen=True, slots=True)
class Letter:
    """One mail; ``mail_id`` and ``created_at`` (UTC) make its Message-ID, the same at every try."""

    mail_id: int
    to: str
    subject: str
    text: str
    html: str | None
    created_at: datetime


class Undeliverable(Exception):
    """This mail was not taken; ``for_good`` says that another try would not help."""

    def __init__(self, reason: str, *, for_good: bool) -> None:
        super().__init__(reason)
        self.reason = reason[:REASON_MAX_CHARACTERS]
        self.for_good = for_good


def compose(letter: Letter, sender: str) -> EmailMessage:
    """The message (RFC 5322). Raises ValueError when a header would hold a line break."""
    domain = parseaddr(sender)[1].rpartition("@")[2]
    made = letter.created_at.replace(tzinfo=UTC)
    message = EmailMessage()
    message["From"] = sender
    message["To"] = letter.to
    message["Subject"] = letter.subject
    message["Date"] = format_datetime(made)
    message["Message-ID"] = f"<{made:%Y%m%d%H%M%S%f}.{letter.mail_id}@{domain}>"
    # so that absence notes are not answered to us (RFC 3834)
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(letter.text)
    if letter.html is not None:
        message.add_alternative(letter.html, subtype="html")
    return message


def connect(server: SmtpServer) -> smtplib.SMTP:
    """A connection that is ready for mail, to be ended with :func:`hang_up`. Blocking.

    Raises OSError (smtplib's errors and TLS errors are OSErrors) when the server is not there, is
    not who it says it is, has no TLS although it should, or refuses the account.
    """
    context = ssl.create_default_context()
    client: smtplib.SMTP
    if server.tls == "implicit":
        client = smtplib.SMTP_SSL(
            server.host, server.port, timeout=TIMEOUT_SECONDS, context=context
        )
    else:
        client = smtplib.SMTP(server.host, server.port, timeout=TIMEOUT_SECONDS)
    try:
        client.ehlo_or_helo_if_needed()
        if server.tls == "required" or (server.tls == "optional" and client.has_extn("starttls")):
            client.starttls(context=context)
            client.ehlo()
        if server.user:
            client.login(server.user, server.password)
    except BaseException:
        client.close()
        raise
    return client


def hang_up(client: smtplib.SMTP) -> None:
    """End a connection, whatever state it is in. Blocking."""
    with suppress(OSError):
        client.quit()


def deliver(client: smtplib.SMTP, letter: Letter, sender: str) -> None:
    """Hand one mail over. Raises :class:`Undeliverable`. Blocking."""
    try:
        client.send_message(compose(letter, sender))
    except ValueError:
        raise Undeliverable("a header holds what it may not hold", for_good=True) from None
    except smtplib.SMTPNotSupportedError as error:
        raise Undeliverable(str(error), for_good=True) from None
    except smtplib.SMTPRecipientsRefused as error:
        code, said = next(iter(error.recipients.values()))
        raise Undeliverable(_reply(code, said), for_good=code >= 500) from None
    except smtplib.SMTPDataError as error:
        raise Undeliverable(
            _reply(error.smtp_code, error.smtp_error), for_good=error.smtp_code >= 500
        ) from None
    except smtplib.SMTPResponseException as error:
        # the sender was refused, or a command: the settings are wrong, not this mail
        raise Undeliverable(_reply(error.smtp_code, error.smtp_error), for_good=False) from None
    except OSError as error:
        raise Undeliverable(f"{type(error).__name__}: {error}", for_good=False) from None


def reason(error: OSError) -> str:
    """Why there is no connection, in a few words; never the password."""
    if isinstance(error, smtplib.SMTPResponseException):
        return _reply(error.smtp_code, error.smtp_error)
    return f"{type(error).__name__}: {error}"


def _reply(code: int, said: bytes | str) -> str:
    text = said.decode(errors="replace") if isinstance(said, bytes) else said
    return f"{code} {' '.join(text.split())}"
