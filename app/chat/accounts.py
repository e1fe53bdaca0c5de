"""Staff accounts: passwords (argon2id), sessions and the tokens that go with them.

The cookie holds a random token, the database its SHA-256. The CSRF token of a session is an HMAC
of that hash, so that it needs no column and no second secret.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from app import clock
from app.chat import access, audit, second_factor
from app.chat.errors import CodeNeeded, InvalidCode, InvalidCredentials, NotFound
from app.chat.permissions import Actor, Agent
from app.chat.second_factor import SecretBox
from app.db import schema
from app.db.engines import Database

ROLES: Final = ("admin", "agent")
# a session ends when it was not used for so long, and at the latest so long after the login
SESSION_IDLE: Final = timedelta(days=14)
SESSION_LIFETIME: Final = timedelta(days=90)
SESSION_USE_NOTED: Final = timedelta(minutes=5)
SESSIONS_PER_ACCOUNT: Final = 500
API_KEY_PREFIX: Final = "dk_"
API_KEY_USE_NOTED: Final = timedelta(minutes=5)
PASSWORD_MIN_CHARACTERS: Final = 8
PASSWORD_MAX_CHARACTERS: Final = 1000
# the hash of an account that was invited and has no password yet
NO_PASSWORD: Final = ""

# argon2id with the parameters of the OWASP password storage cheat sheet: 19 MiB, 2 passes
_hasher = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
# checked when the address is unknown, so that an unknown address takes as long as a wrong password
_NOBODY: Final = _hasher.hash(clock.token())

_users, _sessions, _keys = schema.users, schema.sessions, schema.api_keys
_members = schema.inbox_members


@dataclass(frozen=True, slots=True)
class Browser:
    """What a session notes of where it is used."""

    address: str | None = None
    user_agent: str | None = None

    def columns(self) -> dict[str, Any]:
        """The columns of ``sessions``."""
        return {
            "address": self.address[:45] if self.address else None,
            "user_agent": _printable(self.user_agent)[:300] if self.user_agent else None,
        }


NOWHERE: Final = Browser()


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


def _printable(header: str) -> str:
    """A header's text without what no database stores: control characters, broken UTF-8."""
    text = header.encode(errors="surrogateescape").decode(errors="replace")
    return "".join(character for character in text if character.isprintable())


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
    """SHA-256 of a token, in hex. A header may hold bytes that are no UTF-8."""
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()


def csrf_token(secret_key: str, token_hash: str) -> str:
    """The CSRF token of a session: HMAC-SHA256, in hex."""
    return hmac.new(secret_key.encode(), b"csrf:" + token_hash.encode(), "sha256").hexdigest()


def csrf_matches(secret_key: str, token_hash: str, given: str) -> bool:
    """Whether ``given`` is the CSRF token of the session; takes the same time for every answer."""
    expected = csrf_token(secret_key, token_hash)
    return hmac.compare_digest(expected.encode(), given.encode(errors="surrogateescape"))


def check_password(stored: str, password: str) -> None:
    """Raise :class:`InvalidCredentials` unless the password is that of the stored hash.

    Takes as long for an account without a password.
    """
    try:
        _hasher.verify(stored or _NOBODY, password)
    except (VerificationError, InvalidHashError):
        raise InvalidCredentials from None


def hash_password(password: str) -> str:
    """The argon2id hash of a password. Takes some 20 ms."""
    return _hasher.hash(password)


