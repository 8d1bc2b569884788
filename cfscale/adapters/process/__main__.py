"""The background supervisor: ``python -m cfscale.adapters.process STATE``, as ``up --detach`` starts it.

Its standard output stays open until it answers on its socket; what it says there is why it could not.
"""

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from msgspec.json import decode

from cfscale.adapters.process.client import Order
from cfscale.adapters.process.layout import Layout, open_log
from cfscale.adapters.process.recipes import plan_recipes
from cfscale.adapters.process.supervisor import Supervisor
from cfscale.errors import CfscaleError


def main() -> None:
    """Go into the background and supervise what STATE/supervisor.json orders."""
    if os.fork():
        os._exit(0)
    os.setsid()
    layout = Layout(Path(sys.argv[1]))
    try:
        supervise(layout)
    except CfscaleError as error:
        json.dump([type(error).__name__, str(error)], sys.stdout)
        sys.exit(error.exit_code)


def supervise(layout: Layout) -> None:
    """Run to the end; raises CfscaleError while nothing is started yet."""
    order = decode(layout.order.read_bytes(), type=Order)
    recipes = plan_recipes(order.plan, layout, Path(order.base_dir))
    with Supervisor(order.plan, recipes, layout, log_line) as supervisor:
        let_go(layout)
        supervisor.run(order.counts)


def let_go(layout: Layout) -> None:
    """Write to the log from now on; whoever started this process sees the end of its pipe."""
    os.chdir("/")
    log = open_log(layout.logs / "supervisor.log")
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


def log_line(text: str) -> None:
    """One event, with its time in UTC."""
    sys.stderr.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {text}\n")
    sys.stderr.flush()


main()
