"""Policy unit tests of ``cfscale simulate --assert``: play scenarios and say which of their expectations failed."""

from collections.abc import Sequence
from pathlib import Path

from cfscale.cli import console
from cfscale.cli.console import Output
from cfscale.core.scenario import Scenario, failures, run
from cfscale.core.settings import scaling_of
from cfscale.core.workload import Profile
from cfscale.errors import ActionError, InputError

ASSERTION_SCHEMA = "cfscale/assertion/v1"


def assert_all(paths: Sequence[Path], output: Output) -> int:
    """Play each scenario; 1 where any of them did not come out as expected, else 0."""
    from cfscale.adapters.assets import load_catalogue

    scaling = scaling_of(Profile(), load_catalogue().rules)
    results = []
    for path in paths:
        scenario = _read(path)
        outcome = run(scenario, scaling)
        results.append((path.stem, len(outcome.actions), outcome.counts[-1:], failures(scenario, outcome)))
    if output is Output.TABLE:
        rows = [
            (name, "failed" if failed else "ok", str(actions), str(*last), "; ".join(failed))
            for name, actions, last, failed in results
        ]
        console.result(console.table(("scenario", "verdict", ">actions", ">replicas", "not as expected"), rows))
    else:
        documents = [
            {"scenario": name, "ok": not failed, "actions": actions, "failures": list(failed)}
            for name, actions, _, failed in results
        ]
        console.document({"schema": ASSERTION_SCHEMA, "results": documents}, output)
    return ActionError.exit_code if any(failed for *_, failed in results) else 0


def _read(path: Path) -> Scenario:
    from cfscale.adapters.decode import MAX_BYTES, decode_yaml

    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}: give the path of a scenario") from error
    scenario, _ = decode_yaml(raw, Scenario, str(path))
    return scenario
