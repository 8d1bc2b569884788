"""CPU time of the deciding part of one tick over a thousand services, of which a sixth learn in it. Asserts nothing."""

import time
from statistics import median

from msgspec.structs import replace

from cfscale.adapters.assets import load_catalogue
from cfscale.core.autoscale import decide
from cfscale.core.foresight import Foresight, phase_of
from cfscale.core.history import History
from cfscale.core.laws import laws_of, promise_of
from cfscale.core.plan import Health, HealthKind, Service
from cfscale.core.policy import Observation
from cfscale.core.samples import Quality, Replica, ReplicaState, Usage
from cfscale.core.settings import scaling_of
from cfscale.core.situation import situation_of
from cfscale.core.workload import Profile

SERVICES, REPLICAS, TICKS = 1000, 3, 40


def main() -> None:
    scaling = scaling_of(Profile(), load_catalogue().rules)
    laws, (goal, strict) = laws_of(scaling), promise_of(scaling)
    histories = [History() for _ in range(SERVICES)]
    foresights = [Foresight(scaling.forecast, goal, strict, phase_of(named(number))) for number in range(SERVICES)]
    spent = []
    for tick in range(TICKS):
        now = 6000.0 + 10 * tick
        observations = [observed(number, now) for number in range(SERVICES)]
        before = time.process_time()
        for number, observation in enumerate(observations):
            history = histories[number]
            situation = situation_of(observation, scaling)
            situation = replace(situation, outlook=foresights[number].see(situation, history.startup_seconds))
            _, histories[number] = decide(observation, scaling, history, laws, situation)
        spent.append(1000 * (time.process_time() - before))
    print(
        f"CPU of {SERVICES} services of {REPLICAS} replicas: best {min(spent):.1f}, median {median(spent):.1f} ms (goal 50)"
    )


def named(number: int) -> str:
    return f"service-{number}"


def observed(number: int, now: float) -> Observation:
    name = named(number)
    service = Service(name, "", 3, 1, 10, 1000, 1000, 2**30, 2**30, 0, "", (), 1, Health(HealthKind.NONE))
    ids = [f"{number}-{replica}" for replica in range(REPLICAS)]
    replicas = tuple(Replica(one, one, name, ReplicaState.READY, 0.0) for one in ids)
    usages = tuple(Usage(one, "bench", now, 10.0, Quality.OK, 0.5, 2**29, cpu_limit_cores=1.0) for one in ids)
    return Observation(service, "bench", now, replicas, usages)


if __name__ == "__main__":
    main()
