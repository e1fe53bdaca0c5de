"""Who calls: the session of a cookie or the account of an API key, found on the event loop.

Both are read from the primary for every request, so that what was revoked is refused at once. Only
while the primary is away they are read from the replica, where a revocation of the last moments may
be missing; such a caller can read, but every write needs the primary (docs/adr/0003).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

from sqlalchemy import Select, select, update

from app import clock, log
from app.chat import accounts
from app.chat.accounts import (
    API_KEY_USE_NOTED,
    NOWHERE,
    SESSION_IDLE,
    SESSION_LIFETIME,
    SESSION_USE_NOTED,
    Browser,
    Session,
)
from app.db import engines, schema
from app.db.engines import Database, Unavailable
from app.db.hot import HotStatement, as_moment
from app.db.lookup import GroupLookup
from app.db.reads import Reads

K = TypeVar("K")

# of each of primary and replica, or of the primary alone: with the wait for a commit less than 2 s
LOOKUP_SECONDS: Final = 0.8
LOOKUP_ALONE_SECONDS: Final = 1.8

_users, _sessions, _keys = schema.users, schema.sessions, schema.api_keys

_AGENT_COLUMNS: Final = (
    _users.c.id,
    _users.c.name,
    _users.c.email,
    _users.c.role,
    _users.c.avatar_url,
    _users.c.all_inboxes,
    accounts.inbox_ids_text(),
)
_SESSION: Final[Select[Any]] = (
    select(
        _sessions.c.token_hash,
        _sessions.c.expires_at,
        _sessions.c.created_at,
        _sessions.c.last_seen_at,
        *_AGENT_COLUMNS,
    )
    .join(_users, _users.c.id == _sessions.c.user_id)
    .where(_users.c.active)
)
_API_KEY: Final[Select[Any]] = (
    select(_keys.c.key_hash, _keys.c.expires_at, _keys.c.id, _keys.c.last_used_at, *_AGENT_COLUMNS)
    .join(_users, _users.c.id == _keys.c.user_id)
    .where(_users.c.active, _keys.c.revoked_at.is_(None))
)


class Logins:
    """Finds sessions and API keys. Used on one event loop."""

    def __init__(self, database: Database, reads: Reads) -> None:
        self.replica_reads = 0
        self._database = database
        self._reads = reads
        self._sessions = GroupLookup(_SESSION, _sessions.c.token_hash, self._fetch)
        self._api_keys = GroupLookup(_API_KEY, _keys.c.key_hash, self._fetch)

    async def session(self, token: str, browser: Browser = NOWHERE) -> Session | None:
        """The session of a cookie's token, unless it is unknown, expired or of a disabled account.

        Use renews it, up to its absolute end; that and ``browser`` are noted at most once per
        :data:`SESSION_USE_NOTED`. Raises :class:`Unavailable`.
        """
        token_hash = accounts.hash_token(token)
        row = await self._sessions.find(token_hash)
        if row is None:
            return None
        _, expires, created, last_seen, *agent = row
        now, expires_at, last_seen_at = clock.now(), as_moment(expires), as_moment(last_seen)
        last_moment = (as_moment(created) or now) + SESSION_LIFETIME
        if expires_at is None or min(expires_at, last_moment) <= now:
            return None
        if last_seen_at is None or now - last_seen_at > SESSION_USE_NOTED:
            seen = {
                "last_seen_at": now,
                "expires_at": min(now + SESSION_IDLE, last_moment),
                **browser.columns(),
            }
            await self._note(_seen, token_hash, seen)
        return Session(accounts.agent_of(agent), token_hash)

    async def api_key(self, key: str) -> Session | None:
        """The account of an API key, unless the key is unknown, revoked, expired or its account
        disabled.

        The use is noted at most once per :data:`API_KEY_USE_NOTED`. Raises :class:`Unavailable`.
        """
        row = await self._api_keys.find(accounts.hash_token(key))
        if row is None:
            return None
        _, expires, key_id, last_used, *agent = row
        now, expires_at, last_used_at = clock.now(), as_moment(expires), as_moment(last_used)
        if expires_at is not None and expires_at <= now:
            return None
        if last_used_at is None or now - last_used_at > API_KEY_USE_NOTED:
            await self._note(_seen_key, key_id, {"last_used_at": now})
        return Session(accounts.agent_of(agent), "", key_id)

    async def _fetch(self, statement: HotStatement, parameters: Mapping[str, Any]) -> Sequence[Any]:
        replica = self._reads.replica
        if replica is None:
            return await self._reads.primary.rows(
                statement, parameters, seconds=LOOKUP_ALONE_SECONDS
            )
        if not self._database.primary_away:
            with suppress(Unavailable):
                return await self._reads.primary.rows(statement, parameters, seconds=LOOKUP_SECONDS)
        self.replica_reads += 1
        return await replica.rows(statement, parameters, seconds=LOOKUP_SECONDS)

    async def _note(
        self,
        note: Callable[[Database, K, Mapping[str, Any]], None],
        key: K,
        values: Mapping[str, Any],
    ) -> None:
        """Write down a use; a request does not fail because that must wait for the next one."""
        if self._database.primary_away:
            return
        try:
            await self._database.run(note, self._database, key, values)
        except Unavailable as error:
            log.get("logins").warning("use not noted", reason=engines.reason(error))


def _seen(database: Database, token_hash: str, values: Mapping[str, Any]) -> None:
    with database.write() as connection:
        connection.execute(
            update(_sessions).where(_sessions.c.token_hash == token_hash).values(**values)
        )


def _seen_key(database: Database, key_id: int, values: Mapping[str, Any]) -> None:
    with database.write() as connection:
        connection.execute(update(_keys).where(_keys.c.id == key_id).values(**values))
