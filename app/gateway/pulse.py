"""How late a node is: its event loop, and an event on its way through Redis.

Both are sampled, so that a delivery pays nothing for it. A timer measures its own lateness. And
once a second the node publishes a moment to itself, on the Redis channel that it has for answers:
it comes back through Redis, the subscription and the fan-out's queue like every event, and is
measured when the events of its batch have been written to their sockets.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from app.gateway.node import Node

LAG_INTERVAL_SECONDS: Final = 0.1
# The gauge shows the worst of so long.
WORST_OF_SECONDS: Final = 60
BUCKETS_SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Histogram:
    """Counts by upper bound, as Prometheus wants them; ``total`` is the sum of what was seen."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float] = BUCKETS_SECONDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """(upper bound as text, how many were at most that), ending with +Inf."""
        names = [*(f"{bound:g}" for bound in self.bounds), "+Inf"]
        seen, rows = 0, []
        for name, count in zip(names, self.counts, strict=True):
            seen += count
            rows.append((name, float(seen)))
        return rows


class Pulse:
    """Measures a node's lateness from :meth:`start` to :meth:`stop`."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._worst: deque[float] = deque([0.0], maxlen=WORST_OF_SECONDS)
        self.lag = Histogram()
        self.latency = Histogram()

    @property
    def worst_lag(self) -> float:
        """The longest pause of the event loop in the last minute, in seconds."""
        return max(self._worst)

    def start(self) -> None:
        """Begin to measure."""
        loop = asyncio.get_running_loop()
        self._due = loop.time() + LAG_INTERVAL_SECONDS
        self._timer = loop.call_at(self._due, self._measure, loop)

    def stop(self) -> None:
        """Forget the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def tick(self) -> None:
        """Once a second: begin a new worst one, publish a moment to ourselves."""
        self._worst.append(0.0)
        if self._node.reader.is_up:
            self._node.cluster.say_to_ourselves({"moment": asyncio.get_running_loop().time()})

    def moment(self, sent: float) -> None:
        """What was published at ``sent`` has come to the fan-out, which will have written the
        other events of its batch in the next turn of the loop."""
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: self.latency.observe(max(0.0, loop.time() - sent)))

    def _measure(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        late = max(0.0, now - self._due)
        self.lag.observe(late)
        self._worst[-1] = max(self._worst[-1], late)
        self._due = now + LAG_INTERVAL_SECONDS
        self._timer = loop.call_at(self._due, self._measure, loop)
