from functools import partial
from pathlib import Path

import pytest

from cfscale.adapters.host import HostEngine, HostReader
from cfscale.core.samples import Quality
from cfscale.errors import InputError, UnavailableError
from tests.render.plans import plan_for


def test_the_first_reading_of_the_host_has_no_cpu_figure_yet() -> None:
    usage = HostReader().read()
    assert (usage.source, usage.quality, usage.cpu_cores) == ("psutil", Quality.WARMING, None)


def test_the_host_is_an_approximation_within_its_own_bounds() -> None:
    moments = iter((100.0, 1100.0))
    reader = HostReader(clock=lambda: next(moments))
    reader.read()
    usage = reader.read()
    assert usage.quality is Quality.APPROX
    assert usage.cpu_cores is not None
    assert usage.cpu_limit_cores is not None
    assert 0 <= usage.cpu_cores <= usage.cpu_limit_cores
    assert usage.memory_bytes is not None
    assert usage.memory_limit_bytes is not None
    assert 0 < usage.memory_bytes < usage.memory_limit_bytes
    assert usage.disk_ratio is not None
    assert 0 <= usage.disk_ratio <= 1


def test_a_disk_that_is_not_there_is_said() -> None:
    with pytest.raises(UnavailableError, match="/no/such/place"):
        HostReader(Path("/no/such/place")).read()


def test_the_host_engine_recommends_for_the_planned_replicas_and_changes_nothing() -> None:
    plan = plan_for("team")
    engine = HostEngine(plan)
    agents = [replica for replica in engine.replicas() if replica.service == "agents"]

    assert len(agents) == plan.service("agents").replicas
    assert {usage.replica for usage in engine.usage(agents)} == {replica.id for replica in agents}
    acts = (
        partial(engine.up, {}),
        partial(engine.down, volumes=False),
        partial(engine.grow, plan.service("agents"), 9),
        partial(engine.shrink, plan.service("agents"), 1, agents),
    )
    for act in acts:
        with pytest.raises(InputError, match="only recommends"):
            act()
