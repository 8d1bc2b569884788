"""The chart: what it takes to render and pack it, and what ``helm template`` takes for the same chart, as a ratio.

Whole child processes, least of N rounds: seconds on the clock, which is what somebody waits, and of CPU. Asserts nothing.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 10
HOME = Path(os.environ.get("CFSCALE_CACHE") or Path.home() / ".cache" / "cfscale-ci") / "kubernetes"
LOADS = {
    "single-user": (3, 20, 40),
    "team": (10, 100, 100),
    "department": (40, 400, 800),
    "enterprise": (500, 5000, 9000),
}


def main() -> None:
    missing = [major for major in (3, 4) if not (HOME / f"helm{major}").exists()]
    if missing:
        print("no helm to compare with: run tests/e2e/kubernetes.sh tools")
        return
    print(f"{'tier':<13}{'command':<28}{'ms':>7}{'CPU ms':>8}{'x helm 4':>10}   goal: enterprise rendered in < 1000 ms")
    for tier, load in LOADS.items():
        with tempfile.TemporaryDirectory() as folder:
            compare(tier, load, folder)


def compare(tier: str, load: tuple[int, int, int], folder: str) -> None:
    """One tier's rows."""
    words = [f"--{name}={value}" for name, value in zip(("users", "agents", "tasks"), load, strict=True)]
    render = [
        str(Path(sys.executable).with_name("cfscale")),
        "render",
        *words,
        "--target=helm",
        f"--out={folder}/chart",
    ]
    commands = {
        "cfscale render": [*render, "--force"],
        "cfscale render --package": [*render, "--force", f"--package={folder}/chart.tgz"],
        "helm 4 template": [str(HOME / "helm4"), "template", "acme", f"{folder}/chart"],
        "helm 3 template": [str(HOME / "helm3"), "template", "acme", f"{folder}/chart"],
        "helm 4 package": [str(HOME / "helm4"), "package", f"{folder}/chart", "--destination", folder],
    }
    least = {name: min(spent(argv, folder) for _ in range(ROUNDS)) for name, argv in commands.items()}
    for name, (seconds, cpu) in least.items():
        ratio = seconds / least["helm 4 template"][0]
        print(f"{tier:<13}{name:<28}{seconds * 1e3:7.0f}{cpu * 1e3:8.0f}{ratio:10.2f}")


def spent(argv: list[str], cwd: str) -> tuple[float, float]:
    """Seconds on the clock and of CPU of exactly this child, with compiled modules as pip leaves them."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    begin = time.perf_counter()
    with subprocess.Popen(argv, cwd=cwd, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - begin
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise SystemExit(f"{argv} exited {child.returncode}")
    return seconds, usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
