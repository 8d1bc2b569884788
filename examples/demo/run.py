"""The whole path in two minutes: plan, render, up, probe, load, scale up, scale down, down.

Runs the cfscale of this interpreter on ``cfscale.yaml`` beside it. Exit code 0: the agents grew under load, shrank after
it, and every request was answered; 1 otherwise. ``--engine compose`` does the same on a Docker engine.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from load import Load, Report

HERE = Path(__file__).resolve().parent
OUT_OF_REACH = 3  # the exit code for an engine that does not answer
# a little more than one agent can do, its checks included: enough to grow, and not so much that these wait behind a queue
RATE, WORK_MS, LOAD_SECONDS, SETTLE_SECONDS = 12.0, 40, 25.0, 45.0


class Demo:
    """One deployment of the demo profile with a state directory of its own."""

    def __init__(self, engine: str, scratch: Path) -> None:
        """Everything the run leaves behind stays below ``scratch``."""
        self.engine, self.scratch = engine, scratch
        self.last: dict[str, object] = {}
        self.env = {**os.environ, "CFSCALE_STATE_DIR": str(scratch / "state")}

    def argv(self, command: str, *words: str) -> list[str]:
        """The command line of one cfscale command on the demo profile."""
        return [sys.executable, "-m", "cfscale", command, str(HERE / "cfscale.yaml"), *words]

    def run(self, command: str, *words: str) -> None:
        """Show and run one command; raises CalledProcessError where it fails."""
        print(f"\n$ cfscale {command} {' '.join(words)}".rstrip(), flush=True)
        subprocess.run(self.argv(command, *words), env=self.env, cwd=HERE, check=True)

    def status(self) -> dict[str, object]:
        """What ``cfscale status -o json`` says, or said last where an engine under load is late with its answer."""
        done = subprocess.run(
            self.argv("status", "-o", "json"), env=self.env, cwd=HERE, check=False, capture_output=True
        )
        if done.returncode != OUT_OF_REACH or not self.last:
            done.check_returncode()
            self.last = dict(json.loads(done.stdout))
        return self.last

    @contextmanager
    def scaling(self) -> Iterator[None]:
        """``scale --watch --apply`` in the background for as long as the block runs."""
        words = ("--engine", self.engine, "--watch", "--apply", "--for", "5m")
        print(f"\n$ cfscale scale {' '.join(words)} &", flush=True)
        with subprocess.Popen(self.argv("scale", *words), env=self.env, cwd=HERE) as watch:
            try:
                yield
            finally:
                watch.terminate()


def agents(status: dict[str, object]) -> tuple[int, list[str]]:
    """How many agents are ready, and where requests go: to the balancer where there is one, else to each of them."""
    replicas = [item for item in status["replicas"] if item["service"] == "agents" and item["state"] == "ready"]  # type: ignore[attr-defined]
    endpoint = status.get("endpoint")
    return len(replicas), [str(endpoint)] if endpoint else [str(item["address"]) for item in replicas]


def under_load(demo: Demo) -> tuple[list[int], Report]:
    """Load for a while, then none until one agent is left (or time is up); the counts seen and the load's report."""
    count, targets = agents(demo.status())
    current = {"targets": targets}
    seen = [count]
    print(
        f"\n{RATE:g} requests a second of {WORK_MS} ms CPU each for {LOAD_SECONDS:g} s, to {', '.join(targets)}",
        flush=True,
    )
    load = Load(lambda: current["targets"], f"/work?ms={WORK_MS}", rate=RATE, seconds=LOAD_SECONDS).start()
    loaded = time.monotonic() + LOAD_SECONDS
    while (now := time.monotonic()) < loaded + SETTLE_SECONDS:
        if now > loaded and max(seen) > 1 and seen[-1] == 1:
            break
        count, current["targets"] = agents(demo.status())
        if count != seen[-1]:
            seen.append(count)
        time.sleep(0.3)
    return seen, load.wait()


def balancer_says() -> None:
    """What the balancer of the Compose project logged of errors and of who came and went."""
    done = subprocess.run(
        ["docker", "logs", "--timestamps", "demo-loadbalancer-1"], check=False, capture_output=True, text=True
    )
    told = [line for line in done.stdout.splitlines() if " 503 " in line or " is UP" in line or " is DOWN" in line]
    print("\nthe load balancer's log, as far as it says who was there", *told, sep="\n", flush=True)


def verdict(seen: list[int], report: Report) -> int:
    """Print what was seen and say whether it is what was promised."""
    grew, shrank = max(seen) > seen[0], seen[-1] < max(seen)
    print(f"\nagents ready over time: {' -> '.join(map(str, seen))}")
    print(f"requests: {report.line()}")
    good = grew and shrank and report.lost == 0 and report.sent > 0
    print("grew under load, shrank after it, nothing lost" if good else "NOT what was promised", flush=True)
    return 0 if good else 1


def main() -> int:
    """Run the demo and tidy up, whatever happens."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default="process", choices=("process", "compose"))
    engine = parser.parse_args().engine
    with tempfile.TemporaryDirectory(prefix="cfscale-demo-") as scratch:
        demo = Demo(engine, Path(scratch))
        demo.run("plan")
        demo.run("render", "--target", "compose", "--out", f"{scratch}/manifests")
        try:
            demo.run("up", "--engine", engine, *(["--detach"] if engine == "process" else []))
            demo.run("probe")
            with demo.scaling():
                seen, report = under_load(demo)
            demo.run("history", "--last", "12")
            if report.lost and engine == "compose":
                balancer_says()
        finally:
            demo.run("down", "--engine", engine)
        return verdict(seen, report)


if __name__ == "__main__":
    sys.exit(main())
