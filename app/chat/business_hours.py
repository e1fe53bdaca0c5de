"""Business hours: when a team answers, in its own time zone, with holidays.

Times are wall clock times of the zone. When the clocks change, an opening or closing time that does
not exist that day counts as the moment of the change; of one that exists twice, the first is the
opening and the last the closing, so that the team is open all through it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import orjson
from pydantic import AfterValidator, BaseModel, Field, TypeAdapter
from sqlalchemy import Connection, delete, func, insert, select, update

from app import clock
from app.chat import audit
from app.chat.errors import NotFound, Refused
from app.chat.permissions import Actor
from app.chat.text import OneLine
from app.db import schema
from app.db.engines import Database

HOURS_MAX: Final = 200
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_MINUTES_PER_DAY: Final = 24 * 60
# how far ahead an opening is looked for: a yearly season and its holidays
_LOOK_AHEAD_DAYS: Final = 400

# --- what is given -----------------------------------------------------------------------------


def _minutes(text: str) -> int:
    return int(text[:2]) * 60 + int(text[3:])


def _some_time(interval: tuple[str, str]) -> tuple[str, str]:
    if interval[0] == interval[1]:
        raise ValueError("should end at another time than it starts; 00:00 to 24:00 is all day")
    return interval


def _apart(intervals: list[tuple[str, str]]) -> list[tuple[str, str]]:
    ordered = sorted(intervals, key=lambda interval: interval[0])
    spans = [_span(interval) for interval in ordered]
    if any(before[1] > after[0] for before, after in pairwise(spans)):
        raise ValueError("should hold times that do not overlap")
    return ordered


def _span(interval: tuple[str, str]) -> tuple[int, int]:
    """An interval in minutes of its day; one over midnight ends on the next."""
    start, end = _minutes(interval[0]), _minutes(interval[1])
    return start, end if end > start else end + _MINUTES_PER_DAY


def _zone_name(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("should be a time zone of the IANA database, as Asia/Taipei") from None
    return name


def _unlike_dates(holidays: list[Holiday]) -> list[Holiday]:
    if len({holiday.date for holiday in holidays}) != len(holidays):
        raise ValueError("should name each date once")
    return sorted(holidays, key=lambda holiday: holiday.date)


Start = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
End = Annotated[str, Field(pattern=r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$")]
Interval = Annotated[tuple[Start, End], AfterValidator(_some_time)]
Intervals = Annotated[
    list[Interval],
    Field(
        max_length=6,
        description="from and to, on the wall clock; an end before its start is on the next day",
        examples=[[["09:00", "12:30"], ["13:30", "18:00"]]],
    ),
    AfterValidator(_apart),
]
ZoneName = Annotated[
    str,
    Field(
        min_length=1, max_length=64, description="of the IANA database", examples=["Asia/Taipei"]
    ),
    AfterValidator(_zone_name),
]


class Weekly(BaseModel):
    """The hours of each day of the week; an empty list is a closed day."""

    mon: Intervals = []
    tue: Intervals = []
    wed: Intervals = []
    thu: Intervals = []
    fri: Intervals = []
    sat: Intervals = []
    sun: Intervals = []


class Holiday(BaseModel):
    """A date with hours of its own; without hours it is closed."""

    # strict: a number is no date
    date: Annotated[date, Field(strict=True)]
    name: Annotated[str, Field(min_length=1, max_length=100), OneLine]
    hours: Intervals = []


Holidays = Annotated[list[Holiday], Field(max_length=400), AfterValidator(_unlike_dates)]
_HOLIDAYS: Final = TypeAdapter(Holidays)

# --- when it is open ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hours:
    """Business hours, ready to be asked; intervals are in minutes of the day they start on."""

    zone: ZoneInfo
    weekly: tuple[tuple[tuple[int, int], ...], ...]
    holidays: Mapping[date, tuple[tuple[int, int], ...]]

    def of(self, day: date) -> tuple[tuple[int, int], ...]:
        """The intervals that start on ``day``, the earliest first."""
        own = self.holidays.get(day)
        return own if own is not None else self.weekly[day.weekday()]


def make(time_zone: str, weekly: Weekly, holidays: list[Holiday]) -> Hours:
    """The hours of checked values."""
    days: dict[str, list[tuple[str, str]]] = dict(weekly)
    return Hours(
        ZoneInfo(time_zone),
        tuple(tuple(_span(interval) for interval in days[day]) for day in DAYS),
        {
            holiday.date: tuple(_span(interval) for interval in holiday.hours)
            for holiday in holidays
        },
    )


def is_open(hours: Hours, moment: datetime) -> bool:
    """Whether the team is there at ``moment``, a naive UTC time."""
    today = moment.replace(tzinfo=UTC).astimezone(hours.zone).date()
    return any(
        start <= moment < end
        for day in (today - timedelta(days=1), today)
        for start, end in _instants(hours, day)
    )


def next_opening(hours: Hours, moment: datetime) -> datetime | None:
    """When the team is there next, in naive UTC: ``moment`` itself when it is open.

    None when it does not open within :data:`_LOOK_AHEAD_DAYS`.
    """
    if is_open(hours, moment):
        return moment
    today = moment.replace(tzinfo=UTC).astimezone(hours.zone).date()
    for ahead in range(-1, _LOOK_AHEAD_DAYS):
        for start, end in _instants(hours, today + timedelta(days=ahead)):
            if start > moment and end > start:
                return start
    return None


def _instants(hours: Hours, day: date) -> Iterator[tuple[datetime, datetime]]:
    for start, end in hours.of(day):
        yield (
            _instant(hours.zone, day, start, last=False),
            _instant(hours.zone, day, end, last=True),
        )


def _instant(zone: ZoneInfo, day: date, minutes: int, *, last: bool) -> datetime:
    """When the zone's clock shows so many minutes after the midnight of ``day``, in naive UTC.

    The meaning of ``fold`` in times that exist twice or not at all is that of PEP 495.
    """
    wall = datetime.combine(day, time()) + timedelta(minutes=minutes)
    first, second = (
        wall.replace(tzinfo=zone, fold=fold).astimezone(UTC).replace(tzinfo=None) for fold in (0, 1)
    )
    if first <= second:
        return second if last else first
    # skipped by the clock: between `second`, before the change, and `first`, after it
    before, after = second, first
    offset = before.replace(tzinfo=UTC).astimezone(zone).utcoffset()
    while after - before > timedelta(seconds=1):
        middle = before + (after - before) / 2
        middle = middle.replace(microsecond=0)
        if middle.replace(tzinfo=UTC).astimezone(zone).utcoffset() == offset:
            before = middle
        else:
            after = middle
    return after


# --- in the database ---------------------------------------------------------------------------

_h, _i = schema.business_hours, schema.inboxes


def of_row(row: Any) -> Hours:
    """The hours of a row of ``business_hours``."""
    return make(
        row.time_zone,
        Weekly.model_validate_json(row.weekly),
        _HOLIDAYS.validate_json(row.holidays),
    )


def state(hours: Hours | None, moment: datetime) -> tuple[bool, datetime | None]:
    """Whether it is open, and when it opens when it is not; without hours it is always open."""
    if hours is None or is_open(hours, moment):
        return True, None
    return False, next_opening(hours, moment)


def wire(row: Any) -> dict[str, Any]:
    """The BusinessHours of the API, with the state of this moment."""
    is_now, opens_at = state(of_row(row), clock.now())
    return {
        "id": row.id,
        "name": row.name,
        "time_zone": row.time_zone,
        "weekly": orjson.loads(row.weekly),
        "holidays": orjson.loads(row.holidays),
        "open": is_now,
        "opens_at": clock.wire(opens_at) if opens_at is not None else None,
        "created_at": clock.wire(row.created_at),
    }


def everything(database: Database) -> list[dict[str, Any]]:
    """All business hours by name; at most :data:`HOURS_MAX`. Blocking."""
    with database.view() as connection:
        rows = connection.execute(select(_h).order_by(_h.c.name, _h.c.id)).all()
    return [wire(row) for row in rows]


def one(database: Database, hours_id: int) -> dict[str, Any]:
    """One of them. Raises :class:`NotFound`. Blocking."""
    with database.read() as connection:
        return wire(_row(connection, hours_id))


def create(database: Database, actor: Actor, values: Mapping[str, Any]) -> dict[str, Any]:
    """Make business hours of ``name``, ``time_zone``, ``weekly`` and ``holidays``, all checked.

    Raises :class:`Refused` when there are too many. Blocking.
    """
    with database.write() as connection:
        count = connection.execute(select(func.count()).select_from(_h)).scalar_one()
        if count >= HOURS_MAX:
            raise Refused("conflict", f"There are {HOURS_MAX} business hours: delete some first.")
        result = connection.execute(insert(_h).values(**_columns(values), created_at=clock.now()))
        key = result.inserted_primary_key
        assert key is not None  # noqa: S101  every dialect used here gives the new id
        audit.record(
            connection,
            actor,
            "business_hours.created",
            "business_hours",
            object_id=key[0],
            details={"name": values["name"], "time_zone": values["time_zone"]},
        )
        return wire(_row(connection, int(key[0])))


def change(
    database: Database, actor: Actor, hours_id: int, values: Mapping[str, Any]
) -> dict[str, Any]:
    """Change some of the values that :func:`create` takes. Raises :class:`NotFound`. Blocking."""
    with database.write() as connection:
        _row(connection, hours_id)
        if values:
            columns = _columns(values)
            connection.execute(update(_h).where(_h.c.id == hours_id).values(**columns))
            audit.record(
                connection,
                actor,
                "business_hours.updated",
                "business_hours",
                object_id=hours_id,
                details=audit.changes(columns),
            )
        return wire(_row(connection, hours_id))


def remove(database: Database, actor: Actor, hours_id: int) -> None:
    """Delete business hours that no inbox has. Raises :class:`NotFound` or :class:`Refused`."""
    with database.write() as connection:
        row = lock(connection, hours_id)
        if row is None:
            raise NotFound
        user = connection.execute(
            select(_i.c.name).where(_i.c.business_hours_id == hours_id).limit(1)
        ).scalar()
        if user is not None:
            raise Refused("conflict", f"The inbox {user!r} has them: give it other hours first.")
        connection.execute(delete(_h).where(_h.c.id == hours_id))
        audit.record(
            connection,
            actor,
            "business_hours.deleted",
            "business_hours",
            object_id=hours_id,
            details={"name": row.name},
        )


def lock(connection: Connection, hours_id: int) -> Any | None:
    """The row, locked: whoever gives it to an inbox and whoever deletes it wait for each other."""
    return connection.execute(select(_h).where(_h.c.id == hours_id).with_for_update()).one_or_none()


def _row(connection: Connection, hours_id: int) -> Any:
    row = connection.execute(select(_h).where(_h.c.id == hours_id)).one_or_none()
    if row is None:
        raise NotFound
    return row


def _columns(values: Mapping[str, Any]) -> dict[str, Any]:
    columns = dict(values)
    if "weekly" in columns:
        columns["weekly"] = Weekly.model_validate(columns["weekly"]).model_dump_json()
    if "holidays" in columns:
        given = _HOLIDAYS.validate_python(columns["holidays"])
        columns["holidays"] = _HOLIDAYS.dump_json(given).decode()
    return columns
