"""Probing on loopback: httpx, aiohttp, asyncio and cfscale on the same healthy targets, so every failure is a false one.

    python bench/probe.py [--rounds 20] [--watch 30]

The server is nginx (else HAProxy) with one worker; targets are distinct loopback addresses, 100 in flight, 2 s each.
Every case runs in a process of its own. CPU is the client's. What is not installed (httpx is; aiohttp, uvloop) is
left out and said to be. Prints tables and goals, asserts nothing: judge ratios, the machine may have other work.
"""

import argparse
import asyncio
import importlib.util
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from cfscale.core.health import Target
    from cfscale.core.judging import Judging

SECONDS, IN_FLIGHT = 2.0, 100
CASES = ("httpx", "aiohttp", "asyncio", "cfscale", "cfscale+uvloop")
GOAL_WALL = {1000: 0.35, 10_000: 2.5}
GOAL_CPU = {"cfscale": 200.0, "cfscale+uvloop": 90.0}


class Case(msgspec.Struct, frozen=True):
    """What one process measured over its rounds; the least wall and CPU, all failures."""

    wall: float
    cpu_microseconds: float
    failed: int
    asked: int
    rss_mib: float
    latencies: list[float] = []


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--rounds", type=int, default=20, help="rounds of 10 000 that must hold no false failure")
    options.add_argument("--watch", type=int, default=30, help="seconds of watching 1 000 targets every 10 s")
    options.add_argument("--case", nargs=4, metavar=("NAME", "TARGETS", "ROUNDS", "PORT"))
    given = options.parse_args()
    if given.case:
        name, *numbers = given.case
        sys.stdout.buffer.write(msgspec.json.encode(run_case(name, *map(int, numbers))))
        return
    with serving() as port:
        flood(port)
        never_false(port, given.rounds)
        steady(port, given.watch)
        paced(port)


def flood(port: int) -> None:
    print(f"all at once, {IN_FLIGHT} in flight, best of 3 rounds (httpx: 1)")
    print(
        f"{'client':<16}{'targets':>9}{'wall s':>9}{'goal':>7}{'CPU us/probe':>14}{'goal':>6}{'false':>8}{'RSS MiB':>9}"
    )
    for count in (1000, 10_000):
        for name in CASES:
            if missing(name):
                print(f"{name:<16}{count:>9,}   not installed: {missing(name)}")
                continue
            if name == "httpx" and count > 1000:
                print(f"{name:<16}{count:>9,}   not run: it was not done with half of them after 200 s")
                continue
            case = child(name, count, 1 if name == "httpx" else 3, port)
            ours = name.startswith("cfscale")
            goals = (f"{GOAL_WALL[count]:g}" if ours else "", f"{GOAL_CPU[name]:g}" if ours else "")
            print(
                f"{name:<16}{count:>9,}{case.wall:>9.2f}{goals[0]:>7}{case.cpu_microseconds:>14.0f}{goals[1]:>6}"
                f"{case.failed:>8,}{case.rss_mib:>9.0f}",
                flush=True,
            )


def never_false(port: int, rounds: int) -> None:
    case = child("cfscale", 10_000, rounds, port)
    print(
        f"\ncfscale, {rounds} rounds of 10 000: {case.failed} false of {case.asked:,}; RSS {case.rss_mib:.0f} MiB (goal 60)"
    )


