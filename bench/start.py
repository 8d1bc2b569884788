"""Cold start of the commands an operator runs all day, as ratios to ``python -c pass`` in the same run.

CPU time of whole child processes, least of N rounds, so that other load on the machine cancels out. Asserts nothing.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROUNDS = 15
SIZING = ["--users", "40", "--agents", "400", "--tasks", "800"]


def main() -> None:
    cfscale = str(Path(sys.executable).with_name("cfscale"))
    render = [cfscale, "render", *SIZING, "--target", "compose", "--out"]
    with tempfile.TemporaryDirectory() as cwd:
        cases = {
            "python -c pass": ([sys.executable, "-c", "pass"], None),
            "python -c 'import typer'": ([sys.executable, "-c", "import typer"], 6.6),
            "cfscale --version": ([cfscale, "--version"], 1.5),
            "cfscale plan -o json": ([cfscale, "plan", *SIZING, "-o", "json"], 9.0),
            "cfscale plan": ([cfscale, "plan", *SIZING], None),
            "cfscale render": ([*render, f"{cwd}/out"], 15.0),
            "cfscale render, checked": ([*render, f"{cwd}/checked"], None),
            "cfscale --help": ([cfscale, "--help"], None),
        }
        least = {name: min(measured(name, argv, cwd) for _ in range(ROUNDS)) for name, (argv, _) in cases.items()}
    bare = least["python -c pass"]
    print(f"{'command':<28}{'CPU ms':>8}{'x bare':>8}{'goal':>7}")
    for name, (_, goal) in cases.items():
        print(f"{name:<28}{least[name] * 1000:8.1f}{least[name] / bare:8.1f}{'' if goal is None else f'{goal:7.1f}'}")


def measured(name: str, argv: list[str], cwd: str) -> float:
    """Rendering asks the components' own checkers that it finds; only where the case says so are there any to find."""
    checked = name.endswith("checked")
    return cpu_seconds(argv, cwd, os.environ["PATH"] if checked else str(Path(sys.executable).parent))


def cpu_seconds(argv: list[str], cwd: str, path: str) -> float:
    """CPU seconds by rusage of exactly this child and its own (os.times has 10 ms ticks), with modules compiled as pip leaves them."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | {"PATH": path}
    with subprocess.Popen(argv, cwd=cwd, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise SystemExit(f"{argv} exited {child.returncode}")
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
