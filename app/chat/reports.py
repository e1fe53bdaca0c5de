"""Reports: how many conversations, how quickly they were answered and resolved, how satisfied.

Each report reads its conversations once, in a stream, and groups them by the days and hours of a
time zone: databases know too little of zones, and SQLite nothing. Times are told as median and
90th percentile, because a few very long ones say nothing in an average.

A conversation belongs to the day on which it was opened, resolved or rated, as the figure says. One
that was reopened counts as resolved when it was resolved for good.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sqlalchemy import Connection, and_, or_, select

from app.chat.errors import Refused
from app.chat.permissions import Agent
from app.db import schema

DAYS_MAX: Final = 366
ROWS_AT_A_TIME: Final = 5000
SCORES: Final = (1, 2, 3, 4, 5)

Figure = Literal["created_at", "resolved_at", "csat_at"]

_c, _i, _u = schema.conversations, schema.inboxes, schema.users


@dataclass(frozen=True, slots=True)
class Span:
    """Whole days of a time zone, both included; and whose conversations."""

    first: date
    last: date
    zone: ZoneInfo
    inbox_id: int | None = None
    agent_id: int | None = None

    def begin(self) -> datetime:
        """The first moment, as naive UTC."""
        return self._utc(self.first)

    def end(self) -> datetime:
        """The first moment after it, as naive UTC."""
        return self._utc(self.last + timedelta(days=1))

    def days(self) -> list[date]:
        """Every day of it."""
        count = (self.last - self.first).days + 1
        return [self.first + timedelta(days=number) for number in range(count)]

    def local(self, moment: datetime) -> datetime:
        """A naive UTC moment as the clocks of the zone showed it."""
        return moment.replace(tzinfo=UTC).astimezone(self.zone)

    def _utc(self, day: date) -> datetime:
        local = datetime.combine(day, time(), self.zone)
        return local.astimezone(UTC).replace(tzinfo=None)


def span(first: date, last: date, zone: str, *, inbox_id: int | None, agent_id: int | None) -> Span:
    """A checked span. Raises :class:`Refused`."""
    if last < first:
        raise Refused("invalid_request", "The last day is before the first one.", field="to")
    if (last - first).days >= DAYS_MAX:
        raise Refused("invalid_request", f"Ask for at most {DAYS_MAX} days at a time.", field="to")
    if not date(1970, 1, 2) <= first <= last <= date(9000, 1, 1):
        raise Refused("invalid_request", "Ask for days since 1970.", field="from")
    try:
        known = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise Refused(
            "invalid_request", "Name a time zone of IANA, as Asia/Taipei.", field="tz"
        ) from None
    return Span(first, last, known, inbox_id, agent_id)


@dataclass(slots=True)
class Times:
    """Durations in seconds, eight bytes each."""

    values: array[float] = field(default_factory=lambda: array("d"))

    def add(self, begin: datetime, end: datetime) -> None:
        """Count the time between two moments."""
        self.values.append(max((end - begin).total_seconds(), 0.0))

    def told(self) -> dict[str, Any]:
        """``count``, and the median and 90th percentile in seconds; null of nothing."""
        ordered = sorted(self.values)
        return {
            "count": len(ordered),
            "median_seconds": _quantile(ordered, 0.5),
            "p90_seconds": _quantile(ordered, 0.9),
        }


def _quantile(ordered: list[float], share: float) -> float | None:
    """Linear interpolation between the closest ranks (Hyndman and Fan 1996, type 7)."""
    if not ordered:
        return None
    place = (len(ordered) - 1) * share
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return round(ordered[low] + (ordered[high] - ordered[low]) * (place - low), 3)


@dataclass(slots=True)
class Ratings:
    """How often each score was given."""

    counts: dict[int, int] = field(default_factory=lambda: dict.fromkeys(SCORES, 0))

    def add(self, score: int) -> None:
        """Count one rating."""
        self.counts[score] = self.counts.get(score, 0) + 1

    def told(self) -> dict[str, Any]:
        """``count``, ``average`` (null of nothing) and how often each score was given."""
        count = sum(self.counts.values())
        total = sum(score * number for score, number in self.counts.items())
        return {
            "count": count,
            "average": round(total / count, 3) if count else None,
            "scores": {str(score): number for score, number in self.counts.items()},
        }


def _rows(connection: Connection, agent: Agent, asked: Span, *figures: Figure) -> Iterator[Any]:
    """Conversations of which one of ``figures`` lies in the span, in a stream."""
    begin, end = asked.begin(), asked.end()
    conditions: list[Any] = [
        or_(*(and_(_c.c[figure] >= begin, _c.c[figure] < end) for figure in figures))
    ]
    if agent.inbox_ids is not None:
        conditions.append(_c.c.inbox_id.in_(sorted(agent.inbox_ids)))
    if asked.inbox_id is not None:
        conditions.append(_c.c.inbox_id == asked.inbox_id)
    if asked.agent_id is not None:
        conditions.append(_c.c.assignee_id == asked.agent_id)
    query = select(
        _c.c.inbox_id,
        _c.c.assignee_id,
        _c.c.created_at,
        _c.c.first_response_at,
        _c.c.resolved_at,
        _c.c.csat_score,
        _c.c.csat_at,
    ).where(*conditions)
    yield from connection.execute(query.execution_options(yield_per=ROWS_AT_A_TIME))


def _within(asked: Span, moment: datetime | None) -> bool:
    return moment is not None and asked.begin() <= moment < asked.end()


def volume(connection: Connection, agent: Agent, asked: Span) -> dict[str, Any]:
    """Per day how many conversations were opened and resolved."""
    opened = dict.fromkeys(asked.days(), 0)
    resolved = dict.fromkeys(asked.days(), 0)
    for row in _rows(connection, agent, asked, "created_at", "resolved_at"):
        if _within(asked, row.created_at):
            opened[asked.local(row.created_at).date()] += 1
        if _within(asked, row.resolved_at):
            resolved[asked.local(row.resolved_at).date()] += 1
    return {
        "items": [
            {"date": day.isoformat(), "opened": opened[day], "resolved": resolved[day]}
            for day in asked.days()
        ],
        "total": {"opened": sum(opened.values()), "resolved": sum(resolved.values())},
    }


def first_response(connection: Connection, agent: Agent, asked: Span) -> dict[str, Any]:
    """Per day of opening, how long visitors waited for the first answer of an agent."""
    by_day = {day: Times() for day in asked.days()}
    total = Times()
    for row in _rows(connection, agent, asked, "created_at"):
        if row.first_response_at is not None:
            for times in (by_day[asked.local(row.created_at).date()], total):
                times.add(row.created_at, row.first_response_at)
    return _by_day(by_day, total)


def resolution(connection: Connection, agent: Agent, asked: Span) -> dict[str, Any]:
    """Per day of resolution, how long conversations took from their first message."""
    by_day = {day: Times() for day in asked.days()}
    total = Times()
    for row in _rows(connection, agent, asked, "resolved_at"):
        for times in (by_day[asked.local(row.resolved_at).date()], total):
            times.add(row.created_at, row.resolved_at)
    return _by_day(by_day, total)


def csat(connection: Connection, agent: Agent, asked: Span) -> dict[str, Any]:
    """Per day of rating, which scores visitors gave."""
    by_day = {day: Ratings() for day in asked.days()}
    total = Ratings()
    for row in _rows(connection, agent, asked, "csat_at"):
        if row.csat_score is not None:
            by_day[asked.local(row.csat_at).date()].add(row.csat_score)
            total.add(row.csat_score)
    return _by_day(by_day, total)


def _by_day(by_day: Any, total: Any) -> dict[str, Any]:
    items = [{"date": day.isoformat(), **figures.told()} for day, figures in by_day.items()]
    return {"items": items, "total": total.told()}


@dataclass(slots=True)
class _Sum:
    opened: int = 0
    resolved: int = 0
    first_response: Times = field(default_factory=Times)
    resolution: Times = field(default_factory=Times)
    csat: Ratings = field(default_factory=Ratings)

    def add(self, asked: Span, row: Any) -> None:
        """Count what of a conversation lies in the span."""
        if _within(asked, row.created_at):
            self.opened += 1
            if row.first_response_at is not None:
                self.first_response.add(row.created_at, row.first_response_at)
        if _within(asked, row.resolved_at):
            self.resolved += 1
            self.resolution.add(row.created_at, row.resolved_at)
        if _within(asked, row.csat_at) and row.csat_score is not None:
            self.csat.add(row.csat_score)

    def told(self) -> dict[str, Any]:
        return {
            "opened": self.opened,
            "resolved": self.resolved,
            "first_response": self.first_response.told(),
            "resolution": self.resolution.told(),
            "csat": self.csat.told(),
        }


def agents(connection: Connection, agent: Agent, asked: Span) -> dict[str, Any]:
    """Per agent, the figures of the conversations that it holds or held last; null: nobody's."""
    people = {
        row.id: {"id": row.id, "name": row.name, "avatar_url": row.avatar_url}
        for row in connection.execute(select(_u.c.id, _u.c.name, _u.c.avatar_url))
    }
    sums = _sums(connection, agent, asked, "assignee_id")
    ordered = sorted(sums.items(), key=lambda item: (item[0] is None, _name(people, item[0])))
    return {"items": [{"agent": people.get(key), **figures.told()} for key, figures in ordered]}


