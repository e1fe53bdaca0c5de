"""When a gateway process looks for garbage: so that no collection stops the loop for long.

CPython's oldest generation holds everything that lives, some ten objects a socket, and looking
through it takes 0.1 µs each and more: a pause that grows with the sockets. A closed socket is freed
by its reference count; cycles are rare and mostly die young. So the young generations are collected
as always, in well under a millisecond, and the oldest one only when few sockets are open.

Public source: https://docs.python.org/3/library/gc.html.
"""

from __future__ import annotations

import gc
import time
from typing import Final

YOUNG_THRESHOLDS: Final = (700, 10)
NEVER: Final = 1_000_000_000
FULL_INTERVAL_SECONDS: Final = 600
# What a full collection may take, and what it is taken to cost until one was measured.
PAUSE_SECONDS: Final = 0.01
SECONDS_PER_SOCKET: Final = 2e-6
# With fewer sockets a measurement says nothing of what one costs.
LEAST_SOCKETS: Final = 500


class Garbage:
    """The policy of the process, and what the collections took.

    ``longest`` is the longest one of any generation, in seconds of processor time.
    """

    def __init__(self) -> None:
        self.full_collections = 0
        self.skipped = 0
        self.longest = 0.0
        self._cost = SECONDS_PER_SOCKET
        self._seconds = 0
        self._started = 0.0
        self._last = 0.0

    def start(self) -> None:
        """Leave the oldest generation to :meth:`tick`, which also begins to measure: what is
        collected at the start of the process, before anybody is connected, does not count."""
        gc.set_threshold(*YOUNG_THRESHOLDS, NEVER)

    def tick(self, sockets: int) -> None:
        """Once a second, with the number of open sockets: collect everything if it is time."""
        if self._measure not in gc.callbacks:
            gc.callbacks.append(self._measure)
        self._seconds += 1
        if self._seconds < FULL_INTERVAL_SECONDS:
            return
        self._seconds = 0
        if sockets * self._cost > PAUSE_SECONDS:
            self.skipped += 1
            return
        gc.collect()
        self.full_collections += 1
        if sockets >= LEAST_SOCKETS:
            self._cost = max(SECONDS_PER_SOCKET, self._last / sockets)

    def _measure(self, phase: str, _info: dict[str, int]) -> None:
        now = time.thread_time()
        if phase == "start":
            self._started = now
        else:
            self._last = now - self._started
            self.longest = max(self.longest, self._last)
