"""``calibrate``, ``plan --coefficients`` and ``plan --prices`` as an operator sees them."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cfscale.adapters.journal import Journal
from cfscale.core.decision import DECISION_SCHEMA, Action, Decision, Entry, Kind, Urgency, timestamp
from cfscale.core.samples import Quality, Sample
from tests.conftest import Result

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
SIZING = ("--users", "40", "--agents", "400", "--tasks", "800")
Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> None:
    for name in ("prices.yaml", "observations.csv"):
        shutil.copy(EXAMPLES / name, tmp_path)


def refused(result: Result, *words: str, code: int = 2) -> None:
    assert (result.code, result.stdout, result.stderr.count("\n")) == (code, "", 1), result.stderr
    for word in words:
        assert word in result.stderr


def test_samples_become_coefficients_that_a_plan_cites(cfscale: Run, tmp_path: Path) -> None:
    made = cfscale("calibrate", "--samples", "observations.csv", "--out", "mine.json")
    planned = cfscale("plan", *SIZING, "--coefficients", "mine.json", "-o", "json")
    explained = cfscale("explain", "memory.demand", *SIZING, "--coefficients", "mine.json")

    assert made.code == 0, made.stderr
    assert [line.split()[0] for line in made.stdout.splitlines()] == [
        "COEFFICIENT",
        "sizing.base_memory",
        "sizing.agent_memory",
        "sizing.task_memory",
        "sizing.cpu_intercept",
        "sizing.agent_cpu",
        "sizing.task_cpu",
    ]
    document = json.loads((tmp_path / "mine.json").read_text())
    assert (document["schema"], document["observations"]) == ("cfscale/coefficients/v1", 288)
    assert json.loads(planned.stdout)["demand"]["memory_bytes"] == 51 * 2**30  # 30 GiB by the founding coefficients
    assert "[calibration:mine.json] 288 observations; before: 0.05" in explained.stdout


def test_printed_and_written_coefficients_are_the_same_document(cfscale: Run, tmp_path: Path) -> None:
    printed = cfscale("calibrate", "--samples", "observations.csv", "--out", "mine.json", "-o", "json")

    assert json.loads(printed.stdout) == json.loads((tmp_path / "mine.json").read_text())


def test_too_few_samples_give_no_verdict(cfscale: Run, tmp_path: Path) -> None:
    lines = (tmp_path / "observations.csv").read_text().splitlines()
    (tmp_path / "few.csv").write_text("\n".join(lines[:100]))

    result = cfscale("calibrate", "--samples", "few.csv", "--out", "mine.json")

    refused(result, "few.csv: 99 observations, fewer than 100", code=3)
    assert not (tmp_path / "mine.json").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ("bad.csv:1", "'agents' 0 times")),
        ("agents,agents,tasks,memory_bytes,cpu_millicores\n", ("bad.csv:1", "'agents' 2 times")),
        ("agents,tasks,memory_bytes,cpu_millicores\n1,2,3,-4\n", ("bad.csv:2", "cpu_millicores is '-4'")),
        ("agents,tasks,memory_bytes,cpu_millicores\n1,2,3,4\nnan,2,3,4\n", ("bad.csv:3", "agents is 'nan'")),
        ("agents,tasks,memory_bytes,cpu_millicores\n1,2\n", ("bad.csv:2", "memory_bytes is ''")),
    ],
)
def test_a_sample_that_is_none_is_named_with_its_line(
    text: str, words: tuple[str, ...], cfscale: Run, tmp_path: Path
) -> None:
    (tmp_path / "bad.csv").write_text(text)

    refused(cfscale("calibrate", "--samples", "bad.csv"), *words)


def test_samples_that_cannot_be_read_are_named(cfscale: Run, tmp_path: Path) -> None:
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00agents")

    refused(cfscale("calibrate", "--samples", "none.csv"), "none.csv: No such file")
    refused(cfscale("calibrate", "--samples", "binary.csv"), "binary.csv: not a CSV file in UTF-8")


def test_another_file_is_not_written_over(cfscale: Run, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")

    refused(
        cfscale("calibrate", "--samples", "observations.csv", "--out", "notes.txt"), "holds no coefficients", code=1
    )
    assert (tmp_path / "notes.txt").read_text() == "mine"


def changed(document: dict[str, object], **values: object) -> str:
    return json.dumps(document | values)


def test_wrong_coefficients_are_refused_by_name(cfscale: Run, tmp_path: Path) -> None:
    assert cfscale("calibrate", "--samples", "observations.csv", "--out", "mine.json").code == 0
    document = json.loads((tmp_path / "mine.json").read_text())
    rows = document["coefficients"]
    for text, words in {
        changed(document, coefficients=[*rows, rows[0] | {"name": "sizing.luck"}]): ("'sizing.luck'", "known are"),
        changed(document, coefficients=rows[1:]): ("'sizing.base_memory' stands 0 times",),
        changed(document, coefficients=[rows[0] | {"posterior": -1}, *rows[1:]]): ("base_memory is -1", "at least 0"),
        changed(document, coefficients=[rows[0] | {"unit": "MB"}, *rows[1:]]): ("is in GiB, not in 'MB'",),
        changed(document, schema="cfscale/plan/v1"): ("'cfscale/plan/v1' is not cfscale/coefficients/v1",),
        '{"posterior": NaN}': ("no coefficients",),
    }.items():
        (tmp_path / "bad.json").write_text(text)
        refused(cfscale("plan", *SIZING, "--coefficients", "bad.json"), "bad.json", *words)


def entries(count: int) -> Iterator[Entry]:
    for number in range(count):
        samples = (
            Sample("cpu", 0.25, "engine", 1.0, Quality.OK),
            Sample("memory", 0.9, "engine", 1.0, Quality.OK if number % 2 else Quality.STALE),
        )
        at = timestamp(1_790_000_000.0 + 10 * number)
        decision = Decision(
            DECISION_SCHEMA,
            at,
            "agents",
            "process",
            20,
            20,
            Action.HOLD,
            Urgency.LOW,
            "calm",
            applied=False,
            samples=samples,
        )
        yield Entry(Kind.DECISION, f"{at}/agents", decision)


def test_without_samples_the_journal_is_read_and_stale_ones_left_out(cfscale: Run, tmp_path: Path) -> None:
    (tmp_path / "cfscale.yaml").write_text("name: acme\nusers: 40\nagents: 400\ntasks: 800\n")
    folder = tmp_path / "state"
    folder.mkdir(parents=True)
    journal = Journal(folder)
    for entry in entries(240):
        journal.write(entry)

    result = cfscale("calibrate", "-o", "json")

    assert result.code == 0, result.stderr
    document = json.loads(result.stdout)
    assert (document["observations"], document["source"]) == (120, "the journal of acme")
    found = {row["name"]: row["posterior"] for row in document["coefficients"]}
    # 20 replicas x 2 GiB x 0.9 = 36 GiB for 400 agents and 800 tasks; the base was not seen
    assert 400 * found["sizing.agent_memory"] + 800 * found["sizing.task_memory"] == pytest.approx(36, rel=1e-3)
    assert found["sizing.base_memory"] == 2


def test_an_empty_journal_gives_no_verdict(cfscale: Run, tmp_path: Path) -> None:
    (tmp_path / "cfscale.yaml").write_text("name: acme\nusers: 40\nagents: 400\ntasks: 800\n")
    refused(cfscale("calibrate"), "the journal of", "0 observations", code=3)


def test_a_saved_plan_with_coefficients_goes_stale_with_them(cfscale: Run, tmp_path: Path) -> None:
    assert cfscale("calibrate", "--samples", "observations.csv", "--out", "mine.json").code == 0
    saved = cfscale("plan", *SIZING, "--coefficients", "mine.json", "--out", "plan.json")
    fresh = cfscale("render", "plan.json", "--target", "compose", "--out", "deploy")
    beside = cfscale("plan", "plan.json", "--coefficients", "mine.json")
    path = tmp_path / "mine.json"
    path.write_text(path.read_text().replace('"observations": 288', '"observations": 289'))
    stale = cfscale("render", "plan.json", "--target", "compose", "--out", "deploy")

    assert (saved.code, fresh.code) == (0, 0), saved.stderr + fresh.stderr
    refused(beside, "--coefficients cannot change")
    refused(stale, "plan.json is stale: mine.json has changed since", "--coefficients mine.json", code=4)


def test_a_plan_with_prices_says_what_it_costs(cfscale: Run) -> None:
    text = cfscale("plan", *SIZING, "--prices", "prices.yaml", "--region", "example-west")
    document = json.loads(
        cfscale("plan", *SIZING, "--prices", "prices.yaml", "--region", "example-west", "-o", "json").stdout
    )

    assert "cost      896.59 EUR a month (example-west, 2026-11-01); 2.241 an agent" in text.stdout
    assert "3 x general-16-64 at 292.00 = 876.00; storage 20.59" in text.stdout
    assert "cheapest  11 x general-4-8 (4 cores, 8G): 642.40 for the machines" in text.stdout
    assert document["cost"]["month"] == 896.5875
    assert document["cost"]["agent_month"] == 2.2415


def test_old_prices_are_warned_of(cfscale: Run, tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(path.read_text().replace("2026-11-01", "2020-01-01"))

    result = cfscale("plan", *SIZING, "--prices", "prices.yaml", "--region", "example-west")

    assert result.code == 0
    assert "days old, more than 90: look them up again" in result.stderr


def test_prices_are_no_input_of_a_saved_plan(cfscale: Run, tmp_path: Path) -> None:
    prices = ("--prices", "prices.yaml", "--region", "example-west")
    assert cfscale("plan", *SIZING, *prices, "--out", "plan.json").code == 0
    (tmp_path / "prices.yaml").unlink()

    assert cfscale("render", "plan.json", "--target", "compose", "--out", "deploy").code == 0


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("hourly: 0.04", "hourly: -0.04", ("prices.yaml:8:", "a price")),
        ("hourly: 0.04", "hourly: nan", ("prices.yaml:8:", "a price")),
        ("currency: EUR", "currency: euros", ("currency 'euros'",)),
        ("date: 2026-11-01", "date: yesterday", ("prices.yaml:3:",)),
        ("memory: 4G,", "memory: much,", ("example-west: general-2-4: 'much' is not a size",)),
        ("storage_gib_month: 0.05", "storage: 0.05", ("prices.yaml:",)),
        ("  example-west:", "  elsewhere:", ("no region is called 'example-west'", "elsewhere, example-east")),
    ],
)
def test_a_wrong_price_file_is_refused_with_its_place(
    old: str, new: str, words: tuple[str, ...], cfscale: Run, tmp_path: Path
) -> None:
    path = tmp_path / "prices.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))

    refused(cfscale("plan", *SIZING, "--prices", "prices.yaml", "--region", "example-west"), *words)


def test_prices_and_region_go_together(cfscale: Run) -> None:
    refused(cfscale("plan", *SIZING, "--prices", "prices.yaml"), "--prices goes with --region")
    refused(cfscale("plan", *SIZING, "--region", "example-west"), "--region goes with --prices")
    refused(cfscale("plan", *SIZING, "--prices", "none.yaml", "--region", "x"), "none.yaml: No such file")
    refused(
        cfscale("plan", *SIZING, "--prices", "prices.yaml", "--region", "example-west", "--sensitivity"),
        "leave one out",
    )
