"""What a target cannot carry of a plan: data, so that it can be printed, tested, and compared between targets."""

from msgspec import Struct


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
