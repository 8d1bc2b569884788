import threading
from pathlib import Path

import msgspec
import pytest

from cfscale.adapters.state import ALL_SERVICES, FOREVER, State, state_folder
from cfscale.core.history import History, Recommendation, Remembered
from cfscale.core.policy import Pause
from cfscale.errors import ActionError, UnavailableError


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path / "deep" / "state")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"CFSCALE_STATE_DIR": "/x", "XDG_STATE_HOME": "/y"}, "/x"),
        ({"XDG_STATE_HOME": "/y"}, "/y/cfscale/acme"),
        ({"CFSCALE_STATE_DIR": ""}, str(Path.home() / ".local/state/cfscale/acme")),
    ],
)
def test_the_folder_follows_the_environment(environment: dict[str, str], expected: str) -> None:
    assert str(state_folder("acme", environment)) == expected


def test_reading_creates_nothing(state: State) -> None:
    assert (state.engine(), state.pauses(), state.recall(), state.pause_of("agents")) == (
        None,
        {},
        Remembered({}),
        Pause(),
    )
    assert not state.folder.parent.exists()


def test_folder_and_files_are_private(state: State) -> None:
    state.record_engine("compose")
    assert state.folder.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in state.folder.iterdir()] == [0o600]


def test_the_engine_is_recorded_and_forgotten(state: State) -> None:
    state.record_engine("compose")
    assert state.engine() == "compose"
    state.record_engine(None)
    state.record_engine(None)
    assert state.engine() is None


def test_histories_survive(state: State) -> None:
    remembered = Remembered({"agents": History(3, 1000.5, (Recommendation(1000.0, 4),), ("a", "b"), 2)}, 17.5)
    state.remember(remembered)
    assert State(state.folder).recall() == remembered


def test_of_another_start_of_the_host_the_clocks_are_not_compared(state: State) -> None:
    state.remember(Remembered({"agents": History(replicas=3)}, 17.5))
    path = state.folder / "scaling.json"
    stored = msgspec.json.decode(path.read_bytes())
    path.write_bytes(msgspec.json.encode({**stored, "boot": "another"}))
    assert state.recall() == Remembered({"agents": History(replicas=3)}, None)


def test_a_pause_of_one_direction_leaves_the_other(state: State) -> None:
    state.pause("agents", scale_in_until=50.0, scale_out_until=None)
    state.pause("agents", scale_in_until=None, scale_out_until=FOREVER)
    assert state.pause_of("agents") == Pause(50.0, FOREVER)
    state.pause("agents", scale_in_until=0.0, scale_out_until=None)
    assert state.pause_of("agents") == Pause(0.0, FOREVER)


def test_the_longer_of_own_and_common_pause_holds(state: State) -> None:
    state.pause("agents", scale_in_until=50.0, scale_out_until=10.0)
    state.pause(ALL_SERVICES, scale_in_until=20.0, scale_out_until=30.0)
    assert state.pause_of("agents") == Pause(50.0, 30.0)
    assert state.pause_of("queue") == Pause(20.0, 30.0)


def test_pauses_set_at_once_are_all_kept(state: State) -> None:
    names = [f"service-{number}" for number in range(8)]
    threads = [
        threading.Thread(target=state.pause, args=(name,), kwargs={"scale_in_until": 1.0, "scale_out_until": 1.0})
        for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(state.pauses()) == names


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b'{"schema":"cfscale/state/v1"}', b'{"schema":"cfscale/state/v9","histories":{}}'],
    ids=["empty", "truncated", "binary", "lacking", "newer"],
)
def test_fault_35_a_damaged_or_newer_file_is_refused_and_kept(state: State, content: bytes) -> None:
    state.create()
    path = state.folder / "scaling.json"
    path.write_bytes(content)
    with pytest.raises(UnavailableError, match="move it away"):
        state.recall()
    assert path.read_bytes() == content


def test_fault_34_a_failed_write_leaves_the_old_file_and_no_half_one(state: State) -> None:
    state.remember(Remembered({"agents": History(replicas=3)}))
    (state.folder / "scaling.json").rename(state.folder / "kept")
    (state.folder / "scaling.json").mkdir()
    with pytest.raises(ActionError, match="cannot be written"):
        state.remember(Remembered({}))
    assert sorted(path.name for path in state.folder.iterdir()) == ["kept", "scaling.json"]


def test_a_folder_that_cannot_be_made_names_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ActionError, match="set CFSCALE_STATE_DIR"):
        State(tmp_path / "file" / "state").record_engine("process")
    assert State(tmp_path / "file" / "state").engine() is None


def test_fault_35_a_file_that_cannot_be_read_is_no_empty_one(state: State) -> None:
    state.create()
    (state.folder / "engine.json").mkdir()
    with pytest.raises(UnavailableError, match="cannot be read"):
        state.engine()
