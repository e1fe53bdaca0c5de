"""Break parts of a deployment on purpose, one after another, and always mend them.

What a fault is made of is given by the caller: on the local cluster commands over ssh
(tests/chaos), in the ledger's own tests signals to local processes. Each step is written into a
file of marks, which the ledger shows in its plot.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# The ledger writes this phase into the marks when its cast has come in and begins to talk.
TALKING: Final = "talking"
# Written here when everything has happened; the ledger can be told to talk until then.
OVER: Final = "over"
# Written when what was broken works again.
WELL_AGAIN: Final = "all well again"
RECOVERY_SECONDS: Final = 90.0
LOOK_EVERY_SECONDS: Final = 0.5
RESUME_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Fault:
    """Something that breaks.

    ``strike`` breaks it and raises when it could not; ``mend`` brings it back and may be called
    although nothing is broken; ``healthy`` tells whether all is well. ``outage_seconds`` lie
    between ``strike`` and ``mend``.
    """

    name: str
    strike: Callable[[], None]
    mend: Callable[[], None]
    healthy: Callable[[], bool]
    outage_seconds: float = 0.0


class Marks:
    """The file of marks: a line of JSON for each thing that happened."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, what: str, **more: str) -> None:
        """Write down that something happens now."""
        with self._path.open("a", encoding="utf-8") as out:
            out.write(json.dumps({"t": round(time.time(), 3), "what": what, **more}) + "\n")

    def phase_began(self, phase: str) -> float | None:
        """When (time.time()) a phase of the ledger began; None when it has not yet."""
        if not self._path.exists():
            return None
        for line in self._path.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("\n"):  # else somebody is writing it just now
                entry = json.loads(line)
                if entry.get("phase") == phase:
                    return float(entry["t"])
        return None


def wait_for_talk(marks: Marks, *, seconds: float, alive: Callable[[], bool]) -> float:
    """Wait until the ledger's cast talks; gives when it began.

    Raises RuntimeError when that does not happen in time, or ``alive`` says that the ledger ended.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (began := marks.phase_began(TALKING)) is not None:
            return began
        if not alive():
            raise RuntimeError("the ledger ended before anybody talked: see its output above")
        time.sleep(LOOK_EVERY_SECONDS)
    raise RuntimeError(f"the ledger's cast did not begin to talk within {seconds:.0f} s")


def run(faults: Sequence[Fault], marks: Marks, *, began: float, seconds: float) -> list[str]:
    """Let the faults happen one by one, spread evenly over ``seconds`` from ``began``.

    The next one waits until the one before is mended. Gives a sentence for each thing that did not
    go as it should; afterwards everything is mended, whatever happened.
    """
    troubles: list[str] = []
    struck: list[Fault] = []
    try:
        for number, fault in enumerate(faults, 1):
            due = began + seconds * number / (len(faults) + 1)
            time.sleep(max(0.0, due - time.time()))
            marks.add(fault.name)
            struck.append(fault)
            troubles += _one(fault, marks)
    finally:
        for fault in struck:
            troubles += _mend(fault)
        marks.add("the faults are over", phase=OVER)
    return troubles


def _one(fault: Fault, marks: Marks) -> list[str]:
    try:
        fault.strike()
    except Exception as error:  # noqa: BLE001  the others must happen, and all be mended
        return [f"{fault.name}: could not be done: {error}"]
    time.sleep(fault.outage_seconds)
    troubles = _mend(fault)
    deadline = time.monotonic() + RECOVERY_SECONDS
    while time.monotonic() < deadline:
        if _is_healthy(fault):
            marks.add(WELL_AGAIN)
            # what reconnects by itself gets a moment before the next blow
            time.sleep(RESUME_SECONDS)
            return troubles
        time.sleep(LOOK_EVERY_SECONDS)
    return [*troubles, f"{fault.name}: not well again after {RECOVERY_SECONDS:.0f} s"]


def _mend(fault: Fault) -> list[str]:
    try:
        fault.mend()
    except Exception as error:  # noqa: BLE001  the others must be mended too
        return [f"{fault.name}: could not be mended: {error}"]
    return []


def _is_healthy(fault: Fault) -> bool:
    try:
        return fault.healthy()
    except Exception:  # noqa: BLE001  what cannot be asked is not well
        return False
