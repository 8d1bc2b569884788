"""What a target cannot carry of a plan: data, so that it can be printed, tested, and compared between targets."""

from collections.abc import Callable, Iterable, Iterator

from msgspec import Struct

from cfscale.core.plan import DeploymentPlan

Concerns = Callable[[DeploymentPlan], bool]


class Loss(Struct, frozen=True):
    """One thing of the plan, or of the Compose manifest, that a target carries otherwise or not at all.

    ``services`` are those that it touches, none where it is the deployment's; ``field`` is the manifest's key, or the
    plan's where no manifest has one. ``carried`` says what is there instead.
    """

    target: str
    services: tuple[str, ...]
    field: str
    planned: str
    carried: str
    why: str

    def line(self) -> str:
        """The loss as one line of text."""
        where = f"{', '.join(self.services)}: " if self.services else ""
        return f"not on {self.target}: {where}{self.field} ({self.planned}): {self.carried}; {self.why}"


def concerning(plan: DeploymentPlan, table: Iterable[tuple[Concerns, Loss]]) -> Iterator[Loss]:
    """Those losses of a table that concern this plan."""
    return (loss for concerns, loss in table if concerns(plan))


def always(_plan: DeploymentPlan) -> bool:
    """Whatever the plan."""
    return True


def has(service: str) -> Concerns:
    """Where this service runs."""
    return lambda plan: plan.find(service) is not None


def fails_over(*ways: str) -> Concerns:
    """Where the tier promises failover in one of these ways."""
    return lambda plan: plan.settings.failover in ways


def of_tier(name: str) -> Concerns:
    """In this tier."""
    return lambda plan: plan.tier == name
