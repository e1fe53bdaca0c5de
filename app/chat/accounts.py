"""Staff accounts: passwords (argon2id), sessions and the tokens that go with them.

The cookie holds a random token, the database its SHA-256. The CSRF token of a session is an HMAC
of that hash, so that it needs no column and no second secret.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from app import clock
from app.chat.errors import InvalidCredentials
from app.chat.permissions import Actor, Agent
from app.db import schema
from app.db.engines import Database

ROLES: Final = ("admin", "agent")
SESSION_LIFETIME: Final = timedelta(days=14)
SESSION_RENEWAL: Final = timedelta(days=7)
API_KEY_PREFIX: Final = "dk_"
API_KEY_USE_NOTED: Final = timedelta(minutes=5)
PASSWORD_MIN_CHARACTERS: Final = 8
PASSWORD_MAX_CHARACTERS: Final = 1000

# argon2id with the parameters of the OWASP password storage cheat sheet: 19 MiB, 2 passes
_hasher = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
# checked when the address is unknown, so that an unknown address takes as long as a wrong password
_NOBODY: Final = _hasher.hash(clock.token())

_users, _sessions, _keys = schema.users, schema.sessions, schema.api_keys
_members = schema.inbox_members


@dataclass(frozen=True, slots=True)
class Session:
    """A logged-in browser, or a program with an API key.

    ``token_hash`` is the key of the session's row, and empty for an API key.
    """

    agent: Agent
    token_hash: str
    api_key_id: int | None = None

    @property
    def limited_as(self) -> str:
        """Under which name the caller's requests are counted: each API key has its own."""
        if self.api_key_id is not None:
            return f"api_key:{self.api_key_id}"
        return f"agent:{self.agent.id}"

    def actor(self, address: str | None) -> Actor:
        """Who acts, for the audit log."""
        kind: Literal["agent", "api_key"] = "agent" if self.api_key_id is None else "api_key"
        return Actor(kind, self.agent.id, self.agent.name, address)


def user_wire(agent: Agent) -> dict[str, Any]:
    """The User of the API."""
    return {**agent.ref(), "email": agent.email, "role": agent.role}


def inbox_ids_text() -> Any:
    """The ids of the inboxes of an account, as text with commas between; NULL for none."""
    return (
        select(func.group_concat(_members.c.inbox_id))
        .where(_members.c.user_id == _users.c.id)
        .correlate(_users)
        .scalar_subquery()
        .label("inbox_ids")
    )


def normalized_email(email: str) -> str:
    """The form in which addresses are stored and compared."""
    return email.strip().lower()


def hash_token(token: str) -> str:
    """SHA-256 of a session token, in hex."""
    return hashlib.sha256(token.encode()).hexdigest()


def csrf_token(secret_key: str, token_hash: str) -> str:
    """The CSRF token of a session: HMAC-SHA256, in hex."""
    return hmac.new(secret_key.encode(), b"csrf:" + token_hash.encode(), "sha256").hexdigest()


def csrf_matches(secret_key: str, token_hash: str, given: str) -> bool:
    """Whether ``given`` is the CSRF token of the session; takes the same time for every answer."""
    expected = csrf_token(secret_key, token_hash)
    return hmac.compare_digest(expected.encode(), given.encode())


def log_in(database: Database, email: str, password: str) -> tuple[str, Session]:
    """Check a password and open a session; gives the token for the cookie, and the session.

    Raises :class:`InvalidCredentials`. Blocking.
    """
    address = normalized_email(email)
    with database.read() as connection:
        row = connection.execute(
            select(_users, inbox_ids_text()).where(_users.c.email == address)
        ).one_or_none()
    stored = row.password_hash if row is not None else _NOBODY
    try:
        _hasher.verify(stored, password)
    except (VerificationError, InvalidHashError):
        raise InvalidCredentials from None
    if row is None or not row.active:
        raise InvalidCredentials
    token = clock.token()
    session = Session(_agent(row), hash_token(token))
    now = clock.now()
    with database.write() as connection:
        connection.execute(
            insert(_sessions).values(
                token_hash=session.token_hash,
                user_id=row.id,
                created_at=now,
                expires_at=now + SESSION_LIFETIME,
            )
        )
        if _hasher.check_needs_rehash(stored):
            connection.execute(
                update(_users)
                .where(_users.c.id == row.id)
                .values(password_hash=_hasher.hash(password))
            )
    return token, session


def log_out(database: Database, session: Session) -> None:
    """End a session for good."""
    with database.write() as connection:
        connection.execute(delete(_sessions).where(_sessions.c.token_hash == session.token_hash))


def purge_expired(connection: Connection, limit: int) -> int:
    """Delete at most ``limit`` expired sessions; gives how many."""
    expired = (
        connection.execute(
            select(_sessions.c.token_hash)
            .where(_sessions.c.expires_at <= clock.now())
            .order_by(_sessions.c.expires_at)
            .limit(limit)
        )
        .scalars()
        .all()
    )
    if expired:
        connection.execute(delete(_sessions).where(_sessions.c.token_hash.in_(expired)))
    return len(expired)


def create(connection: Connection, *, email: str, name: str, role: str, password: str) -> bool:
    """Make an account; False, and nothing changed, when the address has one already."""
    address = normalized_email(email)
    present = connection.execute(select(_users.c.id).where(_users.c.email == address)).first()
    if present is not None:
        return False
    try:
        with connection.begin_nested():
            connection.execute(
                insert(_users).values(
                    email=address,
                    name=name,
                    role=role,
                    password_hash=_hasher.hash(password),
                    avatar_url=None,
                    active=True,
                    created_at=clock.now(),
                )
            )
    except IntegrityError:
        return False
    return True


def set_password(connection: Connection, *, email: str, password: str) -> bool:
    """Set a new password and end all sessions of the account; False when there is none."""
    found = connection.execute(
        select(_users.c.id).where(_users.c.email == normalized_email(email))
    ).scalar()
    if found is None:
        return False
    connection.execute(
        update(_users).where(_users.c.id == found).values(password_hash=_hasher.hash(password))
    )
    connection.execute(delete(_sessions).where(_sessions.c.user_id == found))
    return True


def agent_of(columns: Sequence[Any]) -> Agent:
    """The agent of the columns id, name, email, role, avatar_url, all_inboxes and
    :func:`inbox_ids_text` of an account, in this order."""
    user_id, name, email, role, avatar_url, all_inboxes, inbox_ids = columns
    seen = None
    if not all_inboxes:
        seen = frozenset(int(part) for part in (inbox_ids or "").split(",") if part)
    return Agent(user_id, name, email, role, avatar_url, seen)


def _agent(row: Any) -> Agent:
    return agent_of(
        (row.id, row.name, row.email, row.role, row.avatar_url, row.all_inboxes, row.inbox_ids)
    )
