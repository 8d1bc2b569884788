"""Every error cfscale raises on purpose, as one tree with one exit code a class.

    CfscaleError                 1   the answer is no, or an action failed
    ├── RefusedError             1   drift, a foreign file in the way, capacity that cannot be had
    ├── ActionError              1   an action failed, or took effect only in part
    ├── InputError               2   usage or bad input: where, what, what to do
    ├── UnavailableError         3   engine or backend out of reach, stale or missing data
    │   └── NotRunningError      3   nobody runs the deployment: it was not started, or has ended
    └── LockedError              4   another cfscale holds the lock, or a saved plan is stale

Adapters translate what their libraries raise into one of these, with the cause chained. ``cli.main`` is the only
place that catches them; anything else that reaches it is a defect and exits 70.
"""

from typing import ClassVar


class CfscaleError(Exception):
    """Root of the tree. ``str(error)`` is one line: where, what, and what to do."""

    exit_code: ClassVar[int] = 1


class RefusedError(CfscaleError):
    """The answer is no: drift, a file edited by hand, capacity that cannot be had."""


class ActionError(CfscaleError):
    """An action failed or took effect only in part; the message says how far it came."""


class InputError(CfscaleError):
    """A flag, a profile or another input is wrong; the message names the place and the remedy."""

    exit_code: ClassVar[int] = 2


class UnavailableError(CfscaleError):
    """No verdict is possible: an engine or a backend is out of reach, or its data are missing or stale."""

    exit_code: ClassVar[int] = 3


class NotRunningError(UnavailableError):
    """Nobody runs the deployment: it was not started, or has ended. Unlike silence, this says that nothing is there."""


class LockedError(CfscaleError):
    """Another cfscale holds the lock on this target; the message names the holder."""

    exit_code: ClassVar[int] = 4
