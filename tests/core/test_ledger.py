"""The ledger: every number of a plan has one rule, and a rule's formula, computed again from its inputs, gives it."""

import ast
import operator
import re
from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction
from math import ceil, exp, lgamma, log

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfscale.adapters.assets import load_catalogue
from cfscale.core.derivation import Explained, Step, worked
from cfscale.core.ledger import leaf_at, profile_value, rule_text
from cfscale.core.plan import DeploymentPlan, LedgerEntry, Service
from cfscale.core.sizing import size
from cfscale.core.tier import Leaf
from cfscale.core.units import GIB
from cfscale.core.workload import (
    DampingProfile,
    HealthOverride,
    Profile,
    ResourceOverride,
    ScalingBounds,
    ScalingProfile,
    ServiceOverride,
    Slo,
)
from cfscale.errors import InputError

CATALOGUE = load_catalogue()
OPERATORS: dict[type, Callable[..., object]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: lambda left, right: Fraction(left) / right,
}
# words of a formula that choose an amount instead of naming an input
WORDS = {"memory", "cpu", "storage"}


def profiles() -> st.SearchStrategy[Profile]:
    return st.builds(
        Profile,
        users=st.integers(0, 3000),
        agents=st.integers(0, 30_000),
        tasks=st.integers(0, 60_000),
        environment=st.sampled_from(["development", "staging", "production"]),
        growth=st.sampled_from(["1", "1.5", "0.3"]),
        agent_class=st.sampled_from(["registered", "process", "container"]),
        sustained=st.sampled_from([None, "0.4", "1"]),
        slo=st.sampled_from([None, Slo(task_rate_per_second=5, task_seconds=30, wait_probability=0.05)]),
        services=st.sampled_from(
            [
                {},
                {"agents": ServiceOverride(resources=ResourceOverride(memory="3G")), "loadbalancer": ServiceOverride()},
                {"agents-expert": ServiceOverride(share="0.25"), "agents-parallel": ServiceOverride()},
            ]
        ),
        scaling=st.sampled_from(
            [ScalingProfile(), ScalingProfile(services={"coordinator": ScalingBounds(min=7, max=90)})]
        ),
    )


