"""Metrics of a web process in the Prometheus format."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.http.context import Context

_BUCKETS_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class RequestMetrics:
    """Counts requests by route, never by address, so that the number of series stays bounded."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "deskline_http_requests",
            "HTTP requests answered",
            ["method", "route", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "deskline_http_request_seconds",
            "Time from the head of the request to its answer",
            ["route"],
            buckets=_BUCKETS_SECONDS,
            registry=registry,
        )
        # finding a series by its labels takes longer than counting
        self._series: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        key = (method, route, status)
        series = self._series.get(key)
        if series is None:
            series = (
                self._requests.labels(method, route, str(status)),
                self._seconds.labels(route),
            )
            self._series[key] = series
        series[0].inc()
        series[1].observe(seconds)


class ContextCollector(Collector):
    """Reads what the writer, the publisher and the routing counted."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def collect(self) -> Iterator[Metric]:
        """The current values."""
        context = self._context
        writer, publisher = context.writer.statistics, context.publisher.statistics
        yield _counter("deskline_messages_stored", "Messages stored", writer.rows)
        yield _counter("deskline_messages_repeated", "Repeats answered", writer.repeats)
        yield _counter("deskline_messages_rejected", "Messages refused", writer.rejected)
        yield _counter("deskline_messages_failed", "Messages not stored", writer.failed)
        yield _counter(
            "deskline_messages_late", "Messages whose senders were told to try again", writer.late
        )
        yield _counter("deskline_writer_batches", "Group commits", writer.batches)
        yield _counter("deskline_writer_retries", "Batches tried again", writer.retries)
        yield _counter(
            "deskline_writer_commit_seconds", "Time spent in group commits", writer.commit_seconds
        )
        yield GaugeMetricFamily(
            "deskline_writer_queue", "Messages that wait for a commit", context.writer.queued
        )
        yield _counter("deskline_events_published", "Events given to Redis", publisher.published)
        yield _counter("deskline_events_kept", "Events put into the outbox", publisher.kept)
        yield _counter("deskline_events_lost", "Events lost", publisher.lost)
        yield _counter("deskline_publish_failures", "Publishing that failed", publisher.failures)
        yield _counter(
            "deskline_announce_failures",
            "Changes of conversations that were not announced",
            context.announcer.failures,
        )
        yield _counter(
            "deskline_presence_failures",
            "Times that Redis did not take who is present",
            context.presence.failures,
        )
        yield GaugeMetricFamily(
            "deskline_events_queue", "Events that wait to be published", context.publisher.queued
        )
        yield GaugeMetricFamily(
            "deskline_long_polls", "Requests that wait for messages", context.arrivals.waiting
        )
        yield _counter(
            "deskline_long_poll_looks",
            "Statements that looked for what is waited for",
            context.arrivals.looks,
        )
        reads = CounterMetricFamily(
            "deskline_history_reads",
            "Reads of history by where they went and why",
            labels=["target", "why"],
        )
        for (target, why), count in list(context.routing.reads.items()):
            reads.add_metric([target, why], count)
        yield reads
        late = CounterMetricFamily(
            "deskline_late_reads",
            "Reads of search and reports by where they went and why",
            labels=["target", "why"],
        )
        for (target, why), count in list(context.late.reads.items()):
            late.add_metric([target, why], count)
        yield late
        refused = CounterMetricFamily(
            "deskline_rate_limited",
            "Requests over a rate limit, by kind of traffic and what was counted",
            labels=["traffic", "scope"],
        )
        for (traffic, scope), count in list(context.rates.statistics.refused.items()):
            refused.add_metric([traffic, scope], count)
        yield refused
        yield _counter(
            "deskline_rate_limit_exchange_failures",
            "Times that Redis did not take or give the counts of the rate limits",
            context.rates.statistics.failures,
        )
        yield _counter(
            "deskline_login_replica_reads",
            "Look-ups of sessions and API keys on the replica, because the primary is away",
            context.logins.replica_reads,
        )
        yield GaugeMetricFamily(
            "deskline_primary_away",
            "1 while the primary does not answer",
            int(context.database.primary_away),
        )
        yield GaugeMetricFamily(
            "deskline_draining", "1 while the process drains", int(context.draining)
        )


def _counter(name: str, meaning: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(name, meaning, value)
