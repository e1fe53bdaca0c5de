"""The worker process: the jobs, and a port for health and metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sanic import Request, Sanic
from sanic.response import HTTPResponse, raw

from app.bus import connection
from app.bus.events import Event
from app.bus.nodes import Beat
from app.bus.publisher import Publisher
from app.chat.announce import Announcer
from app.config import Settings
from app.db import outbox
from app.db.engines import Database
from app.version import version
from app.worker import mail
from app.worker.jobs import Runner, Tools
from app.worker.smtp import Post

App = Sanic[Any, Any]


def create_app(settings: Settings) -> App:
    """The worker as a process of its own."""
    app: App = Sanic("deskline-worker", configure_logging=False)
    app.config.update({"ACCESS_LOG": False, "FALLBACK_ERROR_FORMAT": "json", "MOTD": False})
    app.ctx = SimpleNamespace()
    attach(app, settings)
    app.ctx.worker_draining = False

    async def drain(stopping: App) -> None:
        stopping.ctx.worker_draining = True

    app.before_server_stop(drain)
    app.add_route(_healthz, "/healthz", name="healthz")
    app.add_route(_readyz, "/readyz", name="readyz")
    app.add_route(_metrics, "/metrics", name="metrics")
    return app


def attach(app: App, settings: Settings) -> None:
    """Run the jobs within the life of another Sanic application, without any route."""

    async def start(_app: App) -> None:
        database = Database(settings)
        redis = connection.connect(settings.redis_url)

        async def keep(batch: Sequence[Event]) -> None:
            rows = [(event.channel, event.message) for event in batch]
            await database.run(outbox.keep, database, rows)

        publisher = Publisher(redis, settings.pusher_app_id, keep)
        announcer = Announcer(database, publisher)
        app.ctx.worker_publisher, app.ctx.worker_announcer = publisher, announcer
        post = Post(settings.smtp, settings.mail_from) if settings.smtp else None
        app.ctx.worker_tools = Tools(
            database,
            redis,
            settings.pusher_app_id,
            announcer,
            post,
            webhook_allow_private=settings.webhook_allow_private,
            node=settings.node,
        )
        app.ctx.worker_beat = Beat(redis, process="worker", node=settings.node, version=version())
        app.ctx.worker = Runner(app.ctx.worker_tools)

    async def stop(_app: App) -> None:
        await app.ctx.worker.close()
        await app.ctx.worker_announcer.close()
        await app.ctx.worker_publisher.close()
        await app.ctx.worker_beat.close()
        await app.ctx.worker_tools.redis.aclose()
        app.ctx.worker_tools.database.close()

    app.before_server_start(start)
    app.after_server_stop(stop)


async def _healthz(_request: Request) -> HTTPResponse:
    return _json({"status": "ok"})


async def _readyz(request: Request) -> HTTPResponse:
    if request.app.ctx.worker_draining:
        return _json({"status": "draining", "checks": {}}, 503)
    database: Database = request.app.ctx.worker_tools.database
    try:
        await database.run(_waiting, database)
    except Exception:  # noqa: BLE001  whatever it is, this node cannot work now
        return _json({"status": "not_ready", "checks": {"database": "unreachable"}}, 503)
    return _json({"status": "ready", "checks": {"database": "ok"}})


async def _metrics(request: Request) -> HTTPResponse:
    database: Database = request.app.ctx.worker_tools.database
    try:
        waiting = await database.run(_waiting, database)
        mails = await database.run(_mails, database)
    except Exception:  # noqa: BLE001  metrics are most needed when something fails
        waiting, mails = None, {}
    registry = CollectorRegistry()
    registry.register(_JobCollector(request.app.ctx.worker, waiting, mails))
    return raw(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


class _JobCollector(Collector):
    def __init__(self, runner: Runner, waiting: int | None, mails: Mapping[str, int]) -> None:
        self._runner = runner
        self._waiting = waiting
        self._mails = mails

    def collect(self) -> Iterator[Metric]:
        """The current values."""
        runs = CounterMetricFamily("deskline_job_runs", "Runs that ended well", labels=["job"])
        failures = CounterMetricFamily("deskline_job_failures", "Runs that failed", labels=["job"])
        items = CounterMetricFamily("deskline_job_items", "Items handled", labels=["job"])
        last = GaugeMetricFamily(
            "deskline_job_last_success_timestamp_seconds",
            "End of the last good run",
            labels=["job"],
        )
        paused = GaugeMetricFamily(
            "deskline_job_paused",
            "1 while the last try failed, as without Redis or the database",
            labels=["job"],
        )
        for name, counted in self._runner.statistics.items():
            paused.add_metric([name], int(counted.paused))
            runs.add_metric([name], counted.runs)
            failures.add_metric([name], counted.failures)
            items.add_metric([name], counted.items)
            last.add_metric([name], counted.last_success)
        yield from (runs, failures, items, last, paused)
        if self._waiting is not None:
            yield GaugeMetricFamily(
                "deskline_outbox_rows", "Events that wait in the outbox", self._waiting
            )
        mails = GaugeMetricFamily(
            "deskline_mails",
            "Mails of the last 30 days: pending, sent, or failed (given up)",
            labels=["status"],
        )
        for status, count in self._mails.items():
            mails.add_metric([status], count)
        yield mails


def _waiting(database: Database) -> int:
    with database.read() as opened:
        return outbox.waiting(opened)


def _mails(database: Database) -> dict[str, int]:
    with database.read() as opened:
        return mail.counts(opened)


def _json(document: Any, status: int = 200) -> HTTPResponse:
    return raw(
        orjson.dumps(document),
        status=status,
        headers={"Cache-Control": "no-store"},
        content_type="application/json",
    )
