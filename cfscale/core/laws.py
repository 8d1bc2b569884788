"""The scaling policies: plain functions of one signature, and how the proposals of several become one.

    Situation ──law, law, …──▶ Proposals ──the largest wins──▶ Proposal

A law is built once from a policy of the plan and then called each tick; it keeps nothing. What cannot be known keeps the
count, and forbids fewer replicas for all policies together.
"""

from collections.abc import Callable, Mapping, Sequence
from math import ceil, floor
from operator import attrgetter

from msgspec.structs import replace

from cfscale.core.cron import Cron, parse_cron
from cfscale.core.plan import Scaling
from cfscale.core.policies import FOUNDING
from cfscale.core.policy import Proposal, Reading, Situation, alert, doubt, needed_for, resource
from cfscale.core.units import format_duration, parse_duration, percent, share_of

Law = Callable[[Situation, Scaling], Proposal]
_FORESEEING = frozenset(("slo", "predictive"))
_ROUNDING = 1e-9


def combine(situation: Situation, scaling: Scaling, proposals: Sequence[Proposal]) -> Proposal:
    """What all policies together ask for: the largest wish, and fewer replicas only where none of them objects."""
    chosen, shrinkable = proposals[0], proposals[0].shrinkable
    if len(proposals) > 1:
        chosen = max(proposals, key=attrgetter("replicas"))
        shrinkable = False not in [proposal.shrinkable for proposal in proposals]
    warning = alert(situation.disk, scaling.disk)
    if not warning and shrinkable == chosen.shrinkable:
        return chosen
    return replace(chosen, shrinkable=shrinkable, reason=chosen.reason + warning)


def laws_of(scaling: Scaling) -> tuple[Law, ...]:
    """The laws of the policies in force; raises InputError for an option that is none."""
    return tuple(_LAWS[policy.kind](policy.options) for policy in scaling.policies)


def needs_outlook(scaling: Scaling) -> bool:
    """Whether any policy in force asks for a forecast."""
    return not _FORESEEING.isdisjoint([policy.kind for policy in scaling.policies])


def promise_of(scaling: Scaling) -> tuple[float, bool]:
    """The share of minutes that may be short, and whether that is to be kept whatever it costs.

    A goal that a policy names is kept; the default weighs it against the cost.
    """
    named = next((policy.options["goal"] for policy in scaling.policies if "goal" in policy.options), None)
    return (scaling.forecast.goal_ratio, False) if named is None else (share_of(named, "goal"), True)


def _resource(_options: Mapping[str, str]) -> Law:
    return resource


def _target(options: Mapping[str, str]) -> Law:
    """Target tracking by the algorithm of the Kubernetes HPA v2."""
    which = options.get("resource", "cpu")
    given = share_of(options["usage"], "usage") if "usage" in options else None

    def law(situation: Situation, scaling: Scaling) -> Proposal:
        reading = situation.memory if which == "memory" else situation.cpu
        return tracked(situation, reading, given or scaling.target_ratio, scaling.tolerance_ratio)

    return law


def tracked(situation: Situation, reading: Reading, target: float, tolerance: float) -> Proposal:
    """The HPA's count: the usage of ready replicas over the target, with doubt in the direction that does less.

    Replicas that report nothing count as full on the way down and as idle on the way up, those not ready yet as idle
    on the way up; where that turns the direction or comes within the tolerance, nothing is done.
    """
    current, missing = situation.current, reading.expected - reading.reporting
    if not reading.reporting:
        return Proposal(current, f"no usable {reading.resource} metric: nothing is changed", shrinkable=False)
    ratio = reading.mean / target
    told = f"{reading.resource} {percent(reading.mean)} of a target of {percent(target)}"
    unready = situation.starting if ratio > 1 else 0
    load, counted = reading.load, reading.reporting + unready
    if missing:
        load, counted = load + (missing * max(1.0, target) if ratio < 1 else 0.0), counted + missing
    assumed = load / counted / target
    flipped = (assumed < 1) != (ratio < 1)
    if abs(assumed - 1) <= tolerance + _ROUNDING or (flipped and (missing or unready)):
        return Proposal(current, f"{told}: within the tolerance of {tolerance:g}", tolerated=True)
    wanted = max(1, ceil(assumed * counted - _ROUNDING))
    if (assumed > 1 and wanted < current) or (assumed < 1 and wanted > current):
        return Proposal(current, f"{told}: those that start or do not report will do", tolerated=True)
    return Proposal(wanted, f"{told}: {wanted} needed", tolerated=True)


def _pool(_options: Mapping[str, str]) -> Law:
    return pool


def pool(situation: Situation, scaling: Scaling) -> Proposal:
    """The founding agent pool: grow above a utilisation, below another let a part of the idle go."""
    current, cpu, rule = situation.current, situation.cpu, scaling.pool
    if blocked := doubt(situation, scaling):
        return Proposal(current, blocked, shrinkable=False)
    told = f"utilisation {percent(cpu.mean)}"
    if cpu.mean > rule.scale_up_ratio:
        wanted = max(current, needed_for(cpu.load, rule.scale_up_ratio))
        return Proposal(wanted, f"{told} is above {percent(rule.scale_up_ratio)}: {wanted} needed")
    if cpu.mean < rule.scale_down_ratio:
        idle = floor(situation.ready - cpu.load_at_most + _ROUNDING)
        gone = max(0, idle) // rule.idle_divisor
        return Proposal(current - gone, f"{told} is below {percent(rule.scale_down_ratio)}: {gone} of {idle} idle go")
    return Proposal(current, f"{told}: within the band")


