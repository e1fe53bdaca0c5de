"""When a team is there: weekly hours, holidays, and clocks that change."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

import pytest
from pydantic import TypeAdapter, ValidationError

from app.chat import business_hours
from app.chat.business_hours import (
    Holiday,
    Holidays,
    Hours,
    Intervals,
    Weekly,
    ZoneName,
    is_open,
    next_opening,
)

SECOND = timedelta(seconds=1)


def hours(zone: str, weekly: dict[str, list[list[str]]], *holidays: dict[str, object]) -> Hours:
    return business_hours.make(
        zone,
        Weekly.model_validate(weekly),
        [Holiday.model_validate_json(json.dumps(holiday)) for holiday in holidays],
    )


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


TAIPEI = hours(
    "Asia/Taipei",
    {day: [["09:00", "12:30"], ["13:30", "18:00"]] for day in ("mon", "tue", "wed", "thu", "fri")},
    {"date": "2026-10-09", "name": "國慶日 🎆", "hours": []},
    {"date": "2026-10-10", "name": "補班", "hours": [["10:00", "14:00"]]},
)


@pytest.mark.parametrize(
    ("moment", "opens"),
    [
        # Tuesday, 13 October 2026, in Taipei: UTC+8
        ("2026-10-13 00:59:59", "2026-10-13 01:00"),
        ("2026-10-13 01:00:00", None),
        ("2026-10-13 04:29:59.999999", None),
        ("2026-10-13 04:30:00", "2026-10-13 05:30"),
        ("2026-10-13 05:30:00", None),
        ("2026-10-13 10:00:00", "2026-10-14 01:00"),
        # Thursday evening before the holiday on Friday; Saturday has hours of its own
        ("2026-10-08 10:00:00", "2026-10-10 02:00"),
        ("2026-10-09 03:00:00", "2026-10-10 02:00"),
        ("2026-10-10 03:00:00", None),
        ("2026-10-10 06:00:00", "2026-10-12 01:00"),
    ],
)
def test_a_week_in_taipei(moment: str, opens: str | None) -> None:
    assert is_open(TAIPEI, at(moment)) is (opens is None)
    expected = at(moment) if opens is None else at(opens)
    assert next_opening(TAIPEI, at(moment)) == expected


def test_over_midnight_belongs_to_the_day_it_starts_on() -> None:
    night = hours(
        "Asia/Taipei",
        {"fri": [["22:00", "06:00"]]},
        {"date": "2026-10-17", "name": "closed", "hours": []},
    )
    assert not is_open(night, at("2026-10-16 13:59"))
    assert is_open(night, at("2026-10-16 14:00"))
    # Saturday is a holiday, but the shift began on Friday
    assert is_open(night, at("2026-10-16 21:59"))
    assert not is_open(night, at("2026-10-16 22:00"))
    assert next_opening(night, at("2026-10-16 22:00")) == at("2026-10-23 14:00")


def test_all_day_every_day_never_closes_not_even_when_the_clocks_change() -> None:
    always = {day: [["00:00", "24:00"]] for day in business_hours.DAYS}
    # Cairo and Beirut change their clocks at midnight: the day has no 00:00
    for zone in ("Europe/Berlin", "Africa/Cairo", "Asia/Beirut", "America/Sao_Paulo", "UTC"):
        open_hours = hours(zone, always)
        for month in range(1, 13):
            for day in range(1, 29):
                for hour in range(0, 24, 3):
                    assert is_open(open_hours, datetime(2026, month, day, hour)), (zone, month, day)


def test_nothing_ever_opens() -> None:
    closed = hours("Europe/Berlin", {})
    assert not is_open(closed, at("2026-06-01 12:00"))
    assert next_opening(closed, at("2026-06-01 12:00")) is None


def test_wall_clock_hours_follow_the_clocks_change_in_berlin() -> None:
    berlin = hours("Europe/Berlin", {day: [["09:00", "17:00"]] for day in business_hours.DAYS})
    # 29 March 2026 is the change to summer time: nine o'clock is 08:00 UTC before, 07:00 after
    assert next_opening(berlin, at("2026-03-28 00:00")) == at("2026-03-28 08:00")
    assert next_opening(berlin, at("2026-03-28 17:00")) == at("2026-03-29 07:00")
    assert next_opening(berlin, at("2026-10-24 16:00")) == at("2026-10-25 08:00")


@pytest.mark.parametrize(
    ("interval", "opens", "closes"),
    [
        # the clock jumps from 02:00 to 03:00 at 01:00 UTC: 02:30 does not exist
        (["02:30", "05:00"], "2026-03-29 01:00", "2026-03-29 03:00"),
        (["01:30", "02:30"], "2026-03-29 00:30", "2026-03-29 01:00"),
        (["02:00", "03:00"], None, None),
        (["02:10", "02:50"], None, None),
        (["00:00", "24:00"], "2026-03-28 23:00", "2026-03-29 22:00"),
    ],
)
def test_the_missing_hour_in_berlin(
    interval: list[str], opens: str | None, closes: str | None
) -> None:
    berlin = hours(
        "Europe/Berlin", {}, {"date": "2026-03-29", "name": "Sommerzeit", "hours": [interval]}
    )
    found = next_opening(berlin, at("2026-03-28 12:00"))
    assert found == (at(opens) if opens else None)
    if opens and closes:
        assert not is_open(berlin, at(opens) - SECOND)
        assert is_open(berlin, at(opens))
        assert is_open(berlin, at(closes) - SECOND)
        assert not is_open(berlin, at(closes))


@pytest.mark.parametrize(
    ("interval", "opens", "closes"),
    [
        # 03:00 summer time is 01:00 UTC and becomes 02:00: the hour from two to three runs twice
        (["02:00", "03:00"], "2026-10-25 00:00", "2026-10-25 02:00"),
        (["02:30", "05:00"], "2026-10-25 00:30", "2026-10-25 04:00"),
        (["01:00", "02:30"], "2026-10-24 23:00", "2026-10-25 01:30"),
        (["00:00", "24:00"], "2026-10-24 22:00", "2026-10-25 23:00"),
    ],
)
def test_the_doubled_hour_in_berlin(interval: list[str], opens: str, closes: str) -> None:
    berlin = hours(
        "Europe/Berlin", {}, {"date": "2026-10-25", "name": "Winterzeit", "hours": [interval]}
    )
    assert next_opening(berlin, at("2026-10-24 12:00")) == at(opens)
    moment = at(opens)
    while moment < at(closes):
        assert is_open(berlin, moment), moment
        moment += SECOND * 600
    assert not is_open(berlin, at(opens) - SECOND)
    assert not is_open(berlin, at(closes))
    assert next_opening(berlin, at(closes)) is None


@pytest.mark.parametrize(
    "intervals",
    [
        [["09:00", "09:00"]],
        [["9:00", "17:00"]],
        [["09:00", "24:01"]],
        [["24:00", "09:00"]],
        [["09:00", "12:00"], ["11:59", "13:00"]],
        [["22:00", "06:00"], ["23:00", "24:00"]],
        [["09:00"]],
        [["09:00", "10:00", "11:00"]],
        [["00:00", "00:01"]] * 7,
        "09:00-17:00",
    ],
)
def test_hours_that_make_no_sense(intervals: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Intervals).validate_python(intervals)


@pytest.mark.parametrize(
    "zone", ["Mars/Olympus", "", "America", "../etc/passwd", "/etc/passwd", "x" * 65, "a\x00b"]
)
def test_zones_that_do_not_exist(zone: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(ZoneName).validate_python(zone)


def test_a_holiday_is_named_once() -> None:
    day = {"date": "2026-12-25", "name": "Christmas", "hours": []}
    with pytest.raises(ValidationError):
        TypeAdapter(Holidays).validate_json(json.dumps([day, day]))