def log_in(
    database: Database,
    email: str,
    password: str,
    *,
    box: SecretBox | None = None,
    code: str | None = None,
    browser: Browser = NOWHERE,
    replaces: str | None = None,
    count_code: Callable[[], None] | None = None,
) -> tuple[str, Session]:
    """Check a password and, where there is one, the second factor; open a session.

    Gives the token for the cookie, and the session. ``box`` opens the secrets of second factors.
    ``replaces`` is the token that the browser came with: its session ends, so that nobody can
    foist a session of his own on it. ``count_code`` is called before a code is checked, and never
    for a wrong password; what it raises ends the login. Raises :class:`InvalidCredentials`, and
    only for the right password :class:`CodeNeeded` or :class:`InvalidCode`. Blocking.
    """
    address = normalized_email(email)
    with database.read() as connection:
        row = connection.execute(
            select(_users, inbox_ids_text()).where(_users.c.email == address)
        ).one_or_none()
    check_password(row.password_hash if row is not None else NO_PASSWORD, password)
    if row is None or not row.active:
        raise InvalidCredentials
    if row.totp_enabled_at is not None and not code:
        raise CodeNeeded
    if row.totp_enabled_at is not None and count_code is not None:
        count_code()
    with database.write() as connection:
        # locked: whoever deactivates the account or changes its password ends this session as well
        still = connection.execute(
            select(_users.c.active, _users.c.password_hash, _users.c.totp_enabled_at)
            .where(_users.c.id == row.id)
            .with_for_update()
        ).one()
        if not still.active or still.password_hash != row.password_hash:
            raise InvalidCredentials
        if still.totp_enabled_at is not None and row.totp_enabled_at is None:
            raise CodeNeeded
        if row.totp_enabled_at is not None:
            if box is None:
                raise InvalidCode
            second_factor.use(connection, box, row, code or "")
        if replaces:
            connection.execute(
                delete(_sessions).where(_sessions.c.token_hash == hash_token(replaces))
            )
        token, token_hash = open_session(connection, row.id, browser)
        if _hasher.check_needs_rehash(row.password_hash):
            connection.execute(
                update(_users)
                .where(_users.c.id == row.id)
                .values(password_hash=hash_password(password))
            )
    return token, Session(_agent(row), token_hash)


def open_session(connection: Connection, user_id: int, browser: Browser) -> tuple[str, str]:
    """Open a session; gives its token and the token's hash.

    The oldest sessions beyond :data:`SESSIONS_PER_ACCOUNT` end.
    """
    token = clock.token()
    now = clock.now()
    connection.execute(
        insert(_sessions).values(
            token_hash=hash_token(token),
            user_id=user_id,
            created_at=now,
            expires_at=now + SESSION_IDLE,
            last_seen_at=now,
            **browser.columns(),
        )
    )
    surplus = (
        connection.execute(
            select(_sessions.c.token_hash)
            .where(_sessions.c.user_id == user_id)
            .order_by(_sessions.c.created_at.desc(), _sessions.c.token_hash)
            .offset(SESSIONS_PER_ACCOUNT)
            .limit(SESSIONS_PER_ACCOUNT)
        )
        .scalars()
        .all()
    )
    if surplus:
        connection.execute(delete(_sessions).where(_sessions.c.token_hash.in_(surplus)))
    return token, hash_token(token)


def end_sessions(connection: Connection, user_id: int, *, but: str | None = None) -> int:
    """End all sessions of an account, but the one with the token hash ``but``; gives how many.

    Its WebSockets close; those of a session that stays come back at once."""
    ended = delete(_sessions).where(_sessions.c.user_id == user_id)
    if but is not None:
        ended = ended.where(_sessions.c.token_hash != but)
    access.changed(connection, [access.user_owner(user_id)])
    return int(connection.execute(ended).rowcount)


def rotate(connection: Connection, session: Session, browser: Browser) -> tuple[str, Session]:
    """End every session of the account and open a new one for the caller: after a change of the
    password or of the second factor, nobody else stays logged in. Gives token and session."""
    end_sessions(connection, session.agent.id)
    token, token_hash = open_session(connection, session.agent.id, browser)
    return token, Session(session.agent, token_hash)


def session_id(token_hash: str) -> str:
    """The public id of a session, from which its token hash cannot be told."""
    return hashlib.sha256(b"session:" + token_hash.encode()).hexdigest()[:32]


def sessions_of(database: Database, session: Session) -> list[dict[str, Any]]:
    """The sessions of the caller's account, last used first. Blocking."""
    with database.read() as connection:
        rows = connection.execute(
            select(_sessions)
            .where(_sessions.c.user_id == session.agent.id, _sessions.c.expires_at > clock.now())
            .order_by(_sessions.c.last_seen_at.desc(), _sessions.c.created_at.desc())
            .limit(SESSIONS_PER_ACCOUNT)
        ).all()
    return [
        {
            "id": session_id(row.token_hash),
            "current": hmac.compare_digest(row.token_hash, session.token_hash),
            "address": row.address,
            "user_agent": row.user_agent,
            "created_at": clock.wire(row.created_at),
            "last_seen_at": clock.wire(row.last_seen_at or row.created_at),
            "expires_at": clock.wire(row.expires_at),
        }
        for row in rows
    ]


