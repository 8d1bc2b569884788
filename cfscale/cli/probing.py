"""Who is asked, and with what: the wiring of targets, engine and prober behind ``cfscale probe``, ``up`` and ``scale``."""

from collections.abc import Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from cfscale.core.health import Report, Target
from cfscale.core.plan import DeploymentPlan
from cfscale.core.samples import Replica, Usage
from cfscale.errors import InputError, UnavailableError
from cfscale.runtime.foresight import Depth

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable

    from cfscale.adapters.probes.network import TlsPolicy
    from cfscale.cli.engines import Deployment
    from cfscale.core.judging import Judging
    from cfscale.runtime.probing import Survey, Targets
    from cfscale.runtime.readiness import ProbedEngine

_FILE_BYTES = 16 * 1024 * 1024
_DAY_SECONDS = 86_400.0
_MANY = 100
_MOST_WORKERS, _SPARE_FILES = 1000, 128


class Request(Struct, frozen=True):
    """What is to be asked: ``source`` looks it up anew for each round, ``usage`` measures replicas where any are known."""

    source: "Targets"
    usage: "Callable[[Sequence[Replica]], Sequence[Usage]] | None" = None
    depth: Depth = Depth.ENABLED
    policy: "TlsPolicy | None" = None

    @classmethod
    def asking(cls, targets: tuple[Target, ...]) -> "Request":
        """These targets, always the same."""
        return cls(lambda: targets)

    @classmethod
    def discovering(cls, sources: Sequence[str], timeout_seconds: float) -> "Request":
        """Whatever these sources have each time they are asked."""
        from cfscale.adapters.probes.discover import discover

        def look() -> tuple[Target, ...]:
            found = [target for source in sources for target in discover(source, timeout_seconds)]
            return tuple({target.name: target for target in found}.values())

        return cls(look, depth=Depth.COMPREHENSIVE)

    def judging(self, authorities: Path | None, days: int | None, *, tolerant: bool, predict: bool | None) -> "Request":
        """The same with a policy for certificates, and predictions as asked for; None leaves both to the catalogue."""
        from cfscale.adapters.probes.network import TlsPolicy

        if authorities is not None and not authorities.is_file():
            raise InputError(f"{authorities}: no such file: give the certificates to trust, in PEM")
        depth = self.depth if predict is None else Depth.PREDICTIVE if predict else min(self.depth, Depth.COMPREHENSIVE)
        left = usual_judging().certificate_seconds if days is None else days * _DAY_SECONDS
        return replace(self, policy=TlsPolicy(left, authorities, tolerant), depth=depth)


def deployed_request(plan: DeploymentPlan, engine: str, profile: str | None, timeout_seconds: float | None) -> Request:
    """What to ask of a deployment, as deeply as its tier says."""
    from cfscale.cli.engines import open_deployment

    deployment = open_deployment(plan, engine, profile)
    return Request(deployed(deployment, timeout_seconds), deployment.engine.usage, depth_of(plan))


def depth_of(plan: DeploymentPlan) -> Depth:
    """How much the plan's tier wants to know; one that does not say wants the questions themselves asked."""
    from cfscale.adapters.assets import load_catalogue

    tier = next(tier for tier in load_catalogue().tiers if tier.name == plan.tier)
    leaf = tier.load_balancing.get("health_checks")
    return Depth.ENABLED if leaf is None else Depth[str(leaf.value).upper()]


def deployed(deployment: "Deployment", timeout_seconds: float | None = None) -> "Targets":
    """What to ask of a deployment, looked up anew at each call; raises UnavailableError where nothing runs."""
    from cfscale.runtime.probing import plan_targets, timed

    deployment.require_replicas()

    def look() -> tuple[Target, ...]:
        replicas = deployment.engine.replicas()
        if not replicas:
            raise UnavailableError(
                f"nothing of {deployment.plan.name} runs on engine {deployment.engine.name}: start it with 'cfscale up'"
            )
        everything = deployment.rendered
        targets = plan_targets(deployment.plan, replicas, _store_secrets(deployment), all_services=everything)
        return timed(targets, timeout_seconds)

    return look


