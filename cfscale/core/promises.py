"""What a tier promises beside its sizes: how it scales by itself, what is kept, and how it is guarded.

Engines that can keep a promise are configured for it (a cluster's operators can do more than a single host); the words
are those of the catalogue.
"""

from msgspec import Struct


class Law(Struct, frozen=True):
    """The law of predictive scaling.

    Grow above ``scale_up_ratio``; shrink by ``scale_down_factor`` once the load was below ``scale_down_ratio`` for
    ``after_seconds``.
    """

    scale_up_ratio: float
    scale_down_ratio: float
    after_seconds: int
    scale_down_factor: float


class Promises(Struct, frozen=True):
    """The tier's words; None where it says nothing."""

    predictive: Law
    auto_scaling: str | None = None
    alerting: str | None = None
    dashboards: str | None = None
    geographic_distribution: str | None = None
    backup_every_seconds: int | None = None
    backup_kept_seconds: int | None = None
    encryption: str | None = None
    authentication: str | None = None
    authorization: str | None = None
    audit_logging: str | None = None
    compliance: str | None = None
