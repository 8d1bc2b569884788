"""Each component's own checker on what the chart gives it, and the pods' own start commands in the real images."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helm.lab import PLANS, chart, manifests, named

pytestmark = [pytest.mark.helm, pytest.mark.engine]
EXTERNAL = ("--set", "database.mode=external", "--set", "database.external.secret=db")
BACKUP = ("--set", "database.backup.destinationPath=s3://backups/acme")
OWN = 'namespace="agents",release="acme",service="agents"'
PODS = 'namespace="agents",container="agents",pod="acme-cfscale-agents-1"'


def inside(image: str, *command: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run one command in a container that reaches no network."""
    argv = ["docker", "run", "--rm", "--network=none", "--pull=never", "--entrypoint", command[0], *options, image]
    return subprocess.run([*argv, *command[1:]], capture_output=True, text=True, timeout=60, check=False)


def config(objects: list[dict[str, Any]], name: str, folder: Path) -> Path:
    """The only file of a ConfigMap, written where a container can read it."""
    ((file, text),) = named(objects, "ConfigMap", name)["data"].items()
    (folder / file).write_text(text)
    (folder / file).chmod(0o644)
    folder.chmod(0o755)
    return folder / str(file)


@pytest.mark.parametrize("tier", ["team", "department", "enterprise"])
@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--set", "balancing.audit=true", "--set", "services.agents.routing.prefixes={/,/api}"),
        ("--set-json", 'services.agents.routing.stickyHeader="X-Session"'),
    ],
)
def test_haproxy_accepts_its_configuration(tier: str, options: tuple[str, ...], tmp_path: Path) -> None:
    objects = manifests(chart(tmp_path / "chart", PLANS[tier]), *options)
    path = config(objects, "acme-cfscale-loadbalancer", tmp_path)
    done = inside(
        PLANS[tier].service("loadbalancer").image, "haproxy", "-c", "-f", "/h.cfg", options=("-v", f"{path}:/h.cfg:ro")
    )

    assert done.returncode == 0, done.stdout + done.stderr
    # there is no network here, so no name server either
    assert [line for line in done.stderr.splitlines() if "[WARNING]" in line and "nameserver" not in line] == []


def test_pgbouncer_starts_with_its_configuration(tmp_path: Path) -> None:
    objects = manifests(chart(tmp_path / "chart", PLANS["team"]), *EXTERNAL)
    path = config(objects, "acme-cfscale-pooler", tmp_path)
    secrets = tmp_path / "secret"
    secrets.mkdir(mode=0o755)
    for name, text in {"host": "db", "port": "5432", "dbname": "app", "username": "app", "password": "p"}.items():
        (secrets / name).write_text(text)
        (secrets / name).chmod(0o644)
    pod = named(objects, "Deployment", "acme-cfscale-pooler")["spec"]["template"]["spec"]["containers"][0]
    mounts = ("-v", f"{path}:/etc/cfscale/pgbouncer.ini:ro", "-v", f"{secrets}:/run/database:ro")
    place = (*mounts, "--tmpfs=/run/pgbouncer:uid=10001", "--tmpfs=/tmp", "--read-only", "--user=10001:10001")
    script = f"{pod['args'][0].replace('exec pgbouncer', 'exec timeout 2 pgbouncer')}"
    done = inside(PLANS["team"].service("pooler").image, "sh", "-ec", script, options=place)

    said = done.stdout + done.stderr
    assert "process up" in said, said
    assert not [line for line in said.splitlines() if " ERROR " in line or " FATAL " in line or " WARNING " in line]


