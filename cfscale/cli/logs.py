"""Structured logs: one JSON object a line on standard error, for a collector.

    {"time", "level", "service", "instance", "correlation_id", "message", ...}

``service`` and ``instance`` say who writes (SERVICE_NAME and INSTANCE_ID where they are set); ``correlation_id`` is the
decision in hand, the id that ``cfscale history`` shows and ``cfscale explain`` takes; empty between decisions.
"""

import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from logging import Handler, LogRecord
from typing import TYPE_CHECKING

import msgspec

from cfscale.cli import console
from cfscale.core.decision import Decision, identity, timestamp

if TYPE_CHECKING:
    from contextvars import ContextVar

_LOGGER = "cfscale"
_LEVELS = {"note": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class LogFormat(StrEnum):
    """How what goes to standard error looks."""

    TEXT = "text"
    JSON = "json"


class JsonHandler(Handler):
    """Writes each record as one line."""

    def __init__(self, correlation: "ContextVar[Decision | None]") -> None:
        super().__init__()
        self._correlation = correlation
        self._who = {
            "service": os.environ.get("SERVICE_NAME") or "cfscale-scale",
            "instance": os.environ.get("INSTANCE_ID") or f"{socket.gethostname()}:{os.getpid()}",
            "deployment": "",
        }

    def of(self, deployment: str) -> None:
        """Say of which deployment the lines are from now on."""
        self._who["deployment"] = deployment

    def emit(self, record: LogRecord) -> None:
        """Write one record; a stream that is gone is no reason to stop scaling."""
        head = {"time": timestamp(record.created), "level": record.levelname.lower()}
        in_hand = self._correlation.get()
        correlation_id = identity(in_hand) if in_hand else ""
        said = {"correlation_id": correlation_id, "message": console.clean(record.getMessage())}
        decision = getattr(record, "decision", None)
        facts = _facts(decision) if isinstance(decision, Decision) else {}
        try:
            sys.stderr.write(msgspec.json.encode({**head, **self._who, **said, **facts}).decode() + "\n")
            sys.stderr.flush()
        except (OSError, ValueError):
            return


def _facts(decision: Decision) -> dict[str, object]:
    names = ("current", "desired", "action", "urgency", "applied", "engine")
    return {"scaled_service": decision.service, **{name: getattr(decision, name) for name in names}}


@contextmanager
def logging_as(wanted: LogFormat) -> Iterator[Callable[[str], None]]:
    """While the block runs, everything for standard error is logged in this format; gives how to name the deployment.

    An error that ends the block is told in this format too, by whoever catches it: ``console.divert(None)`` ends that.
    """
    if wanted is LogFormat.TEXT:
        yield lambda _name: None
        return
    from cfscale.runtime.watch import correlation

    logger, handler = logging.getLogger(_LOGGER), JsonHandler(correlation)
    level, propagates = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    console.divert(lambda kind, text: handler.emit(LogRecord(_LOGGER, _LEVELS[kind], "", 0, text, None, None)))
    try:
        yield handler.of
        console.divert(None)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagates
