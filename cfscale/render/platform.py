"""What the platform's own processes read from their environment: where its data is, and the files of its passwords."""

from cfscale.core.plan import DeploymentPlan, Service
from cfscale.core.tier import AGENTS, pool_kind
from cfscale.core.units import MIB
from cfscale.render.families import family_of

_SECRETS = "/run/secrets"


def platform_env(plan: DeploymentPlan, service: Service) -> dict[str, str]:
    """Where everything is, how much to log, which port to take, how large a heap may grow."""
    found = {"CFN_LOG_LEVEL": plan.settings.log_level, "PORT": str(service.port), **endpoints(plan)}
    if pool_kind(service.name) != service.name:
        found["CFN_AGENT_TYPE"] = service.name.removeprefix(f"{AGENTS}-")
    if family_of(service).name == "node" and service.memory_limit_bytes is not None:
        heap = max(1, service.memory_limit_bytes * plan.settings.limits.heap_percent // 100 // MIB)
        found["NODE_OPTIONS"] = f"--max-old-space-size={heap}"
    return found


def endpoints(plan: DeploymentPlan) -> dict[str, str]:
    """Where the platform finds its data: the balancer where there is one, which knows who has which role today."""
    gates, found = plan.settings.gates, dict[str, str]()
    for name, prefix, gate in (("queue", "CFN_REDIS", gates.queue), ("cache", "CFN_CACHE", gates.cache)):
        if (service := plan.find(name)) is not None:
            balanced = plan.find("loadbalancer") is not None
            found[f"{prefix}_HOST"] = "loadbalancer" if balanced else name
            found[f"{prefix}_PORT"] = str(gate if balanced else service.port)
            found[f"{prefix}_PASSWORD_FILE"] = f"{_SECRETS}/{name}_password"
    if (memory := plan.find("memory")) is not None:
        found["CFN_MEMORY_NODES"] = ",".join(f"{name}:{memory.port}" for name in memory.names)
        found["CFN_MEMORY_PASSWORD_FILE"] = f"{_SECRETS}/memory_password"
    if (pooler := plan.find("pooler")) is not None:
        found |= {"CFN_DATABASE_HOST": "pooler", "CFN_DATABASE_PORT": str(pooler.port), "CFN_DATABASE_USER": "app"}
        found |= {"CFN_DATABASE_NAME": "app", "CFN_DATABASE_READ_NAME": "app_ro"}
        found["CFN_DATABASE_PASSWORD_FILE"] = f"{_SECRETS}/database_password"
    return found