def numbers(node: object, path: str) -> Iterator[tuple[str, float]]:
    """Every number of a plan's document by its path; a service stands under its name."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from numbers(value, f"{path}.{key}" if path else key)
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            name = value["name"] if isinstance(value, dict) and "name" in value else str(index)
            yield from numbers(value, f"{path}.{name}")
    elif isinstance(node, int | float) and not isinstance(node, bool):
        yield path, node


def document(plan: DeploymentPlan) -> dict[str, float]:
    whole = msgspec.to_builtins(plan)
    return dict(numbers({key: value for key, value in whole.items() if key not in ("ledger", "conflicts")}, ""))


@settings(max_examples=50)
@given(profiles())
def test_every_number_of_a_plan_has_one_rule_that_gives_its_value(profile: Profile) -> None:
    plan = size(profile, CATALOGUE)
    by_field = {entry.field: entry.value for entry in plan.ledger if entry.field and entry.unit not in WORDLESS}
    fields = Counter(entry.field for entry in plan.ledger if entry.field)

    assert document(plan) == {name: value for name, value in by_field.items() if not isinstance(value, str)}
    assert [name for name, count in fields.items() if count > 1] == []
    assert max(Counter(entry.rule for entry in plan.ledger).values()) == 1


WORDLESS = {"tier", "phase"}


@settings(max_examples=50)
@given(profiles())
def test_a_formula_computed_again_from_its_inputs_gives_the_number(profile: Profile) -> None:
    plan = size(profile, CATALOGUE)
    sheet = Sheet(profile, plan)
    computed = [entry for entry in plan.ledger if is_computed(entry)]

    assert len(computed) > 30
    for entry in computed:
        if isinstance(entry.value, str) and entry.rule == "network.demand":
            continue  # a word of the catalogue
        assert sheet.evaluate(entry.rule) == entry.value, entry


def is_computed(entry: LedgerEntry) -> bool:
    try:
        rule_text(CATALOGUE, entry.rule)
    except KeyError:
        return False
    return True


class Sheet:
    """Computes the formulas of ``tiers/ledger.yaml`` from the figures of one plan, by means of its own."""

    def __init__(self, profile: Profile, plan: DeploymentPlan) -> None:
        self.profile, self.plan = profile, plan
        self.entries = {entry.rule: entry for entry in plan.ledger}
        self.tier = CATALOGUE.tier(plan.tier)
        self.alone = plan.environment != "production"

    def evaluate(self, rule: str) -> object:
        # a hyphen is no part of a name there
        formula = rule_text(CATALOGUE, rule).formula.replace("SERVICE", rule.partition(".")[0].replace("-", "__"))
        return self.node(ast.parse(formula, mode="eval").body)

    def node(self, node: ast.expr) -> object:
        if isinstance(node, ast.Constant):
            return Fraction(str(node.value))
        if isinstance(node, ast.BinOp):
            return OPERATORS[type(node.op)](self.node(node.left), self.node(node.right))
        if isinstance(node, ast.Call):
            assert isinstance(node.func, ast.Name)
            return self.call(node.func.id, node.args)
        return self.named(words(node))

    def named(self, name: str) -> object:
        if name in self.entries:
            value = self.entries[name].value
            return value if isinstance(value, str) else Fraction(str(value))
        if name == "agents.slo":
            return Fraction(0)
        if name.startswith("profile."):
            return Fraction(str(profile_value(self.profile, name.removeprefix("profile."))))
        if name == "AGENT_MEMORY":
            name = CATALOGUE.rules.agent_memory(self.profile.agent_class)
        return base(leaf_at(CATALOGUE, self.tier, name.replace("ENVIRONMENT", self.plan.environment)))

    def call(self, function: str, args: list[ast.expr]) -> object:
        by_word: dict[str, Callable[[str], object]] = {
            "of_others": lambda what: self.sum_of(what, without="agents"),
            "of_all": self.sum_of,
            "smallest_shape": self.shape,
            "storage_of": self.storage,
            "bound": self.bound,
            "if_promised": lambda _: 0 if self.alone or "failover" not in self.tier.load_balancing else 1,
            "one_if_single_instance": self.copies,
            "share": self.share,
        }
        if function in by_word:
            return by_word[function](words(args[0]))
        if function in ("least", "most"):
            return self.range_of(words(args[0]).partition(".")[0], function)
        return self.arithmetic()[function](*(self.node(arg) for arg in args))

    def arithmetic(self) -> dict[str, Callable[..., object]]:
        return {
            "ceil": ceil,
            "max": max,
            "voters": lambda voters, copies: 1 if copies == 1 else max(voters, copies),
            "whole_gib": lambda size: ceil(size / GIB) * GIB,
            "admit": lambda wanted, limit: min(wanted, limit) if self.alone else wanted,
            "cpu_curve": curve,
            "agent_cpu": lambda agents, _tasks: curve(agents) - curve(Fraction(0)),
            "erlang_c": lambda load, target: erlang(float(load), float(target)),
            "smallest_tier": smallest,
            "phase_of": phase,
            "packed": lambda cpu, memory: packed(self.plan.services, int(cpu), int(memory)),
        }

    def sum_of(self, what: str, without: str = "") -> int:
        amounts = {
            "memory": lambda s: s.memory_limit_bytes,
            "cpu": lambda s: s.cpu_request_millicores,
            "storage": lambda s: s.storage_bytes,
        }
        return sum(s.replicas * amounts[what](s) for s in self.plan.services if s.name != without)

    def shape(self, what: str) -> int:
        """The first shape on whose machines, less the spare, everything packs; else the last."""
        spare = int(self.entries["spare"].value)
        copies = self.plan.settings.replication_factor
        shapes = [(base(s["cpu"]), base(s["memory"])) for s in CATALOGUE.rules.node_shapes]
        for cpu, memory in shapes:
            used = packed(self.plan.services, int(cpu), int(memory))
            if used is not None and used + spare <= copies:
                break
        return int(cpu if what == "cpu" else memory)

    def storage(self, name: str) -> int:
        factor = int(CATALOGUE.rules.leaf("sizing.queue_log").exact)
        logs = {
            log: factor * (service.memory_limit_bytes or 0)
            for log in ("queue", "memory", "etcd")
            if (service := self.plan.find(log)) is not None
        }
        rest = max(0, int(base(self.tier.resources["storage"])) - logs["queue"])
        database = (
            ceil(rest * CATALOGUE.rules.leaf("sizing.database_storage").exact) if self.plan.find("database") else 0
        )
        replicas = self.plan.service("coordinator").replicas
        return {**logs, "database": database, "coordinator": -(-(rest - database) // replicas)}.get(name, 0)

    def share(self, pool: str) -> Fraction:
        """What the profile gives a pool, an equal part of the rest in whole thousandths, or for agents all that is left."""
        pools = [name for name in self.profile.services if name.startswith("agents-")]
        given = {name: Fraction(share) for name in pools if (share := self.profile.services[name].share)}
        equal = Fraction(int(1000 * (1 - sum(given.values())) / (1 + len(pools) - len(given))), 1000)
        every = {name: given.get(name, equal) for name in pools}
        return every.get(pool, 1 - sum(every.values(), Fraction(0)))

    def bound(self, name: str) -> int:
        service = name.partition(".")[0]
        given = self.profile.scaling.services.get(service, ScalingBounds()).min
        return given or (self.plan.service(service).min_replicas if self.scales(service) else 1)

    def scales(self, service: str) -> bool:
        return service.startswith("agents")

    def copies(self, _leaf: str) -> int:
        leaf = self.tier.configuration.get("replication_factor")
        return 1 if self.alone or leaf is None else int(leaf.exact)

    def range_of(self, service: str, end: str) -> int:
        """The profile's bound; else the count itself, or for agents the copies and a plan at the top of the tier."""
        given = getattr(
            self.profile.scaling.services.get(service, ScalingBounds()), {"least": "min", "most": "max"}[end]
        )
        here = self.plan.service(service)
        if given is not None:
            return int(given)
        if not self.scales(service):
            return here.replicas
        if end == "least" and self.profile.sustained is None:
            return self.plan.settings.replication_factor
        memory = here.memory_limit_bytes or 0
        load = {name: int(self.entries[f"cell.{name}"].value) for name in ("agents", "tasks")}
        share = Fraction(self.profile.sustained or 1)
        want = {
            "least": {name: ceil(share * amount) for name, amount in load.items()},
            "most": {"agents": self.tier.top("agents"), "tasks": self.tier.top("tasks")},
        }[end]
        spare, rules = int(self.entries["spare"].value), CATALOGUE.rules
        each = rules.leaf(rules.agent_memory(self.profile.agent_class)).bytes
        held = Fraction(memory) * rules.leaf("sizing.target_utilisation").exact
        part = self.share(service)
        by_memory = ceil(part * (each * want["agents"] + rules.leaf("sizing.task_memory").bytes * want["tasks"]) / held)
        by_cpu = ceil(part * (curve(Fraction(want["agents"])) - curve(Fraction(0))) / here.cpu_request_millicores)
        floor = self.entries["agents.driver.demand"].value if end == "most" and service == "agents" else 0
        return max(by_memory + spare, by_cpu + spare, self.plan.settings.replication_factor, int(floor))


