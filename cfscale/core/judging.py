"""The figures by which answers are judged beyond up and down, as the catalogue says them."""

from msgspec import Struct

from cfscale.core.tier import Rules


class Judging(Struct, frozen=True):
    """When a verdict does not tell the whole story.

    A target whose latest ``flaky_answers`` turned ``flaky_turns`` times is flaky. A group of at least ``panic_targets``
    of which more than ``panic_ratio`` went down within one round has a cause in common: nobody may act on it.
    Where this host could not look for ``late_seconds``, and for ``late_ratio`` of the time limit, the target is not to blame.
    What is in doubt is asked again after ``confirm_seconds``; a certificate with less than ``certificate_seconds`` left is degraded.
    """

    flaky_turns: int
    flaky_answers: int
    panic_targets: int
    panic_ratio: float
    late_seconds: float
    late_ratio: float
    confirm_seconds: float
    certificate_seconds: float

    @classmethod
    def of(cls, rules: Rules) -> "Judging":
        """What the catalogue says."""
        return cls(
            flaky_turns=int(rules.leaf("probing.flaky.turns").exact),
            flaky_answers=int(rules.leaf("probing.flaky.answers").exact),
            panic_targets=int(rules.leaf("probing.panic.targets").exact),
            panic_ratio=rules.leaf("probing.panic.share").ratio,
            late_seconds=float(rules.leaf("probing.late.least").exact),
            late_ratio=rules.leaf("probing.late.share").ratio,
            confirm_seconds=float(rules.leaf("probing.confirm").exact),
            certificate_seconds=rules.leaf("probing.certificate").seconds,
        )
