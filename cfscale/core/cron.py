"""Cron lines as beginnings of windows: ``minute hour day-of-month month day-of-week``, in UTC.

Each field is ``*``, a number, a range, a list, any of them with a step (``*/15``, ``8-18/2``, ``1,15``); Sunday is 0 or 7.
As in cron, a day matches either of the two day fields where both are restricted.
"""

from datetime import UTC, datetime, timedelta

from msgspec import Struct

from cfscale.errors import InputError

_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day of month", 1, 31), ("month", 1, 12), ("day of week", 0, 7))
_DAYS = {"sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6}
_DAY_SECONDS = 86_400


class Cron(Struct, frozen=True):
    """The times a cron line names."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either_day: bool

    def within(self, now: float, seconds: float) -> bool:
        """Whether one of its times lies at most so many seconds back."""
        moment = datetime.fromtimestamp(now, UTC)
        for back in range(int(seconds // _DAY_SECONDS) + 2):
            day = moment - timedelta(days=back)
            if not self._matches(day):
                continue
            for hour in self.hours:
                for minute in self.minutes:
                    start = day.replace(hour=hour, minute=minute, second=0, microsecond=0)
                    if 0 <= (moment - start).total_seconds() < seconds:
                        return True
        return False

    def _matches(self, day: datetime) -> bool:
        by_month, by_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return day.month in self.months and (by_month or by_week if self.either_day else by_month and by_week)


def parse_cron(line: str) -> Cron:
    """The times of a cron line; raises InputError for anything that is none."""
    words = line.split()
    if len(words) != len(_FIELDS):
        raise InputError(f"'{line}' is not a cron line: write five fields, such as '0 8 * * 1-5'")
    minutes, hours, days, months, weekdays = (
        _field(word, field, line) for word, field in zip(words, _FIELDS, strict=True)
    )
    return Cron(
        minutes=minutes,
        hours=hours,
        days=days,
        months=months,
        weekdays=frozenset(day % 7 for day in weekdays),
        either_day=not words[2].startswith("*") and not words[4].startswith("*"),
    )


def _field(word: str, field: tuple[str, int, int], line: str) -> frozenset[int]:
    return frozenset(value for part in word.split(",") for value in _part(part, field, line))


def _part(part: str, field: tuple[str, int, int], line: str) -> range:
    name, least, most = field
    span, _, step = part.partition("/")
    first, _, last = span.partition("-")
    try:
        begin = least if span == "*" else _number(first)
        end = most if span == "*" or (step and not last) else _number(last or first)
        every = int(step or 1)
    except ValueError:
        begin = end = every = -1
    if not least <= begin <= end <= most or every < 1:
        raise InputError(f"'{line}': '{part}' is no {name}: write {least} to {most}, a range, a list, or * with a step")
    return range(begin, end + 1, every)


def _number(text: str) -> int:
    number = _DAYS.get(text.lower())
    if number is not None:
        return number
    if not text.isascii() or not text.isdigit():
        raise ValueError(text)
    return int(text)