def words(node: ast.expr) -> str:
    return ast.unparse(node).replace("__", "-")


def base(leaf: Leaf) -> Fraction:
    """The leaf in base units; of a range its top."""
    value = Fraction(str(leaf.max if leaf.value is None else leaf.value))
    factor = {"GiB": GIB, "MiB": 2**20, "TiB": 2**40, "cores": 1000, "h": 3600, "Gbit/s": 10**9}
    return value * factor.get(leaf.unit, 1)


def curve(agents: Fraction) -> Fraction:
    """CPU of a cell: straight lines through the tier tops, from the intercept."""
    points = [(Fraction(0), Fraction(1000))] + [
        (Fraction(tier.top("agents")), base(tier.resources["cpu"])) for tier in CATALOGUE.tiers
    ]
    last = max(i for i, (x, _) in enumerate(points[:-1]) if x <= agents)
    (x0, y0), (x1, y1) = points[last], points[last + 1]
    return y0 + (y1 - y0) * (agents - x0) / (x1 - x0)


def phase(users: Fraction) -> str:
    return next(phase.name for phase in CATALOGUE.rules.phases if phase.users.max is None or users <= phase.users.max)


def smallest(users: Fraction, agents: Fraction, tasks: Fraction) -> str:
    for tier in CATALOGUE.tiers:
        tops = (tier.limits["users"].max, tier.limits["agents"].max, tier.configuration["max_concurrent_tasks"].value)
        if all(amount <= int(top or 0) for amount, top in zip((users, agents, tasks), tops, strict=True)):
            break
    return tier.name


def erlang(load: float, target: float) -> int:
    """Erlang C in logarithms, one server more at a time."""
    servers = int(load) + 1
    while waiting(servers, load) > target:
        servers += 1
    return servers


