"""Structured logs: one line of JSON per event on stdout, with the node's name.

Nothing here ever receives a message body, a token or a password; callers log ids and counts.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import MutableMapping
from typing import Any, TextIO

import orjson
import structlog

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
# The libraries' own loggers: their warnings are kept, their chatter is not.
_QUIET = ("sanic.access", "sanic.server", "sanic.root", "alembic", "sqlalchemy", "asyncio")


def setup(*, level: str, node: str, process: str, stream: TextIO | None = None) -> None:
    """Send this process's log lines to ``stream`` (stdout) as JSON, from ``level`` upwards."""
    target = stream or sys.stdout
    threshold = _LEVELS[level]

    def add_origin(
        _logger: Any, _method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        event.setdefault("node", node)
        event.setdefault("process", process)
        return event

    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
            add_origin,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=_dumps),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=lambda *_: _Lines(target),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers = [_JsonHandler()]
    root.setLevel(max(threshold, logging.WARNING))
    for name in _QUIET:
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = True
        logger.setLevel(max(threshold, logging.WARNING))


def get(name: str) -> Any:
    """The structured logger of a part; ``name`` stands in each line as ``logger``."""
    return structlog.get_logger().bind(logger=name)


def _dumps(event: Any, **_: Any) -> str:
    return orjson.dumps(event, default=str).decode()


class _Lines:
    """Writes lines and survives a stream that takes none: a full disk or a closed pipe must not
    end the thread that had something to tell."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def msg(self, line: str) -> None:
        """Write one line in one piece."""
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            return

    log = debug = info = warning = error = critical = exception = msg


class _JsonHandler(logging.Handler):
    """Passes records of the standard library's loggers to structlog."""

    _busy = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(self._busy, "now", False):
            return
        self._busy.now = True
        try:
            log = structlog.get_logger().bind(logger=record.name)
            exception = record.exc_info if record.exc_info and record.exc_info[0] else None
            log.log(record.levelno, record.getMessage(), exc_info=exception)
        finally:
            self._busy.now = False