def inboxes(connection: Connection, agent: Agent, asked: Span) -> dict[str, Any]:
    """Per inbox that the caller sees, the figures of its conversations."""
    places = {
        row.id: {"id": row.id, "name": row.name}
        for row in connection.execute(select(_i.c.id, _i.c.name))
        if (agent.inbox_ids is None or row.id in agent.inbox_ids)
        and asked.inbox_id in (None, row.id)
    }
    sums = _sums(connection, agent, asked, "inbox_id")
    for key in places:
        sums.setdefault(key, _Sum())
    ordered = sorted(sums.items(), key=lambda item: _name(places, item[0]))
    return {
        "items": [
            {"inbox": places[key], **figures.told()} for key, figures in ordered if key in places
        ]
    }


def _sums(connection: Connection, agent: Agent, asked: Span, column: str) -> dict[int | None, _Sum]:
    sums: dict[int | None, _Sum] = {}
    for row in _rows(connection, agent, asked, "created_at", "resolved_at", "csat_at"):
        sums.setdefault(getattr(row, column), _Sum()).add(asked, row)
    return sums


def _name(things: dict[int, dict[str, Any]], key: int | None) -> tuple[str, int]:
    if key is None or key not in things:
        return "", key or 0
    return str(things[key]["name"]).casefold(), key


def hours(connection: Connection, agent: Agent, asked: Span) -> dict[str, Any]:
    """How many conversations were opened in each hour of the week; weekday 1 is Monday."""
    counts = {(weekday, hour): 0 for weekday in range(1, 8) for hour in range(24)}
    for row in _rows(connection, agent, asked, "created_at"):
        local = asked.local(row.created_at)
        counts[local.isoweekday(), local.hour] += 1
    return {
        "items": [
            {"weekday": weekday, "hour": hour, "opened": count}
            for (weekday, hour), count in counts.items()
        ]
    }
