"""What Prometheus reads of a node. The node counts in plain integers; nothing here is hot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from app.gateway.node import Node

PREFIX: Final = "deskline_gateway_"


class NodeCollector(Collector):
    """Reads a node's counters when Prometheus asks."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def collect(self) -> Iterator[Metric]:
        """The metrics, all named ``deskline_gateway_…``."""
        node = self._node
        for name, meaning, value in (
            ("connections", "Open sockets, handshakes included.", len(node.connections)),
            ("channels", "Channels with at least one socket of this node.", len(node.channels)),
            ("subscriptions", "Sockets in channels, once in each.", node.channels.subscriptions),
            ("presence_channels", "Presence channels of this node.", len(node.presence)),
            (
                "loop_lag_worst_seconds",
                "The longest pause of the event loop in the last minute.",
                node.pulse.worst_lag,
            ),
            ("redis_up", "1 while the Redis subscription is connected.", int(node.reader.is_up)),
            ("draining", "1 while the node asks its sockets to leave.", int(node.draining)),
            ("capacity", "Sockets that this node takes.", node.capacity),
        ):
            yield GaugeMetricFamily(PREFIX + name, meaning, value)
        for name, meaning, value in (
            ("established", "Pusher connections established.", node.established_count),
            ("closed", "Sockets that ended.", node.closed_count),
            ("messages_received", "Text messages from clients.", node.messages),
            ("client_events", "Events of clients for others.", node.client_events),
            ("commands_failed", "Commands that Redis did not carry out.", node.commands.failed),
            ("events", "Events from Redis.", node.fanout.events),
            ("deliveries", "Events given to sockets.", node.fanout.deliveries),
            ("writes", "Writes to sockets that delivered events.", node.fanout.writes),
            (
                "coalesced_writes",
                "Deliveries that shared a write with another one.",
                node.fanout.deliveries - node.fanout.writes,
            ),
            ("sent_bytes", "Bytes of delivered events, with their frames.", node.fanout.bytes),
            ("members_added", "Users told as come to a presence channel.", node.presence.joins),
            ("members_removed", "Users told as gone from one.", node.presence.leaves),
            ("dead_gateways", "Other gateways found dead.", node.presence.reaped_nodes),
            ("failed_commands", "Commands that Redis did not carry out.", node.commands.failed),
            ("malformed_events", "Events without the separator line.", node.fanout.malformed),
            ("slow_readers", "Sockets cut off for reading too slowly.", node.slow_readers),
            ("redis_reconnects", "Times Redis was reached again.", node.reader.reconnects),
            ("resyncs", "deskline:resync messages sent.", node.resyncs),
        ):
            yield CounterMetricFamily(PREFIX + name, meaning, value)
        refusals = CounterMetricFamily(
            PREFIX + "refusals", "Connections refused or failed, by code.", labels=["code"]
        )
        for code, count in sorted(node.refusals.items()):
            refusals.add_metric([str(code)], count)
        yield refusals
        for name, meaning, histogram in (
            ("loop_lag", "How late the event loop ran a timer.", node.pulse.lag),
            (
                "publish_to_write",
                "From a publish to the write to the sockets, sampled once a second.",
                node.pulse.latency,
            ),
        ):
            yield HistogramMetricFamily(
                f"{PREFIX}{name}_seconds",
                meaning,
                buckets=histogram.buckets(),
                sum_value=histogram.total,
            )
        garbage = node.garbage
        if garbage is not None:
            yield GaugeMetricFamily(
                PREFIX + "longest_collection_seconds",
                "The longest garbage collection since the start, in processor time.",
                garbage.longest,
            )
            yield CounterMetricFamily(
                PREFIX + "full_collections",
                "Garbage collections of everything.",
                garbage.full_collections,
            )
            yield CounterMetricFamily(
                PREFIX + "skipped_collections",
                "Those that would have stopped the loop too long.",
                garbage.skipped,
            )
