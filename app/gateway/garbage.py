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
# What a full collection may take, guessed from the last one and the sockets of then and now.
PAUSE_SECONDS: Final = 0.01
# A guess is not better than this many sockets.
LEAST_SOCKETS: Final = 500


class Garbage:
    """The policy of the process; ``pauses`` counts full collections, ``longest`` is in seconds."""

    def __init__(self) -> None:
        self.full_collections = 0
        self.skipped = 0
        self.longest = 0.0
        self._last = 0.0
        self._sockets = LEAST_SOCKETS
        self._seconds = 0

    def start(self) -> None:
        """Leave the oldest generation to :meth:`tick`."""
        gc.set_threshold(*YOUNG_THRESHOLDS, NEVER)

    def stop(self) -> None:
        """Back to what CPython does by itself (its documented thresholds)."""
        gc.set_threshold(700, 10, 10)

    def tick(self, sockets: int) -> None:
        """Once a second, with the number of open sockets: collect everything if it is time."""
        self._seconds += 1
        if self._seconds < FULL_INTERVAL_SECONDS:
            return
        self._seconds = 0
        expected = self._last * max(sockets, LEAST_SOCKETS) / self._sockets
        if expected > PAUSE_SECONDS:
            self.skipped += 1
            return
        started = time.perf_counter()
        gc.collect()
        self._last = time.perf_counter() - started
        self._sockets = max(sockets, LEAST_SOCKETS)
        self.longest = max(self.longest, self._last)
        self.full_collections += 1
