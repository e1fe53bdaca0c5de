"""Who comes into a cache channel between its events, without Redis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from app.gateway.cache import Newcomer
from app.gateway.frames import text_frame


class Socket:
    """Only its id is needed."""

    socket_id = "1.2"
    writer: Any = None


class Scene:
    def __init__(self) -> None:
        self.asked: list[Callable[[Any], None]] = []
        self.told: list[bytes | None] = []
        self.newcomer = Newcomer(Socket(), self.asked.append, self.told.append)


def test_redis_is_asked_once_the_events_flow() -> None:
    scene = Scene()
    assert scene.asked == []
    scene.newcomer.subscribed("cache-a")
    assert len(scene.asked) == 1
    assert scene.newcomer.socket_id == "1.2"


@pytest.mark.parametrize(
    ("reply", "told"),
    [(b"last", text_frame(b"last")), (None, None), (OSError("away"), None)],
)
def test_the_client_gets_the_last_event_or_learns_that_there_is_none(
    reply: object, told: bytes | None
) -> None:
    scene = Scene()
    scene.newcomer.subscribed("cache-a")
    scene.asked[0](reply)
    assert scene.told == [told]


@pytest.mark.parametrize("reply", [b"old", None])
def test_an_event_that_came_meanwhile_is_the_newer_one(reply: bytes | None) -> None:
    scene = Scene()
    scene.newcomer.subscribed("cache-a")
    scene.newcomer.writer.write(b"live 1")
    scene.newcomer.writer.write(b"live 2")
    scene.asked[0](reply)
    assert scene.told == [b"live 2"]


def test_who_has_left_is_told_nothing() -> None:
    scene = Scene()
    scene.newcomer.subscribed("cache-a")
    scene.newcomer.cancel()
    scene.asked[0](b"last")
    assert scene.told == []
