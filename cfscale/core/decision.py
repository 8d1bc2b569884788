"""What the scaler decided for one service in one tick, and how it is written down.

A decision's JSON form is the document ``cfscale/decision/v1``; a line of the journal is the same object with ``kind``
and ``id`` beside it. The intent of an action is written before it, the result after; equal ids belong together.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from hashlib import sha256
from math import ceil

from msgspec import Struct
from msgspec.structs import replace

from cfscale.core.samples import Quality, Sample

DECISION_SCHEMA = "cfscale/decision/v1"
ID_CHARACTERS = 10
_DOUBTFUL = (Quality.STALE, Quality.WARMING)
_NUMBERS = b"0123456789."
_OTHER_SHARES = (60, 70, 80, 90)


class Action(StrEnum):
    """The direction of a decision."""

    SCALE_UP = "scale_up"
    SCALE_DOWN = "scale_down"
    HOLD = "hold"


_HOLD = Action.HOLD  # looked up once: an enumeration is slow to ask, and most decisions are this


class Urgency(StrEnum):
    """How soon someone should look: critical above 95 percent of any resource, high while growing."""

    LOW = "low"
    HIGH = "high"
    CRITICAL = "critical"


class Basis(Struct, frozen=True, gc=False):
    """What a decision rests on beside its samples: replicas ready and on their way, each policy's wish, the forecast."""

    ready: int
    starting: int
    proposals: Mapping[str, int]
    expected: float | None = None
    margin: float | None = None
    horizon_seconds: float | None = None
    short_ratio: float | None = None
    error_ratio: float | None = None


class Decision(Struct, frozen=True, gc=False):
    """An absolute replica count for one service and the reason for it in words.

    ``applied`` says that the count was reached: an action that failed or took effect in part leaves it false.
    """

    schema: str
    time: str
    service: str
    engine: str
    current: int
    desired: int
    action: Action
    urgency: Urgency
    reason: str
    applied: bool
    samples: tuple[Sample, ...]
    basis: Basis | None = None

    def to(self, desired: int, reason: str) -> "Decision":
        """The decision with another count; the new reason follows the one before it."""
        action = direction(self.current, desired)
        reason = f"{self.reason}; {reason}" if self.reason else reason
        return replace(self, desired=desired, action=action, reason=reason)

    def hold(self, reason: str) -> "Decision":
        """The decision to keep the count as it is."""
        return self.to(self.current, reason)

    @property
    def grounded(self) -> bool:
        """Whether it rests on data: at least one sample, none of them stale or still warming up."""
        doubtful = [sample for sample in self.samples if sample.quality in _DOUBTFUL]
        return bool(self.samples) and not doubtful

    @property
    def gist(self) -> str:
        """The reason without its numbers: two holds of equal gist say the same."""
        return self.reason.encode().translate(None, _NUMBERS).decode()


class Kind(StrEnum):
    """What a line of the journal records."""

    INTENT = "intent"
    RESULT = "result"
    DECISION = "decision"


class Entry(Struct, frozen=True, gc=False):
    """One line of the journal."""

    kind: Kind
    id: str
    decision: Decision


def direction(current: int, desired: int) -> Action:
    """The action that leads from one count to another."""
    if desired == current:
        return _HOLD
    return Action.SCALE_UP if desired > current else Action.SCALE_DOWN


@lru_cache(maxsize=4)
def timestamp(time: float) -> str:
    """Seconds since the epoch as RFC 3339 in UTC, to the millisecond; all decisions of a tick share one."""
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def entry(kind: Kind, decision: Decision) -> Entry:
    """A journal entry of this decision."""
    return Entry(kind, identity(decision), decision)


def identity(decision: Decision) -> str:
    """A short name for a decision, the same in journal and log: time and service are all that it follows from."""
    return sha256(f"{decision.time}/{decision.service}".encode()).hexdigest()[:ID_CHARACTERS]


def unfinished(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """The intents that no result followed: actions cut short, oldest first."""
    open_intents: dict[str, Entry] = {}
    for item in entries:
        if item.kind is Kind.INTENT:
            open_intents[item.id] = item
        elif item.kind is Kind.RESULT:
            open_intents.pop(item.id, None)
    return tuple(open_intents.values())


def alternatives(decision: Decision) -> tuple[tuple[str, int], ...]:
    """What other settings would have asked for from the same data, before damping: (setting, replicas)."""
    basis = decision.basis
    cpu = next((sample.value_ratio for sample in decision.samples if sample.resource == "cpu"), None)
    if basis is None or cpu is None or not basis.ready:
        return ()
    load = cpu * basis.ready
    filled = [(f"cpu filled to {share}%", _carried(load, share / 100)) for share in _OTHER_SHARES]
    if basis.expected is None or basis.margin is None:
        return tuple(filled)
    margins = [("no margin", 0.0), ("half the margin", 0.5), ("twice the margin", 2.0)]
    return (*((words, _carried(basis.expected + part * basis.margin, 1.0)) for words, part in margins), *filled)


def _carried(load: float, share: float) -> int:
    return max(1, ceil(load / share - 1e-9))
