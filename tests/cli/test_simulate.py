"""``cfscale simulate``: formats of traces, the document, scenarios, the page, and every mistake in one line."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT, Result
from tests.json_schema import problems
from tests.loads import bursts, daily

SCENARIOS = sorted((ROOT / "tests" / "scenarios").glob("*.yaml"))


@pytest.fixture
def trace(tmp_path: Path) -> str:
    """A trace of one value a line, a step each."""
    (tmp_path / "day.csv").write_text("value\n" + "\n".join(f"{value:.3f}" for value in daily(400)) + "\n")
    return "day.csv"


def scores(result: Result) -> dict[str, dict[str, float]]:
    assert result.code == 0, result.stderr
    return {row["policy"]: row for row in json.loads(result.stdout)["results"]}


def test_the_document_has_the_contracts_keys_and_fits_its_schema(trace: str, cfscale: Callable[..., Result]) -> None:
    document = json.loads(cfscale("simulate", trace, "--policy", "default", "--policy", "hpa", "-o", "json").stdout)

    assert document["schema"] == "cfscale/simulation/v1"
    assert [row["policy"] for row in document["results"]] == ["optimum", "static-peak", "default", "hpa"]
    assert set(document["results"][0]) == {
        "trace",
        "policy",
        "under_ratio",
        "lost_ratio",
        "cost_ratio",
        "actions_per_day",
    }
    assert document["results"][0]["trace"] == "day"
    assert problems(json.loads(cfscale("schema", "simulation").stdout), document) == []


def test_the_same_load_scores_the_same_in_every_format(
    trace: str, cfscale: Callable[..., Result], tmp_path: Path
) -> None:
    values = (tmp_path / trace).read_text().splitlines()[1:]
    begin = 1_767_225_600
    stamped = "\n".join(f"2026-01-01 {n // 60:02d}:{n % 60:02d}:00,{v}" for n, v in enumerate(values))
    (tmp_path / "stamped.csv").write_text(f"timestamp,value\n{stamped}\n")
    (tmp_path / "bare.csv").write_text("\n".join(values))
    series = [[begin + 60 * number, value] for number, value in enumerate(values)]
    matrix = {"status": "success", "data": {"resultType": "matrix", "result": [{"metric": {}, "values": series}]}}
    (tmp_path / "range.json").write_text(json.dumps(matrix))

    found = [
        scores(cfscale("simulate", name, "--policy", "hpa", "-o", "json"))["hpa"]["cost_ratio"]
        for name in (trace, "stamped.csv", "bare.csv", "range.json")
    ]

    assert found == [found[0]] * 4


def test_a_journal_is_a_trace(cfscale: Callable[..., Result], tmp_path: Path) -> None:
    lines = [
        json.dumps(
            {
                "kind": "decision",
                "id": str(minute),
                "schema": "cfscale/decision/v1",
                "time": f"2026-01-01T{minute // 60:02d}:{minute % 60:02d}:00.000Z",
                "service": "agents",
                "engine": "process",
                "current": 4,
                "desired": 4,
                "action": "hold",
                "urgency": "low",
                "reason": "",
                "applied": False,
                "samples": [
                    {
                        "resource": "cpu",
                        "value_ratio": 0.5 + minute % 9 / 20,
                        "source": "x",
                        "age_seconds": 0,
                        "quality": "ok",
                    }
                ],
            }
        )
        for minute in range(200)
    ]
    (tmp_path / "journal.jsonl").write_text("\n".join(lines) + '\n{"kind": "dec')

    assert scores(cfscale("simulate", "journal.jsonl", "-o", "json"))["optimum"]["cost_ratio"] == 1


def test_the_table_draws_what_was_ready(trace: str, cfscale: Callable[..., Result]) -> None:
    result = cfscale("simulate", trace, "--policy", "hpa")

    assert re.search(r"day +hpa +[0-9.]+ +[0-9.]+ +[0-9.]+ +[0-9.]+ +[▁▂▃▄▅▆▇█]{24}", result.stdout)


def test_longer_start_up_times_cost_more_short_minutes(cfscale: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "jumps.csv").write_text("\n".join(f"{value:.3f}" for value in bursts(600)))
    quick, slow = (
        scores(cfscale("simulate", "jumps.csv", "--policy", "hpa", "--startup", startup, "-o", "json"))["hpa"]
        for startup in ("60s", "10m")
    )

    assert quick["under_ratio"] < slow["under_ratio"]


BAD = {
    "empty.csv": ("", "the file is empty"),
    "heading.csv": ("timestamp,value\n", "no value below the heading"),
    "nan.csv": (
        "timestamp,value\n2026-01-01 00:00:00,1\n2026-01-01 00:01:00,NaN\n",
        "nan.csv:3: 'NaN' is not a finite",
    ),
    "word.csv": ("value\n1\nmany\n", "word.csv:3: 'many' is not a finite number"),
    "column.csv": ("timestamp,a,b\n1,2,3\n", "no column 'value' among timestamp, a, b"),
    "time.csv": ("timestamp,value\nyesterday,1\ntoday,2\n", "'yesterday' is not a time"),
    "twice.csv": ("timestamp,value\n60,1\n60,2\n120,3\n", "two values at"),
    "one.csv": ("timestamp,value\n60,1\n", "are no trace"),
    "zero.csv": ("value\n0\n0\n", "no load in it"),
    "vector.json": ('{"data": {"resultType": "vector", "result": []}}', "query_range"),
    "broken.json": ("{", "neither a Prometheus range answer nor a journal"),
    "inf.csv": ("value\n1\n1e999\n", "is not a finite number"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_no_trace_is_one_line_and_exit_two(
    name: str, cfscale: Callable[..., Result], tmp_path: Path
) -> None:
    text, problem = BAD[name]
    (tmp_path / name).write_text(text)

    result = cfscale("simulate", name)

    assert (result.code, result.stdout, len(result.stderr.splitlines())) == (2, "", 1)
    assert name.partition(".")[0] in result.stderr
    assert problem in result.stderr


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("gone.csv",), "No such file"),
        (("day.csv", "--policy", "hpaa"), "did you mean 'hpa'"),
        (("day.csv", "--step=-60s"), "is not a duration"),
        (("day.csv", "--step", "0s"), "at least 1s"),
        (("day.csv", "--startup", "soon"), "is not a duration"),
        (("day.csv", "--peak-replicas", "0"), "above 0"),
        (("day.csv", "--peak-replicas", "nan"), "above 0"),
        (("day.csv", "--html", "no/such/folder.html"), "No such file"),
        ((), "no trace is given"),
        (("day.csv", "--assert", "x.yaml"), "one or the other"),
        (("--assert", "gone.yaml"), "No such file"),
    ],
)
def test_a_wrong_call_is_one_line_and_exit_two(
    arguments: tuple[str, ...], problem: str, trace: str, cfscale: Callable[..., Result]
) -> None:
    result = cfscale("--quiet", "simulate", *arguments)

    assert (result.code, result.stdout, len(result.stderr.splitlines())) == (2, "", 1)
    assert problem in result.stderr


@pytest.mark.parametrize("path", SCENARIOS, ids=[path.stem for path in SCENARIOS])
def test_the_scenarios_of_the_suite_pass_as_an_operator_plays_them(path: Path, cfscale: Callable[..., Result]) -> None:
    result = cfscale("simulate", "--assert", str(path), "-o", "json")

    assert (result.code, json.loads(result.stdout)["results"][0]["failures"]) == (0, [])


def test_a_scenario_that_fails_says_how_and_exits_one(cfscale: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "flat.yaml").write_text(
        "start: 2\nload: [{at: 0s, cores: 4.0}]\nfor: 10m\n"
        "expect: {settles_at: 2, at_most_actions: 0, never_above: 2, short_at_most: 1%}\n"
    )

    result = cfscale("simulate", "--assert", "flat.yaml")

    assert result.code == 1
    for words in ("settles at", "actions, not at most 0", "above 2", "short"):
        assert words in result.stdout


def test_a_scenario_with_an_unknown_key_is_refused(cfscale: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "typo.yaml").write_text("start: 2\nlaod: []\nfor: 10m\nexpect: {}\n")

    result = cfscale("simulate", "--assert", "typo.yaml")

    assert (result.code, "unknown key 'laod'" in result.stderr) == (2, True)


def test_the_page_stands_alone(trace: str, cfscale: Callable[..., Result], tmp_path: Path) -> None:
    assert cfscale("simulate", trace, "--html", "out.html").code == 0
    text = (tmp_path / "out.html").read_text()

    assert text.count("<svg") == 4
    assert not re.search(r"src=|href=|url\(|@import|<script|https?://", text)


def test_tuning_prints_only_what_nothing_beats(trace: str, cfscale: Callable[..., Result]) -> None:
    result = cfscale("simulate", trace, "--tune", "-o", "json")
    rows = json.loads(result.stdout)["results"]
    keys = [(row["under_ratio"], row["cost_ratio"], row["actions_per_day"]) for row in rows]

    assert result.code == 0
    assert rows
    assert not any(
        one != other and all(mine <= its for mine, its in zip(one, other, strict=True))
        for one in keys
        for other in keys
    )