def end_session(database: Database, session: Session, public_id: str) -> None:
    """End one of the caller's sessions. Raises :class:`NotFound`. Blocking."""
    with database.write() as connection:
        hashes = connection.execute(
            select(_sessions.c.token_hash).where(_sessions.c.user_id == session.agent.id)
        ).scalars()
        found = [
            one
            for one in hashes
            if hmac.compare_digest(session_id(one).encode(), public_id.encode())
        ]
        if not found:
            raise NotFound
        connection.execute(delete(_sessions).where(_sessions.c.token_hash.in_(found)))
        access.changed(connection, [access.user_owner(session.agent.id)])


def end_other_sessions(database: Database, session: Session) -> None:
    """End every session of the caller's account but the one that asks. Blocking."""
    with database.write() as connection:
        end_sessions(connection, session.agent.id, but=session.token_hash)


def change_password(
    database: Database,
    session: Session,
    actor: Actor,
    *,
    password: str,
    new_password: str,
    browser: Browser,
) -> tuple[str, Session]:
    """Set the own password; every session ends and a new one begins. Gives token and session.

    Raises :class:`InvalidCredentials` when ``password`` is not the present one. Blocking.
    """
    checked = verify_own(database, session, password).password_hash
    hashed = hash_password(new_password)
    with database.write() as connection:
        changed = connection.execute(
            update(_users)
            # the one that was checked: its owner may have chosen another one by mail meanwhile
            .where(_users.c.id == session.agent.id, _users.c.password_hash == checked)
            .values(password_hash=hashed)
        )
        if changed.rowcount != 1:
            raise InvalidCredentials
        connection.execute(
            delete(schema.user_tokens).where(schema.user_tokens.c.user_id == session.agent.id)
        )
        audit.record(connection, actor, "user.password_changed", "user", object_id=session.agent.id)
        return rotate(connection, session, browser)


def verify_own(database: Database, session: Session, password: str) -> Any:
    """Check the caller's own password again; gives the row of the account.

    Raises :class:`InvalidCredentials`. Blocking.
    """
    with database.read() as connection:
        row = own_row(connection, session)
    check_password(row.password_hash, password)
    return row


def own_row(connection: Connection, session: Session) -> Any:
    """The row of the caller's account."""
    return connection.execute(select(_users).where(_users.c.id == session.agent.id)).one()


def log_out(database: Database, session: Session) -> None:
    """End a session for good."""
    with database.write() as connection:
        connection.execute(delete(_sessions).where(_sessions.c.token_hash == session.token_hash))
        access.changed(connection, [access.user_owner(session.agent.id)])


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


def purge_tokens(connection: Connection, limit: int) -> int:
    """Delete at most ``limit`` links of mails that are too old; gives how many."""
    tokens = schema.user_tokens
    expired = (
        connection.execute(
            select(tokens.c.token_hash)
            .where(tokens.c.expires_at <= clock.now())
            .order_by(tokens.c.expires_at)
            .limit(limit)
        )
        .scalars()
        .all()
    )
    if expired:
        connection.execute(delete(tokens).where(tokens.c.token_hash.in_(expired)))
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
                    password_hash=hash_password(password),
                    avatar_url=None,
                    active=True,
                    created_at=clock.now(),
                )
            )
    except IntegrityError:
        return False
    return True


def set_password(connection: Connection, *, email: str, password: str) -> bool:
    """Set a new password and end all sessions and links of the account; False when there is
    none."""
    found = connection.execute(
        select(_users.c.id).where(_users.c.email == normalized_email(email))
    ).scalar()
    if found is None:
        return False
    connection.execute(
        update(_users).where(_users.c.id == found).values(password_hash=hash_password(password))
    )
    end_sessions(connection, found)
    connection.execute(delete(schema.user_tokens).where(schema.user_tokens.c.user_id == found))
    return True


def reset_second_factor(connection: Connection, *, email: str) -> bool:
    """Turn the second factor of an account off and end its sessions; False when there is none."""
    found = connection.execute(
        select(_users.c.id).where(_users.c.email == normalized_email(email))
    ).scalar()
    if found is None:
        return False
    second_factor.disable(connection, found)
    end_sessions(connection, found)
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
