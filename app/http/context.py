"""What the handlers of a web process share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from app.bus import connection
from app.bus.events import Event
from app.bus.limits import TRAFFIC, AttemptLimit, Pause, RateLimits
from app.bus.nodes import Beat
from app.bus.presence import Presence
from app.bus.publisher import Publisher
from app.chat.announce import Announcer
from app.chat.arrivals import Arrivals
from app.chat.doors import Doors
from app.chat.logins import Logins
from app.chat.second_factor import SecretBox
from app.chat.visitors import VisitorTokens
from app.config import Settings
from app.db import outbox
from app.db.engines import Database
from app.db.health import PrimaryWatch
from app.db.late import LateReads
from app.db.reads import Reads
from app.db.routing import HistoryRouting
from app.db.writer import Writer
from app.http.cors import AllowedOrigins
from app.version import version

LOGIN_WINDOW_SECONDS = 15 * 60
LOGIN_ATTEMPTS_PER_ACCOUNT_AND_ADDRESS = 10
LOGIN_ATTEMPTS_PER_ADDRESS = 100
# codes of the second factor, from all addresses: whoever tries them knows the password
CODE_WINDOW_SECONDS = 60 * 60
CODE_ATTEMPTS_PER_ACCOUNT = 20
RESET_WINDOW_SECONDS = 60 * 60
RESETS_PER_ADDRESS = 30
# transcripts that visitors of one address have sent by mail
TRANSCRIPT_WINDOW_SECONDS = 60 * 60
TRANSCRIPTS_PER_ADDRESS = 20


@dataclass(slots=True)
class Context:
    """Made when the server starts, on its event loop; closed when it stops."""

    settings: Settings
    database: Database
    reads: Reads
    watch: PrimaryWatch
    logins: Logins
    routing: HistoryRouting
    late: LateReads
    beat: Beat
    redis: Redis
    publisher: Publisher
    presence: Presence
    announcer: Announcer
    arrivals: Arrivals
    writer: Writer
    visitor_tokens: VisitorTokens
    doors: Doors
    rates: RateLimits
    login_per_account: AttemptLimit
    login_per_address: AttemptLimit
    codes_per_account: AttemptLimit
    resets_per_address: AttemptLimit
    transcripts_per_address: AttemptLimit
    secret_box: SecretBox
    origins: AllowedOrigins
    draining: bool = False
    in_flight: int = 0
    # files that are being received: each may take some megabytes of memory
    uploads: int = 0

    def realtime(self) -> dict[str, Any]:
        """The options for pusher-js."""
        settings = self.settings
        return {
            "key": settings.pusher_key,
            "wsHost": settings.ws_host,
            "wsPort": settings.ws_port,
            "wssPort": settings.ws_port,
            "forceTLS": settings.ws_force_tls,
            "authEndpoint": "/broadcasting/auth",
        }

    async def close(self) -> None:
        """Store, announce and publish what waits; then close the connections."""
        await self.arrivals.close()
        await self.writer.close()
        await self.announcer.close()
        await self.publisher.close()
        await self.rates.close()
        await self.presence.close()
        await self.beat.close()
        await self.redis.aclose()
        await self.watch.close()
        self.reads.close()
        self.database.close()


def make(settings: Settings) -> Context:
    """Build the parts. To be called on the running event loop."""
    database = Database(settings)
    reads = Reads(database)
    redis = connection.connect(settings.redis_url)
    pause = Pause()

    async def keep(batch: Sequence[Event]) -> None:
        rows = [(event.channel, event.message) for event in batch]
        await database.run(outbox.keep, database, rows)

    publisher = Publisher(redis, settings.pusher_app_id, keep)
    announcer = Announcer(database, publisher)
    return Context(
        settings=settings,
        database=database,
        reads=reads,
        watch=PrimaryWatch(database),
        logins=Logins(database, reads),
        routing=HistoryRouting(reads),
        late=LateReads(database),
        beat=Beat(redis, process="web", node=settings.node, version=version()),
        redis=redis,
        publisher=publisher,
        presence=Presence(redis),
        announcer=announcer,
        arrivals=Arrivals(database, redis, settings.pusher_app_id, limit=settings.long_polls),
        writer=Writer(
            database.primary,
            on_stored=announcer.messages_stored,
            primary_away=lambda: database.primary_away,
        ),
        visitor_tokens=VisitorTokens(settings.secret_key),
        doors=Doors(database),
        rates=RateLimits(
            redis,
            {traffic: getattr(settings, f"rate_limit_{traffic}") for traffic in TRAFFIC},
            enforce=settings.rate_limits == "enforce",
        ),
        login_per_account=AttemptLimit(
            redis,
            "login-account",
            attempts=LOGIN_ATTEMPTS_PER_ACCOUNT_AND_ADDRESS,
            window_seconds=LOGIN_WINDOW_SECONDS,
            pause=pause,
        ),
        login_per_address=AttemptLimit(
            redis,
            "login-address",
            attempts=LOGIN_ATTEMPTS_PER_ADDRESS,
            window_seconds=LOGIN_WINDOW_SECONDS,
            pause=pause,
        ),
        codes_per_account=AttemptLimit(
            redis,
            "codes",
            attempts=CODE_ATTEMPTS_PER_ACCOUNT,
            window_seconds=CODE_WINDOW_SECONDS,
            pause=pause,
        ),
        resets_per_address=AttemptLimit(
            redis,
            "password-resets",
            attempts=RESETS_PER_ADDRESS,
            window_seconds=RESET_WINDOW_SECONDS,
            pause=pause,
        ),
        transcripts_per_address=AttemptLimit(
            redis,
            "transcripts",
            attempts=TRANSCRIPTS_PER_ADDRESS,
            window_seconds=TRANSCRIPT_WINDOW_SECONDS,
            pause=pause,
        ),
        secret_box=SecretBox(settings.secret_key),
        origins=AllowedOrigins(database),
    )