def steady(port: int, seconds: int) -> None:
    """CPU of the whole command while it watches, beyond what it takes to start."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(f"http://{host}:{port}/" for host in hosts(1000)))
        file.flush()
        argv = [
            sys.executable,
            "-m",
            "cfscale",
            "probe",
            "--targets",
            file.name,
            "--watch",
            "--interval",
            "10s",
            "-o",
            "json",
        ]
        short, long = (cpu_of([*argv, "--for", f"{length}s"]) for length in (1, seconds + 1))
    rounds = seconds // 10
    share = (long - short) / (rounds * 10)
    print(f"\nwatching 1 000 targets every 10 s, {rounds} rounds: {share:.1%} of a core (goal 3 %)", flush=True)


def paced(port: int) -> None:
    """Latency as reported for 100 targets a second, beside curl's on the same targets at the same pace."""
    case = child("paced", 400, 1, port)
    theirs = curl(port, 400)
    ours = sorted(case.latencies)
    print(f"\n100 targets a second: {'p50 ms':>10}{'p99 ms':>10}")
    for name, found in (("cfscale", ours), ("curl (C)", theirs)):
        if found:
            print(f"{name:<22}{found[len(found) // 2] * 1000:>10.2f}{found[len(found) * 99 // 100] * 1000:>10.2f}")
    if theirs:
        print(
            f"difference of the medians {abs(ours[len(ours) // 2] - theirs[len(theirs) // 2]) * 1000:.2f} ms (goal 1)"
        )


def curl(port: int, count: int) -> list[float]:
    program = shutil.which("curl")
    if program is None:
        print("curl is not installed: no C client to compare with")
        return []
    urls = [word for host in hosts(count) for word in ("-o", "/dev/null", f"http://{host}:{port}/")]
    argv = [program, "-s", "--no-keepalive", "--rate", "100/s", "-w", "%{time_total}\n", *urls]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    return sorted(float(line) for line in done.stdout.split())


def hosts(count: int) -> list[str]:
    return [f"127.{1 + n // 62_500}.{n // 250 % 250}.{n % 250 + 1}" for n in range(count)]


def missing(name: str) -> str | None:
    needed = {"cfscale+uvloop": "uvloop", "httpx": "httpx", "aiohttp": "aiohttp"}.get(name)
    return needed if needed and importlib.util.find_spec(needed) is None else None


def child(name: str, count: int, rounds: int, port: int) -> Case:
    argv = [sys.executable, __file__, "--case", name, str(count), str(rounds), str(port)]
    done = subprocess.run(argv, capture_output=True, timeout=900, check=True)
    return msgspec.json.decode(done.stdout, type=Case)