def probed(deployment: "Deployment") -> "ProbedEngine":
    """The deployment's engine with replicas that are ready when the prober says so."""
    from time import monotonic

    from cfscale.runtime.probing import plan_targets
    from cfscale.runtime.readiness import ProbedEngine

    def targets(replicas: Sequence[Replica]) -> tuple[Target, ...]:
        found = plan_targets(deployment.plan, replicas, _store_secrets(deployment), all_services=False)
        return tuple(target for target in found if target.replica is not None)

    return ProbedEngine(deployment.engine, survey, targets, monotonic)


async def until_up(targets: "Targets", seconds: float) -> Report:
    """Probe until all is alive or the time is over; the last report either way."""
    from cfscale.runtime.probing import until_healthy

    return await until_healthy(survey(), targets, seconds=seconds)


def survey(policy: "TlsPolicy | None" = None, targets: Sequence[Target] = ()) -> "Survey":
    """How targets are asked, with what these will need at hand; good for one event loop."""
    from cfscale.adapters.probes.ask import ask, warm
    from cfscale.adapters.probes.network import Network
    from cfscale.cli.scale import Clock
    from cfscale.runtime.probing import WORKERS, Survey

    judging = usual_judging()
    network = Network(judging, policy=policy)
    warm(network, targets)
    most = _most_workers()
    asking, confirm = partial(ask, network=network), judging.confirm_seconds
    return Survey(asking, Clock(), judging, confirm_seconds=confirm, workers=min(WORKERS, most), most=most)


@cache
def usual_judging() -> "Judging":
    """What the catalogue says; read once, since a scaler asks with every evaluation."""
    from cfscale.adapters.assets import load_catalogue
    from cfscale.core.judging import Judging

    return Judging.of(load_catalogue().rules)


def _most_workers() -> int:
    """As many questions at once as there is room for open files, which is made first."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_WORKERS + _SPARE_FILES
    if soft < wanted and (hard == resource.RLIM_INFINITY or hard > soft):
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(1, min(_MOST_WORKERS, soft - min(_SPARE_FILES, soft * 3 // 4)))


def loop_factory(count: int) -> "Callable[[], AbstractEventLoop] | None":
    """Uvloop's for many targets where it is installed (``cfscale[fast]``), else None: asyncio's own."""
    if count < _MANY:
        return None
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _store_secrets(deployment: "Deployment") -> dict[str, str]:
    """The stores' passwords where this user may read them; without one, being asked for it is proof of life."""
    found = {}
    for store in ("queue", "memory", "cache"):
        with suppress(OSError):
            path = deployment.queue_password.with_name(f"{store}_password")
            found[store] = path.read_text(encoding="utf-8").rstrip("\r\n")
    return found


def named_targets(
    words: list[str], targets_file: Path | None, password_file: Path | None, timeout: float
) -> tuple[Target, ...]:
    """The targets that the command line names one by one, none where a profile is to be probed. Raises InputError."""
    named = _sorted_out(words, targets_file)
    if not named:
        if password_file is not None:
            raise InputError("--password-file is for redis:// URLs: the password of a deployment is found by itself")
        return ()
    from cfscale.adapters.probes.url import parse_target, parse_targets

    password = None if password_file is None else _read(password_file).rstrip("\r\n")
    found = [parse_target(word, timeout_seconds=timeout, password=password) for word in words]
    if targets_file is not None:
        lines = _read(targets_file).split("\n")
        found += parse_targets(lines, str(targets_file), timeout_seconds=timeout, password=password)
    if not found:
        raise InputError(f"{targets_file}: no URL in it: write one a line")
    return tuple({target.name: target for target in found}.values())


def _sorted_out(words: list[str], targets_file: Path | None) -> bool:
    """Whether the words are URLs rather than a profile; raises InputError for a mixture."""
    urls = [word for word in words if "://" in word]
    profiles = [word for word in words if "://" not in word]
    if profiles and (urls or targets_file):
        raise InputError(f"'{profiles[0]}' is not a URL: probe a profile or URLs (such as http://host), not both")
    if len(profiles) > 1:
        raise InputError(f"'{profiles[1]}': one profile at a time; a URL begins with its scheme, such as http://")
    return bool(urls) or targets_file is not None


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(_FILE_BYTES + 1)
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}: give the path of a readable file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text: save it as UTF-8") from error
    if len(raw) > _FILE_BYTES:
        raise InputError(f"{path}: more than {_FILE_BYTES // 2**20} MiB: split it")
    return text
