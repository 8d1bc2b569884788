"""Load traces with what must come of them; a bug report becomes one more file under ``tests/scenarios``."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cfscale.core.decision import Decision
from cfscale.core.units import parse_duration
from cfscale.runtime.act import Hands
from cfscale.runtime.watch import Scaler
from tests.fake_service import AGENTS, FakeJournal, FakeLock, FakeMemory, FakeService, VirtualClock, a_plan

SCENARIOS = sorted((Path(__file__).parent.parent / "scenarios").glob("*.yaml"))
START = 1_000_000.0


def load_of(given: Any) -> Callable[[float], float]:
    """Steps, or a square wave that is high for the first half of each period."""
    if isinstance(given, dict):
        period = parse_duration(given["period"])
        return lambda time: float(given["high"] if (time - START) % period < period / 2 else given["low"])
    steps = [(START + parse_duration(step["at"]), float(step["cores"])) for step in given]
    return lambda time: next(cores for at, cores in reversed(steps) if time >= at or at == steps[0][0])


def suffer(service: FakeService, fault: dict[str, Any]) -> None:
    at = START + parse_duration(fault["at"])
    active = at <= service.clock.time < at + parse_duration(fault.get("for", "0s"))
    if fault["kind"] == "by_hand":
        if service.clock.time >= at and not fault.get("done"):
            fault["done"] = True
            service.grow(AGENTS, fault["replicas"])
    else:
        setattr(service, fault["kind"], active)


def replay(scenario: dict[str, Any]) -> tuple[list[Decision], list[int]]:
    """The decisions of a scenario and the replica counts after each."""
    clock = VirtualClock(START)
    startup = parse_duration(scenario.get("startup", "20s"))
    service = FakeService(clock, load_of(scenario["load"]), startup_seconds=startup).start(scenario["start"])
    hands = Hands(service, clock, FakeJournal(), FakeLock())
    scaler = Scaler(service, a_plan(), (AGENTS,), clock, FakeMemory(), print, hands)
    decisions, counts = [], []
    for decision in scaler.watch(parse_duration(scenario["for"])):
        decisions.append(decision)
        counts.append(len(service.members))
        for fault in scenario.get("faults", ()):
            suffer(service, fault)
    return decisions, counts


@pytest.mark.parametrize("path", SCENARIOS, ids=[path.stem for path in SCENARIOS])
def test_the_loop_settles(path: Path) -> None:
    scenario = yaml.safe_load(path.read_text(encoding="utf-8"))
    decisions, counts = replay(scenario)
    expect, actions = scenario["expect"], [decision for decision in decisions if decision.applied]
    told = "\n".join(f"{decision.current} -> {decision.desired}: {decision.reason}" for decision in actions)
    assert counts[-1] == expect["settles_at"], told
    assert len(actions) <= expect["at_most_actions"], told
    assert expect["never_below"] <= min(counts), told
    assert max(counts) <= expect["never_above"], told