def waiting(servers: int, load: float) -> float:
    below = sum(exp(k * log(load) - lgamma(k + 1)) for k in range(servers))
    full = exp(servers * log(load) - lgamma(servers + 1)) * servers / (servers - load)
    return full / (below + full)


def packed(services: tuple[Service, ...], cpu: int, memory: int) -> int | None:
    """First-fit decreasing, one replica at a time; None where one fits no empty machine."""
    machines: list[list[int]] = []
    ordered = sorted(
        services, key=lambda s: (s.memory_limit_bytes or 0, s.cpu_request_millicores, s.name), reverse=True
    )
    for service in ordered:
        want = (service.cpu_request_millicores, service.memory_limit_bytes or 0)
        if want[0] > cpu or want[1] > memory:
            return None
        for _ in range(service.replicas):
            fit = next((m for m in machines if m[0] >= want[0] and m[1] >= want[1]), None)
            if fit is None:
                fit = [cpu, memory]
                machines.append(fit)
            fit[0] -= want[0]
            fit[1] -= want[1]
    return len(machines)


def test_what_the_profile_states_is_cited_as_the_profiles() -> None:
    scaling = ScalingProfile(interval="3s", scale_up=DampingProfile(cooldown="7s"))
    services = {"agents": ServiceOverride(port=4000, health=HealthOverride(rise=5))}
    plan = size(Profile(users=1, agents=1, tasks=1, scaling=scaling, services=services), CATALOGUE)
    sources = {entry.rule: entry.source for entry in plan.ledger}
    given = {"scaling.interval", "scaling.up.cooldown", "agents.port", "agents.health.rise"}

    assert {rule for rule in given if sources[rule] == "profile"} == given
    assert sources["scaling.down.cooldown"] == "design"
    assert sources["coordinator.port"] == "documentation:claude-flow"


def names(step: Step) -> Iterator[str]:
    yield step.name
    for below in step.inputs:
        yield from names(below)


def test_a_derivation_goes_down_to_the_profile_and_the_founding_lines() -> None:
    profile = Profile(users=40, agents=400, tasks=800)
    step = worked("demand.memory_bytes", Explained(profile, CATALOGUE, size(profile, CATALOGUE)))

    assert (step.name, step.value) == ("memory.demand", 30 * GIB)
    assert {"sizing.base_memory", "sizing.agent_memory", "profile.agents", "profile.growth"} <= set(names(step))
    assert {below.source for below in step.inputs if below.name.startswith("sizing")} == {
        "founding:96",
        "founding:97",
        "founding:98",
    }


def test_every_rule_derives_and_ends_in_leaves_or_the_profile() -> None:
    profile = Profile(
        users=40,
        agents=400,
        tasks=800,
        sustained="0.5",
        slo=Slo(task_rate_per_second=1, task_seconds=9, wait_probability=0.1),
    )
    sized = Explained(profile, CATALOGUE, size(profile, CATALOGUE))
    for entry in sized.plan.ledger:
        step = worked(entry.rule, sized)
        assert step.inputs or entry.unit in WORDLESS or step.name in ("spare", "agents.share"), entry


def test_every_name_in_a_rule_leads_somewhere() -> None:
    profile = Profile(users=40, agents=400, tasks=800)
    plan = size(profile, CATALOGUE)
    tier, rules = CATALOGUE.tier("department"), {entry.rule for entry in plan.ledger}
    optional = {"agents.slo", "sizing.agent_cpu", "sizing.task_cpu", "prices.hourly", "prices.storage_gib_month"}
    optional |= {rule for rule in CATALOGUE.ledger.computed if rule.startswith("cost.")}
    for text in CATALOGUE.ledger.computed.values():
        for name in re.findall(r"[A-Za-z_]+(?:\.[A-Za-z_]+)*(?![A-Za-z_.(])", text.formula) + text.needs:
            filled = name.replace("SERVICE", "agents").replace("ENVIRONMENT", "production")
            known = filled in rules | optional | WORDS | {"AGENT_MEMORY", "agents", "node_shapes"}
            if not known and not filled.startswith("profile."):
                leaf_at(CATALOGUE, tier, filled.replace("tiers.", "tier.", 1))  # raises KeyError where it leads nowhere


def test_a_name_that_is_no_rule_and_no_field_names_the_nearest() -> None:
    profile = Profile(users=1, agents=1, tasks=1)

    with pytest.raises(InputError, match=r"did you mean 'memory\.demand'"):
        worked("memory.demnd", Explained(profile, CATALOGUE, size(profile, CATALOGUE)))