@pytest.mark.parametrize("name", ["queue", "memory", "cache"])
def test_valkey_starts_as_its_pod_does_and_asks_for_the_password(name: str, tmp_path: Path) -> None:
    objects = manifests(chart(tmp_path / "chart", PLANS["department"]))
    pod = named(objects, "StatefulSet", f"acme-cfscale-{name}")["spec"]["template"]["spec"]["containers"][0]
    path = config(objects, f"acme-cfscale-{name}", tmp_path)
    (tmp_path / "queue_password").write_text("of-a-test")
    (tmp_path / "queue_password").chmod(0o644)
    mounts = (
        "-v",
        f"{path}:/etc/cfscale/valkey.conf:ro",
        "-v",
        f"{tmp_path / 'queue_password'}:/run/secrets/queue_password:ro",
    )
    rooms = ("--tmpfs=/run/auth:uid=10001", "--tmpfs=/data:uid=10001", "--tmpfs=/tmp")
    env = ("--env=MEMORY_BYTES=268435456", "--env=POD_IP=127.0.0.1", f"--hostname=acme-cfscale-{name}-0")
    question = pod["readinessProbe"]["exec"]["command"]
    ask = " ".join(f"'{word}'" if "'" not in word else f'"{word}"' for word in question[3:])
    script = (
        f'sh -ec "$START" >/tmp/log 2>&1 &\nfor i in $(seq 50); do sh -c "$ASK" {ask} 2>/dev/null && break; sleep 0.1; done\n'
        f'sh -c "$ASK" {ask}; valkey-cli ping; REDISCLI_AUTH=of-a-test valkey-cli config get maxmemory'
    )
    text = (f"--env=START={pod['args'][0]}", f"--env=ASK={question[2]}")
    place = (*mounts, *rooms, *env, *text, "--read-only", "--user=10001:10001")
    done = inside(PLANS["department"].service(name).image, "sh", "-ec", script, options=place)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "NOAUTH" in done.stdout
    wanted = PLANS["department"].settings.cache_bytes if name == "cache" else 268435456 * 75 // 100
    assert str(wanted) in done.stdout


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rules")
    found = manifests(chart(folder / "chart", PLANS["enterprise"]), *BACKUP)
    (folder / "rules.yaml").write_text(yaml.safe_dump(named(found, "PrometheusRule", "acme-cfscale")["spec"]))
    for path in (folder, folder / "rules.yaml"):
        path.chmod(0o755)
    return folder


