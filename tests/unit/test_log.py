"""The log: JSON lines, also of the libraries, and never a reason to stop."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from app import log


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    yield
    logging.getLogger().handlers[:] = handlers
    logging.getLogger().setLevel(level)
    structlog.reset_defaults()


def test_lines_are_json_with_time_node_and_process() -> None:
    stream = io.StringIO()
    log.setup(level="info", node="n1", process="web", stream=stream)
    log.get("part").info("happened", conversation_id=7)
    log.get("part").debug("too quiet")
    (line,) = stream.getvalue().splitlines()
    told = json.loads(line)
    assert told["ts"].endswith("Z")
    del told["ts"]
    assert told == {
        "event": "happened",
        "conversation_id": 7,
        "level": "info",
        "logger": "part",
        "node": "n1",
        "process": "web",
    }


def test_lines_of_libraries_are_json_too() -> None:
    stream = io.StringIO()
    log.setup(level="info", node="n1", process="web", stream=stream)
    logging.getLogger("some.library").warning("careful %s", "now")
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        logging.getLogger("some.library").exception("failed")
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (first["event"], first["level"], first["logger"]) == (
        "careful now",
        "warning",
        "some.library",
    )
    assert "RuntimeError: broken" in second["exception"]


def test_a_stream_that_takes_no_lines_stops_nobody() -> None:
    stream = io.StringIO()
    log.setup(level="info", node="n1", process="web", stream=stream)
    stream.close()
    log.get("part").error("nobody hears this")
    logging.getLogger("some.library").error("nor this")