def _predictive(options: Mapping[str, str]) -> Law:
    """The founding predictive policy; ``law: founding`` multiplies by ceil(predicted / 0.7) as it was written."""
    literal = options.get("law", "proportional") == FOUNDING

    def law(situation: Situation, scaling: Scaling) -> Proposal:
        return predictive(situation, scaling, literal=literal)

    return law


def predictive(situation: Situation, scaling: Scaling, *, literal: bool) -> Proposal:
    """Grow to what the predicted load needs, halve once the load was low for long enough."""
    current, cpu, rule = situation.current, situation.cpu, scaling.predictive
    if blocked := doubt(situation, scaling):
        return Proposal(current, blocked, shrinkable=False)
    outlook = situation.outlook
    foreseen = outlook is not None and not outlook.doubt and not literal
    load = max(outlook.expected, cpu.load) if outlook is not None and foreseen else cpu.load
    predicted = load / max(1, situation.ready)
    told = f"{'predicted' if foreseen else 'present'} load {percent(predicted)}"
    if predicted > rule.scale_up_ratio:
        factor = ceil(predicted / rule.scale_up_ratio)
        wanted = current * factor if literal else max(current, needed_for(load, rule.scale_up_ratio))
        return Proposal(wanted, f"{told} is above {percent(rule.scale_up_ratio)}: {wanted} needed")
    low = 0.0 if situation.low_since is None else situation.time - situation.low_since
    if cpu.mean < rule.scale_down_ratio and low >= rule.after_seconds:
        wanted = max(1, ceil(current * rule.scale_down_factor))
        return Proposal(wanted, f"load below {percent(rule.scale_down_ratio)} for {format_duration(low)}: {wanted} do")
    return Proposal(current, f"{told}: within the band")


def _slo(options: Mapping[str, str]) -> Law:
    """The default policy; one whose goal is named may take a step up of any size, to keep its promise."""
    if "goal" not in options:
        return slo
    return lambda situation, scaling: replace(slo(situation, scaling), unbounded=True)


def slo(situation: Situation, scaling: Scaling) -> Proposal:
    """What the forecast and its margin ask for; the founding thresholds where the forecast should not decide."""
    outlook, current = situation.outlook, situation.current
    if outlook is None or outlook.doubt:
        plain = resource(situation, scaling)
        return replace(plain, reason=f"{plain.reason}; {outlook.doubt if outlook else 'no forecast yet'}")
    blocked = doubt(situation, scaling)
    # a minute's mean says nothing of what overtakes it: replicas that are all but full are not given up, come what may
    full = situation.cpu.mean > scaling.critical_ratio
    wanted = max(outlook.replicas, needed_for(situation.cpu.load, 1.0) if full else 1)
    reason = f"{outlook.told}: {wanted} needed"
    memory = situation.memory
    by_memory = needed_for(memory.load_at_most, scaling.memory.scale_up_ratio) if memory.reporting else 1
    if by_memory > wanted and (wanted < current or memory.mean > scaling.memory.scale_up_ratio):
        wanted = by_memory if memory.mean > scaling.memory.scale_up_ratio else min(current, by_memory)
        reason = f"{reason}, but memory {percent(memory.mean)} needs {wanted}"
    if blocked and wanted < current:
        return Proposal(current, blocked, shrinkable=False)
    return Proposal(wanted, reason, shrinkable=not blocked, tolerated=wanted > current)


def _schedule(options: Mapping[str, str]) -> Law:
    """At least so many replicas in the windows that a cron line begins; the minimum outside of them."""
    windows = [_window(text) for text in options["windows"].split(";")]

    def law(situation: Situation, _scaling: Scaling) -> Proposal:
        open_now = [(count, told) for cron, lasts, count, told in windows if cron.within(situation.time, lasts)]
        count, told = max(open_now, default=(0, ""))
        if count <= situation.min_replicas:
            return Proposal(situation.min_replicas, "no window asks for more than the minimum")
        return Proposal(count, f"window '{told}' asks for {count}")

    return law


def _window(text: str) -> tuple[Cron, float, int, str]:
    line, lasts, count = text.rsplit("/", 2)
    return parse_cron(line), parse_duration(lasts), int(count), line


def _queue(options: Mapping[str, str]) -> Law:
    """So many replicas as the backlog needs at so many waiting each."""
    name, each = options["name"], float(options["per_replica"])

    def law(situation: Situation, _scaling: Scaling) -> Proposal:
        backlog = situation.backlogs.get(name)
        if backlog is None or backlog.waiting is None:
            problem = f" ({backlog.problem})" if backlog and backlog.problem else ""
            return Proposal(situation.current, f"the backlog is not known{problem}: no shrinking", shrinkable=False)
        wanted = max(situation.min_replicas, ceil(backlog.waiting / each - _ROUNDING))
        return Proposal(wanted, f"{backlog.waiting:g} waiting, {each:g} a replica: {wanted} needed")

    return law


_LAWS: dict[str, Callable[[Mapping[str, str]], Law]] = {
    "resource": _resource,
    "target": _target,
    "pool": _pool,
    "predictive": _predictive,
    "slo": _slo,
    "schedule": _schedule,
    "queue": _queue,
}
KINDS = tuple(_LAWS)
