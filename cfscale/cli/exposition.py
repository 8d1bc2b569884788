"""A round of probing in the text format of Prometheus, with the names that blackbox_exporter gives its gauges."""

from collections.abc import Callable, Iterable, Sequence

from cfscale.core.health import ALIVE, Report, Result, State

_PHASES = (
    ("resolve", "resolve_seconds"),
    ("connect", "connect_seconds"),
    ("tls", "tls_seconds"),
    ("processing", "first_byte_seconds"),
)
_Value = Callable[[Result], float | int | None]
_GAUGES: tuple[tuple[str, str, _Value], ...] = (
    ("probe_duration_seconds", "How long the latest answer took.", lambda result: result.latency_seconds),
    (
        "probe_dns_lookup_time_seconds",
        "How long the latest name lookup took.",
        lambda result: result.phases.resolve_seconds if result.phases else None,
    ),
    ("probe_http_status_code", "The latest HTTP status.", lambda result: result.http_status),
    (
        "probe_ssl_earliest_cert_expiry",
        "When the first certificate of the chain expires, in seconds since the epoch.",
        lambda result: result.certificate_expires_at,
    ),
    ("probe_flaky", "Whether the latest answers turned so often that the verdict is in doubt.", lambda r: int(r.flaky)),
)


def as_prometheus(report: Report) -> str:
    """Gauges in the text exposition format; a target that could not be asked has no ``probe_success``, not a zero."""
    told = [result for result in report.results if result.state in (*ALIVE, State.DOWN)]
    lines = _gauge(
        "probe_success",
        "Whether the target is up or degraded (1) or down (0).",
        [(_labels(result), str(int(result.state in ALIVE))) for result in told],
    )
    for name, text, value in _GAUGES:
        found = [(_labels(result), repr(number)) for result in told if (number := value(result)) is not None]
        lines += _gauge(name, text, found)
    lines += _gauge("probe_http_duration_seconds", "Where the time of the latest answer went.", list(_phases(told)))
    states = [(f'state="{state.value}"', str(getattr(report.summary, state.value))) for state in State]
    lines += _gauge("probe_targets", "How many targets are in each state.", states)
    return "\n".join(lines)


def _phases(results: Iterable[Result]) -> Iterable[tuple[str, str]]:
    for result in results:
        for phase, name in _PHASES:
            if result.phases is not None and (seconds := getattr(result.phases, name)) is not None:
                yield f'{_labels(result)},phase="{phase}"', repr(seconds)


def _gauge(name: str, text: str, samples: Sequence[tuple[str, str]]) -> list[str]:
    return [
        f"# HELP {name} {text}",
        f"# TYPE {name} gauge",
        *(f"{name}{{{labels}}} {value}" for labels, value in samples),
    ]


def _labels(result: Result) -> str:
    return f'target="{_escaped(result.target)}",kind="{_escaped(result.kind)}"'


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
