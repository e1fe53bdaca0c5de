"""The end of a node without a stampede: its sockets are asked to reconnect at a bounded rate.

pusher-js reconnects at once after a close with 42xx. If all of a node's sockets were closed in
one moment, the other nodes would get all handshakes and the HTTP API all catching up in that
moment; so they go in random order over most of the time that a stop may take.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING, Final

from app import log
from app.gateway.pusher import Code

if TYPE_CHECKING:
    from app.gateway.node import Node

STEP_SECONDS: Final = 0.05
# Of the time for the drain: this much to ask everybody, the rest for the closing handshakes.
ASKING_SHARE: Final = 0.7
LEAST_PER_SECOND: Final = 100
# The process that runs us counts the same seconds; be done before it loses patience.
_DEADLINE_SHARE: Final = 0.95


def rate(sockets: int, seconds: float, per_second: int) -> float:
    """How many sockets a second are asked to leave.

    ``per_second`` when it is set; 0 stands for 100, or as many as it takes to have asked all
    ``sockets`` in 70 % of ``seconds``.
    """
    if per_second:
        return float(per_second)
    return max(LEAST_PER_SECOND, sockets / max(seconds * ASKING_SHARE, STEP_SECONDS))


async def drain(node: Node, seconds: float, per_second: int, random: Random) -> None:
    """Refuse upgrades, ask every socket to reconnect, wait until none is left or time is up.

    At most ``per_second`` are asked in a second (:func:`rate`), in random order and in steps of
    random length, so that several nodes that end together do not push in step. What is left after
    ``seconds`` is cut off.
    """
    loop = asyncio.get_running_loop()
    logger = log.get("gateway.drain")
    node.draining = True
    started = loop.time()
    deadline = started + seconds * _DEADLINE_SHARE
    waiting = list(node.connections)
    random.shuffle(waiting)
    total = len(waiting)
    speed = rate(total, seconds, per_second)
    logger.info("gateway draining", sockets=total, seconds=seconds, per_second=round(speed))
    if total / speed > deadline - started:
        logger.warning(
            "the drain is too slow for its time: some sockets will be cut off",
            advice="raise DESKLINE_GATEWAY_DRAIN_PER_SECOND or DESKLINE_DRAIN_SECONDS",
        )
    asked = 0
    try:
        while node.connections and loop.time() < deadline:
            due = min(total, 1 + int((loop.time() - started) * speed))
            for connection in waiting[asked:due]:
                if connection in node.connections:
                    connection.close(Code.RECONNECT, "This gateway is about to stop: reconnect")
            asked = due
            await asyncio.sleep(STEP_SECONDS * random.uniform(0.5, 1.5))
    finally:
        left = list(node.connections)
        for connection in left:
            connection.abort()
        logger.info(
            "gateway drained",
            sockets=total,
            cut_off=len(left),
            seconds=round(loop.time() - started, 1),
        )
