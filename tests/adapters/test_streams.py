"""Which way statistics are asked for, and that streams end, break and start again without harm."""

import threading
from collections.abc import Iterator

import pytest

from cfscale.adapters.docker_engine import Statistics, streams
from cfscale.adapters.docker_engine.stats import CpuStats, CpuUsage, Measured, MemoryStats, Stats
from cfscale.errors import UnavailableError


def measured(seconds: float = 1.0) -> Measured:
    return Measured(
        Stats("2026-11-23T22:41:25Z", CpuStats(CpuUsage(int(seconds * 1e9))), MemoryStats()), "a", 0.5, None
    )


class Engine:
    """Answers of both kinds; a stream gives what is put into ``samples`` and ends after them where ``gone``."""

    def __init__(self) -> None:
        self.asked = self.followed = 0
        self.samples: list[Measured | UnavailableError] = [measured(2.0)]
        self.gone = threading.Event()
        self.let_go = threading.Event()

    def measure(self, _container: str) -> Measured | None:
        self.asked += 1
        return measured(1.0)

    def follow(self, _container: str) -> Iterator[Measured]:
        self.followed += 1
        for sample in self.samples:
            if isinstance(sample, UnavailableError):
                raise sample
            yield sample
        self.gone.wait(20)
        self.let_go.set()


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine()
    yield engine
    engine.gone.set()


def seconds(found: Measured | None) -> float | None:
    return None if found is None else found.stats.cpu_stats.cpu_usage.total_usage / 1e9


def test_an_engine_that_answers_at_once_is_asked_each_time(engine: Engine) -> None:
    statistics = Statistics(engine.measure, engine.follow, quick_seconds=1e6)
    assert [seconds(statistics.measure("a")) for _ in range(5)] == [1.0] * 5
    assert (engine.asked, engine.followed) == (5, 0)


def test_an_engine_that_answers_late_twice_is_followed(engine: Engine) -> None:
    statistics = Statistics(engine.measure, engine.follow, quick_seconds=0.0)
    assert [seconds(statistics.measure("a")) for _ in range(5)] == [1.0, 1.0, 2.0, 2.0, 2.0]
    assert (engine.asked, engine.followed) == (2, 1)
    found = statistics.measure("a")
    assert found is not None
    assert found.taken_at is not None  # a sample has the age that it has
    statistics.keep([])


def test_beyond_the_most_streams_the_rest_is_asked(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MOST_STREAMS", 1)
    statistics = Statistics(engine.measure, engine.follow, quick_seconds=0.0)
    found = [seconds(statistics.measure(name)) for name in ("x", "x", "a", "b")]
    assert found == [1.0, 1.0, 2.0, 1.0]


def test_a_container_that_is_gone_ends_its_stream(engine: Engine) -> None:
    engine.samples, statistics = [], Statistics(engine.measure, engine.follow, quick_seconds=0.0)
    engine.gone.set()
    assert [seconds(statistics.measure("a")) for _ in range(3)] == [1.0, 1.0, None]


def test_fault_3_a_stream_that_breaks_is_no_figure_until_it_is_back(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_PAUSE_SECONDS", 0.0)
    engine.samples = [UnavailableError("reset")]
    statistics = Statistics(engine.measure, engine.follow, quick_seconds=0.0)
    for _ in range(2):
        statistics.measure("a")
    with pytest.raises(UnavailableError, match="reset"):
        statistics.measure("a")
    engine.samples = [measured(7.0)]
    while engine.followed == 0 or seconds(_or_none(statistics)) != 7.0:
        pass
    statistics.keep(["a"])
    assert seconds(statistics.measure("a")) == 7.0
    statistics.keep([])


def _or_none(statistics: Statistics) -> Measured | None:
    try:
        return statistics.measure("a")
    except UnavailableError:
        return None
