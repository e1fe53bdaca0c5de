"""Links in mails that let somebody choose a password: invitations and forgotten passwords.

The mail holds a random token, the database its SHA-256. A token works once and for a limited time;
a newer one of the same purpose replaces it. It stands behind the # of the link, which browsers do
not send, so that it reaches no log and no Referer header.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal

from sqlalchemy import Connection, delete, insert, select, update

from app import clock
from app.chat import accounts, audit, letters, mail
from app.chat.errors import Refused
from app.chat.letters import Language
from app.chat.permissions import Actor
from app.db import schema
from app.db.engines import Database

Purpose = Literal["invite", "reset"]

LIFETIMES: Final[dict[Purpose, timedelta]] = {
    "invite": timedelta(hours=72),
    "reset": timedelta(hours=2),
}
# so that nobody can fill somebody else's mailbox
RESET_PAUSE: Final = timedelta(minutes=5)

_users, _tokens = schema.users, schema.user_tokens


@dataclass(frozen=True, slots=True)
class Site:
    """What the mails name: where Deskline is, and the language to write in."""

    public_url: str
    language: Language = "en"


def invite(connection: Connection, site: Site, inviter: Actor, user: Any) -> None:
    """Queue the mail that lets the account ``user`` (a row) choose its first password."""
    token = _make(connection, user.id, "invite")
    subject, text = letters.write(
        "invitation",
        site.language,
        name=user.name,
        inviter=inviter.name,
        site=site.public_url,
        link=f"{site.public_url}/login#invitation={token}",
        hours=_hours("invite"),
    )
    mail.queue(connection, "invitation", to=user.email, subject=subject, text=text)


def request_reset(database: Database, site: Site, email: str) -> None:
    """Queue a mail with a link for a new password, when the address has an account in use.

    Says nothing about whether it has. At most one mail in :data:`RESET_PAUSE`. Blocking.
    """
    with database.write() as connection:
        user = connection.execute(
            select(_users)
            .where(_users.c.email == accounts.normalized_email(email), _users.c.active)
            .with_for_update()
        ).one_or_none()
        if user is None:
            return
        newest = connection.execute(
            select(_tokens.c.created_at).where(
                _tokens.c.user_id == user.id,
                _tokens.c.purpose == "reset",
                _tokens.c.created_at > clock.now() - RESET_PAUSE,
            )
        ).first()
        if newest is not None:
            return
        token = _make(connection, user.id, "reset")
        subject, text = letters.write(
            "reset",
            site.language,
            name=user.name,
            inviter="",
            site=site.public_url,
            link=f"{site.public_url}/login#reset={token}",
            hours=_hours("reset"),
        )
        mail.queue(connection, "password-reset", to=user.email, subject=subject, text=text)


def choose_password(
    database: Database, purpose: Purpose, token: str, password: str, address: str | None
) -> str:
    """Spend a link: set the password of its account and end all of its sessions.

    Gives the account's e-mail address. The second factor stays as it is. Raises :class:`Refused`
    when the link was used, is too old, or its account is disabled. Blocking.
    """
    token_hash = accounts.hash_token(token)
    with database.read() as connection:
        user = _user_of(connection, purpose, token_hash)
    if user is None:
        raise _invalid()
    # outside of the transaction: it takes a while
    hashed = accounts.hash_password(password)
    with database.write() as connection:
        spent = connection.execute(
            delete(_tokens).where(
                _tokens.c.token_hash == token_hash,
                _tokens.c.purpose == purpose,
                _tokens.c.expires_at > clock.now(),
            )
        )
        if spent.rowcount != 1:
            raise _invalid()
        connection.execute(
            update(_users).where(_users.c.id == user.id).values(password_hash=hashed)
        )
        connection.execute(delete(_tokens).where(_tokens.c.user_id == user.id))
        accounts.end_sessions(connection, user.id)
        audit.record(
            connection,
            Actor("agent", user.id, user.name, address),
            "user.invitation_accepted" if purpose == "invite" else "user.password_reset",
            "user",
            object_id=user.id,
        )
    return str(user.email)


def _user_of(connection: Connection, purpose: Purpose, token_hash: str) -> Any:
    return connection.execute(
        select(_users)
        .join(_tokens, _tokens.c.user_id == _users.c.id)
        .where(
            _tokens.c.token_hash == token_hash,
            _tokens.c.purpose == purpose,
            _tokens.c.expires_at > clock.now(),
            _users.c.active,
        )
    ).one_or_none()


def _make(connection: Connection, user_id: int, purpose: Purpose) -> str:
    token, now = clock.token(), clock.now()
    connection.execute(
        delete(_tokens).where(_tokens.c.user_id == user_id, _tokens.c.purpose == purpose)
    )
    connection.execute(
        insert(_tokens).values(
            token_hash=accounts.hash_token(token),
            user_id=user_id,
            purpose=purpose,
            created_at=now,
            expires_at=now + LIFETIMES[purpose],
        )
    )
    return token


def _hours(purpose: Purpose) -> int:
    return int(LIFETIMES[purpose].total_seconds() // 3600)


def _invalid() -> Refused:
    return Refused(
        "link_invalid",
        "It was used already, is too old or was replaced by a newer one: ask for a new link.",
    )