def promtool(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return inside(
        "prom/prometheus:v2.53.3", "promtool", *words, options=("-v", f"{folder}:/rules:ro", "--workdir=/rules")
    )


def test_prometheus_accepts_the_rules(rules: Path) -> None:
    done = promtool(rules, "check", "rules", "--lint=all", "--lint-fatal", "rules.yaml")

    assert done.returncode == 0, done.stdout + done.stderr


def firing(name: str, severity: str, **labels: str) -> dict[str, object]:
    return {"exp_labels": {"severity": severity, "release": "acme", **labels}}


def usage(cpu: float, memory: float) -> list[dict[str, str]]:
    """A pod that uses these shares of one core and one GiB."""
    gib = 2**30
    return [
        {"series": f"container_cpu_usage_seconds_total{{{PODS}}}", "values": f"0+{cpu * 10:g}x240"},
        {"series": f'kube_pod_container_resource_requests{{{PODS},resource="cpu"}}', "values": "1x240"},
        {"series": f"container_memory_working_set_bytes{{{PODS}}}", "values": f"{memory * gib:.0f}x240"},
        {"series": f'kube_pod_container_resource_requests{{{PODS},resource="memory"}}', "values": f"{gib}x240"},
    ]


CASES: dict[str, tuple[list[dict[str, str]], str, str, bool]] = {
    "busy": (usage(0.85, 0.5), "10m", "CfscaleCpuHigh", True),
    "within the band": (usage(0.79, 0.5), "10m", "CfscaleCpuHigh", False),
    "not for long enough": (usage(0.85, 0.5), "4m", "CfscaleCpuHigh", False),
    "busy beyond": (usage(0.96, 0.5), "10m", "CfscaleCpuCritical", True),
    "busy, not beyond": (usage(0.94, 0.5), "10m", "CfscaleCpuCritical", False),
    "full of data": (usage(0.5, 0.86), "10m", "CfscaleMemoryHigh", True),
    "memory within the band": (usage(0.5, 0.84), "10m", "CfscaleMemoryHigh", False),
    "full of data beyond": (usage(0.5, 0.96), "10m", "CfscaleMemoryCritical", True),
    "a full disk": (
        [
            {"series": 'kubelet_volume_stats_used_bytes{namespace="agents",persistentvolumeclaim="data-acme-cfscale-queue-0"}', "values": "91x240"},
            {"series": 'kubelet_volume_stats_capacity_bytes{namespace="agents",persistentvolumeclaim="data-acme-cfscale-queue-0"}', "values": "100x240"},
        ],
        "10m", "CfscaleDiskFull", True,
    ),
    "missing replicas": (
        [
            {"series": 'kube_deployment_status_replicas_available{namespace="agents",deployment="acme-cfscale-agents"}', "values": "2x240"},
            {"series": 'kube_deployment_spec_replicas{namespace="agents",deployment="acme-cfscale-agents"}', "values": "3x240"},
        ],
        "20m", "CfscaleReplicasMissing", True,
    ),
    "no healthy backend": (
        [{"series": 'haproxy_backend_active_servers{namespace="agents",service="acme-cfscale-loadbalancer",proxy="agents"}', "values": "0x240"}],
        "5m", "CfscaleBackendDown", True,
    ),
    "at its maximum": (
        [
            {"series": 'kube_horizontalpodautoscaler_status_desired_replicas{namespace="agents",horizontalpodautoscaler="acme-cfscale-agents"}', "values": "9x240"},
            {"series": 'kube_horizontalpodautoscaler_spec_max_replicas{namespace="agents",horizontalpodautoscaler="acme-cfscale-agents"}', "values": "9x240"},
        ],
        "20m", "CfscaleAtMaximum", True,
    ),
    "an old backup": (
        [{"series": 'cnpg_collector_last_available_backup_timestamp{namespace="agents",pod="acme-cfscale-database-1"}', "values": "-8000x240"}],
        "15m", "CfscaleBackupOld", True,
    ),
    "a full pool": (
        [{"series": 'cnpg_pgbouncer_pools_cl_waiting{namespace="agents",pod="acme-cfscale-pooler-1"}', "values": "3x240"}],
        "10m", "CfscalePoolExhausted", True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_alerts_fire_when_they_should(name: str, rules: Path, tmp_path: Path) -> None:
    series, at, alert, fires = CASES[name]
    count = f'count(ALERTS{{alertname="{alert}",alertstate="firing",release="acme"}}) or vector(0)'
    case = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "10s",
        "tests": [
            {
                "interval": "10s",
                "input_series": series,
                "promql_expr_test": [
                    {"expr": count, "eval_time": at, "exp_samples": [{"labels": "{}", "value": int(fires)}]}
                ],
            }
        ],
    }
    path = rules / f"{tmp_path.name}.json"
    path.write_text(json.dumps(case))
    path.chmod(0o644)
    done = promtool(rules, "test", "rules", path.name)

    assert done.returncode == 0, done.stdout + done.stderr


def test_the_forecast_prolongs_what_half_an_hour_shows(rules: Path) -> None:
    growing = usage(0.0, 0.5)
    growing[0] = {
        "series": f"container_cpu_usage_seconds_total{{{PODS}}}",
        "values": " ".join(str(i * i * 0.01) for i in range(241)),
    }
    case = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "10s",
        "tests": [
            {
                "interval": "10s",
                "input_series": growing,
                "promql_expr_test": [
                    {
                        "expr": f"count(cfscale:cpu_utilisation:forecast{{{OWN}}} > cfscale:cpu_utilisation:ratio{{{OWN}}} + 0.1)",
                        "eval_time": "35m",
                        "exp_samples": [{"labels": "{}", "value": 1}],
                    }
                ],
            }
        ],
    }
    path = rules / "forecast.json"
    path.write_text(json.dumps(case))
    path.chmod(0o644)
    done = promtool(rules, "test", "rules", path.name)

    assert done.returncode == 0, done.stdout + done.stderr
