import re
from pathlib import Path

import pytest

from cfscale.adapters.journal import KEPT_FILES, Journal
from cfscale.core.autoscale import unavailable
from cfscale.core.decision import Decision, Entry, Kind, entry, unfinished
from cfscale.core.history import History
from cfscale.core.policy import Observation
from cfscale.errors import ActionError, UnavailableError
from tests.fake_service import AGENTS


def a_decision(number: int = 0, reason: str = "because") -> Decision:
    observation = Observation(AGENTS, "process", 1000.0 + number, (), ())
    return unavailable(observation, reason, History(replicas=2))


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    written = [entry(Kind.INTENT, a_decision(1).to(3, "more")), entry(Kind.DECISION, a_decision(2, 'tab\t"quote"\n'))]
    for item in written:
        journal.write(item)
    assert list(journal.entries()) == written
    assert journal.path.stat().st_mode & 0o777 == 0o600


def test_a_line_is_the_decision_document_with_kind_and_id(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write(entry(Kind.DECISION, a_decision()))
    line = journal.path.read_text()
    assert '"schema":"cfscale/decision/v1"' in line
    assert re.search(r'"id":"[0-9a-f]{10}"', line)


@pytest.mark.parametrize("garbage", [b'{"kind":"intent","id":"x', b"\x00\xff\xfe", b"[]", b'{"kind":"odd"}'])
def test_fault_33_a_torn_line_is_skipped_and_the_next_one_stands_alone(tmp_path: Path, garbage: bytes) -> None:
    journal = Journal(tmp_path)
    first, last = entry(Kind.DECISION, a_decision(1)), entry(Kind.DECISION, a_decision(2))
    journal.write(first)
    with journal.path.open("ab") as file:
        file.write(garbage)
    assert list(journal.entries()) == [first]
    journal.write(last)
    assert list(journal.entries()) == [first, last]


@pytest.mark.parametrize("cut", [1, 20, -1])
def test_fault_33_a_journal_cut_anywhere_keeps_all_whole_lines(tmp_path: Path, cut: int) -> None:
    journal = Journal(tmp_path)
    for number in range(3):
        journal.write(entry(Kind.DECISION, a_decision(number)))
    lines = journal.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(b"".join(lines[:2]) + lines[2][:-1][:cut])
    assert len(list(journal.entries())) == 2


def test_it_is_rotated_by_size_and_the_oldest_goes(tmp_path: Path) -> None:
    journal = Journal(tmp_path, max_bytes=1)
    for number in range(KEPT_FILES + 3):
        journal.write(entry(Kind.DECISION, a_decision(number)))
    assert len(list(tmp_path.iterdir())) == KEPT_FILES + 1
    times = [item.decision.time for item in journal.entries()]
    assert times == [a_decision(number).time for number in range(2, KEPT_FILES + 3)]


def test_a_journal_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(ActionError, match="the journal cannot be written: No such file"):
        Journal(tmp_path / "missing").write(entry(Kind.DECISION, a_decision()))


def test_fault_34_a_full_disk_says_so(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.path.symlink_to("/dev/full")
    with pytest.raises(ActionError, match="cannot be written"):
        journal.write(entry(Kind.DECISION, a_decision()))


def test_a_journal_that_cannot_be_read_is_no_empty_one(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").mkdir()
    with pytest.raises(UnavailableError, match="the journal cannot be read"):
        list(Journal(tmp_path).entries())


def test_no_journal_has_no_entries(tmp_path: Path) -> None:
    assert list(Journal(tmp_path).entries()) == []


def test_an_intent_without_a_result_is_unfinished() -> None:
    def line(kind: Kind, number: int) -> Entry:
        return entry(kind, a_decision(number))

    lines = [line(Kind.INTENT, 1), line(Kind.RESULT, 1), line(Kind.DECISION, 2), line(Kind.INTENT, 3)]
    assert unfinished(lines) == (lines[3],)
