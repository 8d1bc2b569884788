"""Exact search for the next step of a plan along a line on which its inputs only grow, or only shrink.

What is relied on: while inputs grow the tier only grows; within a tier the cells only grow; within both the coordinators
and balancers only grow; while all of these stay the agents' replicas only grow. Totals and machines follow from these
counts. Machines need not grow with them (first-fit decreasing promises no order), so their steps are never bisected:
each replica count is packed in turn, and only the place where a count is reached is searched for.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

from msgspec import Struct, field
from msgspec.structs import replace

from cfscale.core.nodes import Shape, choose_nodes, shapes_of
from cfscale.core.plan import DeploymentPlan
from cfscale.core.sizing import recount, recount_others, size, totals_of
from cfscale.core.tier import AGENTS, Catalogue
from cfscale.core.workload import Profile, Workload
from cfscale.errors import InputError, RefusedError

DRIVERS = ("users", "agents", "tasks")
T = TypeVar("T")
View = Callable[[DeploymentPlan], Hashable]
Guess = Callable[[DeploymentPlan, int], int]
_Machines = tuple[tuple[Shape, ...], int]


def first(holds: Callable[[int], bool], low: int, high: int, guess: int = 0) -> int | None:
    """The least value in (low, high] at which a condition that stays true holds; None where it does not at high.

    It must not hold at low. A guess inside saves evaluations and decides nothing.
    """
    if low >= high:
        return None
    near = min(max(guess, low + 1), high)
    if holds(near):
        low, high = _below(holds, low, near)
    elif near == high or not holds(high):
        return None
    else:
        low, high = _above(holds, near, high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _below(holds: Callable[[int], bool], low: int, high: int) -> tuple[int, int]:
    """A narrow bracket below a value at which it holds, by steps that double."""
    step = 1
    while high - step > low and holds(high - step):
        high, step = high - step, step * 2
    return max(low, high - step), high


def _above(holds: Callable[[int], bool], low: int, high: int) -> tuple[int, int]:
    """A narrow bracket above a value at which it does not hold, by steps that double."""
    step = 1
    while low + step < high and not holds(low + step):
        low, step = low + step, step * 2
    return low, min(high, low + step)


def place(plan: DeploymentPlan) -> Hashable:
    """The tier and the number of cells."""
    return plan.tier, plan.cells


def machines(plan: DeploymentPlan) -> int:
    """The machines of all cells."""
    return plan.cells * plan.nodes.count


def loaded(profile: Profile, workload: Workload) -> Profile:
    """The profile with this workload before growth."""
    return replace(profile, users=workload.users, agents=workload.agents, tasks=workload.tasks)


class Line(Struct, frozen=True):
    """The plans along a line of profiles, each sized once; index 0 is where the operator stands.

    ``profile_at`` gives None beyond what a profile may say. ``guess`` says near which index the agents of a plan come to
    a replica count. ``packed`` remembers plans with other replica counts, and may be shared by the lines of one profile.
    """

    catalogue: Catalogue
    profile_at: Callable[[int], Profile | None]
    rising: bool = True
    guess: Guess = lambda _plan, _replicas: 0
    seen: dict[int, DeploymentPlan | None] = field(default_factory=dict)
    packed: dict[Hashable, DeploymentPlan] = field(default_factory=dict)
    counted: dict[Hashable, tuple[int, ...] | None] = field(default_factory=dict)
    edges: dict[tuple[int, int], int | None] = field(default_factory=dict)

    def at(self, index: int) -> DeploymentPlan | None:
        """The plan at an index; None where nothing can be planned."""
        if index not in self.seen:
            self.seen[index] = planned(self.profile_at(index), self.catalogue)
        return self.seen[index]

    def next_change(self, view: View, last: int, guess: int = 0) -> int | None:
        """The least index in (0, last] at which a view of the place differs from the first, or there is no plan.

        The view must follow from tier and cells and only grow along the line. None too where there is no plan at 0.
        """
        base = self.at(0)
        if base is None:
            return None

        def changed(index: int) -> bool:
            if self._counts(index, base) is not None:  # the same tier and cells
                return False
            plan = self.at(index)
            return plan is None or view(plan) != view(base)

        return first(changed, 0, last, guess)

    def next_step(self, view: View, start: int, last: int) -> int | None:
        """The least index in (start, last] at which the view of the plan differs from the one at start.

        The view must follow from tier, cells, service counts, nodes, and what all of them hold of CPU and memory. No plan
        differs from every plan.
        """
        base, here = self.at(start), start
        plan = base
        while base is not None and plan is not None:
            edge = self._edge(plan, here, last)
            found = self._turn_before(edge, view, view(base), (plan, here, last))
            if found is None:
                found = edge
            if found is None:
                return None
            plan = self.along(found, plan)
            if plan is None or view(plan) != view(base):
                return found
            here = found
        return None

    def along(self, index: int, plan: DeploymentPlan) -> DeploymentPlan | None:
        """The plan at an index, as far as a view sees it: in the place of a plan that is known its counts are enough."""
        if index in self.seen or (counts := self._counts(index, plan)) is None:
            return self.at(index)
        return _with_counts(plan, counts, self._machines(plan))

    def _machines(self, plan: DeploymentPlan) -> _Machines:
        return shapes_of(self.catalogue.rules), spare_of(plan, self.catalogue)

    def _edge(self, plan: DeploymentPlan, here: int, last: int) -> int | None:
        """The least index in (here, last] at which anything beside the agents has changed; None where nothing does."""
        if (here, last) not in self.edges:
            others = _others(plan)
            edge = first(lambda index: self._beside(index, plan) != others, here, last)
            end = last if edge is None else edge - 1
            if end > here and self._counts(end, plan) is None:  # the agents pass a bound of the profile before that
                edge = first(lambda index: self._counts(index, plan) is None, here, end)
            self.edges[here, last] = edge
        return self.edges[here, last]

    def _turn_before(
        self, edge: int | None, view: View, wanted: Hashable, at: tuple[DeploymentPlan, int, int]
    ) -> int | None:
        """The least index before the edge at which the agents come to, or pass, a count that changes the view."""
        plan, here, last = at
        end = last if edge is None else edge - 1
        turn = self._turn(view, wanted, plan, self._agents(end, plan))
        if turn is None:
            return None

        def reached(index: int) -> bool:
            count = self._agents(index, plan)
            return count >= turn if self.rising else count <= turn

        return first(reached, here, end, self.guess(plan, turn))

    def _turn(self, view: View, wanted: Hashable, plan: DeploymentPlan, reach: int) -> int | None:
        """The first replica count of the agents on the way to one that is reached, at which the view changes."""
        now = plan.service("agents").replicas
        counts = range(now + 1, reach + 1) if self.rising else range(now - 1, reach - 1, -1)
        others, agents, machines = _others(plan), _agents_index(plan), self._machines(plan)
        filled = [service.replicas for service in plan.services]

        def packed(count: int) -> DeploymentPlan:
            if (others, count) not in self.packed:
                filled[agents] = count
                self.packed[others, count] = _with_counts(plan, filled, machines)
            return self.packed[others, count]

        return next((count for count in counts if view(packed(count)) != wanted), None)

    def _beside(self, index: int, plan: DeploymentPlan) -> Hashable:
        """What ``_others`` says of the plan at an index; None in another place, or where they cannot be planned."""
        profile = self.profile_at(index)
        if profile is None:
            return None
        counts = _attempted(lambda: recount_others(profile, self.catalogue, plan))
        return None if counts is None else (place(plan), counts)

    def _agents(self, index: int, plan: DeploymentPlan) -> int:
        """The agents at an index in the place of the plan."""
        counts = self._counts(index, plan)
        if counts is None:
            raise ValueError(f"index {index} is not in the place of the plan")
        return counts[_agents_index(plan)]

    def _counts(self, index: int, plan: DeploymentPlan) -> tuple[int, ...] | None:
        """The replicas of each service of a plan at an index; None in another place, or where nothing can be planned."""
        key = place(plan), index
        if key not in self.counted:
            profile = self.profile_at(index)
            self.counted[key] = None if profile is None else _attempted(lambda: recount(profile, self.catalogue, plan))
        return self.counted[key]


def planned(profile: Profile | None, catalogue: Catalogue) -> DeploymentPlan | None:
    """The plan of a profile, without its ledger; None where there is none of it."""
    return None if profile is None else _attempted(lambda: size(profile, catalogue, explained=False))


def _attempted(work: Callable[[], T | None]) -> T | None:
    """What can be planned; None where a tier that was asked for is too small, or a bound of the profile is passed."""
    try:
        return work()
    except (InputError, RefusedError):
        return None


def _others(plan: DeploymentPlan) -> Hashable:
    return place(plan), tuple(service.replicas for service in plan.services if service.name != AGENTS)


def _with_counts(plan: DeploymentPlan, counts: Sequence[int], machines: _Machines) -> DeploymentPlan:
    """The plan with so many replicas of its services; CPU and memory of the totals, and the machines, follow."""
    services = tuple(
        service if service.replicas == count else replace(service, replicas=count)
        for service, count in zip(plan.services, counts, strict=True)
    )
    shapes, spare = machines
    packing = choose_nodes(shapes, services, least=plan.settings.replication_factor, spare=spare)
    return replace(plan, services=services, totals=totals_of(services, plan.cells), nodes=packing.nodes)


def _agents_index(plan: DeploymentPlan) -> int:
    return next(index for index, service in enumerate(plan.services) if service.name == AGENTS)


def spare_of(plan: DeploymentPlan, catalogue: Catalogue) -> int:
    """The machines kept for a lost one where the tier promises failover."""
    return int(catalogue.rules.leaf("sizing.failover_spare").exact) if plan.settings.failover else 0