def cpu_of(argv: Sequence[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(argv, stdout=subprocess.DEVNULL, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


# ---- one case, in a process of its own

Round = Callable[[list[str], int], Awaitable[tuple[int, list[float]]]]


def run_case(name: str, count: int, rounds: int, port: int) -> Case:
    factory = None
    if name == "cfscale+uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    ask: dict[str, Round] = {"httpx": by_httpx, "aiohttp": by_aiohttp, "asyncio": by_streams, "paced": by_pace}
    walls, cpus, failed, latencies = [], [], 0, []
    judging(), parsed(count, port)
    with asyncio.Runner(loop_factory=factory) as runner:
        for _ in range(rounds):
            wall, cpu = time.perf_counter(), time.process_time()
            bad, latencies = runner.run(_awaited(ask.get(name, by_cfscale), hosts(count), port))
            walls.append(time.perf_counter() - wall)
            cpus.append((time.process_time() - cpu) / count * 1e6)
            failed += bad
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Case(min(walls), min(cpus), failed, count * rounds, rss, latencies if name == "paced" else [])


async def _awaited(ask: Round, targets: list[str], port: int) -> tuple[int, list[float]]:
    return await ask(targets, port)


@cache
def judging() -> "Judging":
    """The catalogue's figures, read once: it is start-up that this costs, not probes."""
    from cfscale.adapters.assets import load_catalogue
    from cfscale.core.judging import Judging

    return Judging.of(load_catalogue().rules)


async def by_cfscale(targets: list[str], port: int) -> tuple[int, list[float]]:
    from functools import partial

    from cfscale.adapters.probes.ask import ask
    from cfscale.adapters.probes.network import Network
    from cfscale.cli.scale import Clock
    from cfscale.runtime.probing import Survey

    found = parsed(len(targets), port)
    survey = Survey(partial(ask, network=Network(judging())), Clock(), judging(), confirm_seconds=None)
    report = (await survey.round(found)).report
    return len(found) - report.summary.up, []


@cache
def parsed(count: int, port: int) -> "list[Target]":
    """The targets as the command has them before the first round."""
    from cfscale.adapters.probes.url import parse_target

    return [parse_target(f"http://{host}:{port}/", timeout_seconds=SECONDS) for host in hosts(count)]


async def by_pace(targets: list[str], port: int) -> tuple[int, list[float]]:
    from cfscale.adapters.probes.ask import ask
    from cfscale.adapters.probes.network import Network
    from cfscale.adapters.probes.url import parse_target

    network, latencies, began = Network(judging()), [], time.monotonic()
    for number, host in enumerate(targets):
        await asyncio.sleep(max(0.0, began + number / 100 - time.monotonic()))
        attempt = await ask(parse_target(f"http://{host}:{port}/", timeout_seconds=SECONDS), network)
        latencies.append(attempt.latency_seconds or 0.0)
    return 0, latencies


async def by_httpx(targets: list[str], port: int) -> tuple[int, list[float]]:
    """With its default pool, as most programs use it."""
    import httpx

    async with httpx.AsyncClient(timeout=SECONDS, trust_env=False) as client:

        async def one(host: str) -> bool:
            try:
                return (await client.get(f"http://{host}:{port}/", headers={"Connection": "close"})).status_code == 200
            except httpx.HTTPError:
                return False

        return (await asyncio.gather(*map(one, targets))).count(False), []


async def by_aiohttp(targets: list[str], port: int) -> tuple[int, list[float]]:
    """With its default limit of 100 connections."""
    import aiohttp

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=SECONDS)) as session:

        async def one(host: str) -> bool:
            try:
                async with session.get(f"http://{host}:{port}/", headers={"Connection": "close"}) as response:
                    return response.status == 200
            except (aiohttp.ClientError, TimeoutError):
                return False

        return (await asyncio.gather(*map(one, targets))).count(False), []


async def by_streams(targets: list[str], port: int) -> tuple[int, list[float]]:
    """asyncio.open_connection, all at once."""

    async def one(host: str) -> bool:
        try:
            async with asyncio.timeout(SECONDS):
                reader, writer = await asyncio.open_connection(host, port)
                writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                line = await reader.readline()
                writer.close()
        except OSError:
            return False
        return line.startswith(b"HTTP/1.1 200")

    return (await asyncio.gather(*map(one, targets))).count(False), []


@contextmanager
def serving() -> Iterator[int]:
    """A server of 200s on all loopback addresses."""
    with socket.socket() as held, tempfile.TemporaryDirectory() as folder:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        held.close()
        server = subprocess.Popen(server_argv(Path(folder), port), stderr=subprocess.DEVNULL)
        try:
            while socket.socket().connect_ex(("127.0.0.1", port)):
                time.sleep(0.05)
            yield port
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait()


def server_argv(folder: Path, port: int) -> list[str]:
    config = folder / "server.cfg"
    if nginx := shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"):
        config.write_text(
            f"daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;\n"
            "events { worker_connections 12000; }\n"
            f'http {{ access_log off; keepalive_timeout 0; server {{ listen 0.0.0.0:{port} backlog=4096; return 200 "ok"; }} }}\n'
        )
        return [nginx, "-c", str(config), "-p", str(folder)]
    if haproxy := shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"):
        config.write_text(
            "global\n  nbthread 1\n  maxconn 12000\ndefaults\n  mode http\n  timeout client 5s\n"
            f"frontend f\n  bind 0.0.0.0:{port} backlog 4096\n  http-request return status 200\n"
        )
        return [haproxy, "-db", "-f", str(config)]
    sys.exit("needs nginx or haproxy on this machine")


if __name__ == "__main__":
    main()
