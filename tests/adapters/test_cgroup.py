import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cfscale.adapters.cgroup import CgroupReader
from cfscale.adapters.cgroup.files import descriptor_budget
from cfscale.core.samples import Quality, Replica, ReplicaState, Usage
from cfscale.core.units import MIB

LAYOUTS = Path(__file__).parent.parent / "data" / "cgroup"
ID = "c0ffee" * 10 + "abcd"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Lab:
    """A copy of a fixture tree whose counters may be turned."""

    def __init__(self, layout: str, folder: Path, *, cores: int = 2, descriptors: int = 50) -> None:
        self.root = folder / layout
        shutil.copytree(LAYOUTS / layout, self.root)
        self.clock = Clock()
        self.reader = CgroupReader(self.root, cores=cores, clock=self.clock, descriptors=descriptors)

    def read(self, *, pid: int = 100) -> Usage | None:
        found = self.reader.read((container(pid=pid),))
        return found[0] if found else None

    def file(self, name: str) -> Path:
        return next(self.root.glob(f"sys/**/{name}"))

    def write(self, name: str, text: str) -> None:
        self.file(name).write_text(text)

    def spend(self, cpu_seconds: float, *, seconds: float) -> None:
        self.clock.now += seconds
        for name, unit in (("cpuacct.usage", 1e9), ("cpu.stat", 1e6)):
            for file in self.root.glob(f"sys/**/{name}"):
                lines = file.read_text().splitlines()
                counter, _, total = lines[0].rpartition(" ")
                if counter in ("", "usage_usec"):
                    file.write_text("\n".join([f"{counter} {int(total) + int(cpu_seconds * unit)}", *lines[1:]]))


def container(identity: str = ID, pid: int | None = 100) -> Replica:
    return Replica(identity, "demo-agents-1", "agents", ReplicaState.READY, 0.0, pid=pid)


@pytest.fixture
def labs(tmp_path: Path) -> Iterator["Labs"]:
    labs = Labs(tmp_path)
    yield labs
    labs.close()


class Labs:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: list[Lab] = []

    def __call__(self, layout: str, *, cores: int = 2, descriptors: int = 50) -> Lab:
        lab = Lab(layout, self._folder, cores=cores, descriptors=descriptors)
        self._open.append(lab)
        return lab

    def close(self) -> None:
        for lab in self._open:
            lab.reader.close()


def usage_of(lab: Lab) -> Usage:
    usage = lab.read()
    assert usage is not None
    return usage


def descriptors_open() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def layouts() -> list[str]:
    return sorted(folder.name for folder in LAYOUTS.iterdir())


@pytest.mark.parametrize("layout", layouts())
def test_fault_9_every_layout_gives_the_same_numbers(layout: str, labs: Labs) -> None:
    lab = labs(layout)
    first = usage_of(lab)
    assert (first.quality, first.cpu_cores) == (Quality.WARMING, None)
    lab.spend(2.0, seconds=5.0)
    usage = usage_of(lab)
    assert (usage.source, usage.quality, usage.window_seconds) == ("cgroup", Quality.OK, 5.0)
    assert usage.cpu_cores == pytest.approx(0.4, abs=1e-6)
    assert (usage.memory_bytes, usage.reclaimable_bytes) == (200 * MIB, 60 * MIB)
    assert (usage.cpu_limit_cores, usage.memory_limit_bytes) == (0.5, 512 * MIB)


def test_a_controller_of_v1_wins_over_the_unified_hierarchy(labs: Labs) -> None:
    lab = labs("hybrid")
    usage_of(lab)
    lab.clock.now += 10.0
    lab.write("cpuacct.usage", str(12_500_000_000 + 5_000_000_000))
    assert usage_of(lab).cpu_cores == pytest.approx(0.5)


def test_without_accounting_of_v1_the_unified_hierarchy_is_read(labs: Labs) -> None:
    lab = labs("hybrid")
    lab.file("cpuacct.usage").unlink()
    usage_of(lab)
    lab.spend(1.0, seconds=10.0)
    assert usage_of(lab).cpu_cores == pytest.approx(0.1)


def test_fault_15_the_share_of_throttled_periods_is_of_this_window(labs: Labs) -> None:
    lab = labs("v2-systemd")
    usage_of(lab)
    lab.clock.now += 5.0
    lab.write("cpu.stat", "usage_usec 15000000\nnr_periods 670\nnr_throttled 180\nthrottled_usec 9")
    usage = usage_of(lab)
    assert usage.throttled_ratio == pytest.approx(0.8)
    assert usage.cpu_cores == usage.cpu_limit_cores == pytest.approx(0.5)  # at its quota: full, not half


def test_processes_killed_for_memory_are_counted_in_this_window(labs: Labs) -> None:
    lab = labs("v1-cgroupfs")
    assert usage_of(lab).oom_kills == 0
    lab.clock.now += 5.0
    lab.write("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    assert usage_of(lab).oom_kills == 2
    lab.clock.now += 5.0
    assert usage_of(lab).oom_kills == 0


@pytest.mark.parametrize(
    ("layout", "name", "text"),
    [
        ("v2-systemd", "memory.max", "max"),
        ("v1-cgroupfs", "memory.stat", "hierarchical_memory_limit 9223372036854771712\ntotal_inactive_file 0"),
    ],
)
def test_fault_11_no_memory_limit_is_none(layout: str, name: str, text: str, labs: Labs) -> None:
    lab = labs(layout)
    lab.write(name, text)
    assert usage_of(lab).memory_limit_bytes is None


@pytest.mark.parametrize(
    "quota",
    [("v2-systemd", "cpu.max", "max 100000"), ("v1-cgroupfs", "cpu.cfs_quota_us", "-1")],
)
@pytest.mark.parametrize(("cores", "limit"), [(2, None), (8, 2.0)])
def test_without_quota_a_cpuset_smaller_than_the_host_is_the_limit(
    quota: tuple[str, str, str], cores: int, limit: float | None, labs: Labs
) -> None:
    layout, name, text = quota
    lab = labs(layout, cores=cores)
    lab.write(name, text)
    assert usage_of(lab).cpu_limit_cores == limit


def test_a_limit_that_is_changed_is_seen_within_half_a_minute(labs: Labs) -> None:
    lab = labs("v2-systemd")
    usage_of(lab)
    lab.write("cpu.max", "150000 100000")
    lab.clock.now += 31.0
    assert usage_of(lab).cpu_limit_cores == 1.5


@pytest.mark.parametrize(("layout", "name"), [("v1-cgroupfs", "memory.stat"), ("v2-systemd", "memory.current")])
def test_fault_10_a_file_that_is_missing_costs_its_own_figure_only(layout: str, name: str, labs: Labs) -> None:
    lab = labs(layout)
    lab.file(name).unlink()
    usage_of(lab)
    lab.spend(1.0, seconds=2.0)
    usage = usage_of(lab)
    assert (usage.quality, usage.memory_bytes) == (Quality.PARTIAL, None)
    assert usage.cpu_cores == pytest.approx(0.5)


def test_fault_10_without_cpu_accounting_memory_is_still_told(labs: Labs) -> None:
    lab = labs("v1-cgroupfs")
    lab.file("cpuacct.usage").unlink()
    usage = usage_of(lab)
    assert (usage.quality, usage.cpu_cores, usage.memory_bytes) == (Quality.PARTIAL, None, 200 * MIB)


def test_fault_4_a_container_that_is_gone_is_left_out(labs: Labs) -> None:
    lab = labs("v2-systemd", descriptors=0)
    usage_of(lab)
    shutil.rmtree(lab.root / "sys")
    shutil.rmtree(lab.root / "proc/100")
    lab.clock.now += 5.0
    assert lab.read() is None


def test_fault_6_a_restart_is_one_sample_without_a_figure(labs: Labs) -> None:
    lab = labs("v1-cgroupfs")
    usage_of(lab)
    lab.clock.now += 5.0
    (lab.root / "proc/100").rename(lab.root / "proc/200")
    lab.write("cpuacct.usage", "1000000")
    again = lab.read(pid=200)
    assert again is not None
    assert (again.quality, again.cpu_cores) == (Quality.WARMING, None)


def test_fault_6_a_counter_that_ran_backwards_gives_no_figure(labs: Labs) -> None:
    lab = labs("v2-systemd")
    usage_of(lab)
    lab.spend(-3.0, seconds=5.0)
    usage = usage_of(lab)
    assert (usage.quality, usage.cpu_cores) == (Quality.WARMING, None)
    lab.spend(1.0, seconds=5.0)
    assert usage_of(lab).cpu_cores == pytest.approx(0.2)


def test_a_cgroup_made_anew_under_the_same_path_is_another_life(labs: Labs) -> None:
    lab = labs("v2-systemd", descriptors=0)
    usage_of(lab)
    folder = lab.file("cpu.stat").parent
    shutil.copytree(folder, folder.parent / "new")
    shutil.rmtree(folder)
    (folder.parent / "new").rename(folder)
    lab.spend(1.0, seconds=5.0)
    assert usage_of(lab).quality is Quality.WARMING


def test_a_window_too_short_gives_no_figure_and_is_not_lost(labs: Labs) -> None:
    lab = labs("v2-systemd")
    usage_of(lab)
    lab.spend(0.1, seconds=0.15)
    assert usage_of(lab).quality is Quality.WARMING
    lab.spend(0.4, seconds=0.85)
    usage = usage_of(lab)
    assert usage.window_seconds == pytest.approx(1.0)
    assert usage.cpu_cores == pytest.approx(0.5)


def test_fault_12_a_clock_set_back_an_hour_changes_no_figure(labs: Labs, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = labs("v2-systemd")
    usage_of(lab)
    lab.spend(1.0, seconds=10.0)
    monkeypatch.setattr("time.time", lambda: 0.0)
    assert usage_of(lab).cpu_cores == pytest.approx(0.1)


def test_fault_13_beyond_the_budget_files_are_opened_for_each_reading(labs: Labs) -> None:
    lab = labs("v1-cgroupfs", descriptors=2)
    before = descriptors_open()
    usage_of(lab)
    lab.spend(2.0, seconds=4.0)
    assert usage_of(lab).cpu_cores == pytest.approx(0.5)
    assert descriptors_open() == before + 2
    lab.reader.close()
    assert descriptors_open() == before


def test_fault_13_a_thousand_containers_fit_into_200_descriptors(tmp_path: Path) -> None:
    names = [f"{number:064x}" for number in range(1000)]
    for pid, name in enumerate(names, start=1):
        (tmp_path / f"proc/{pid}").mkdir(parents=True)
        (tmp_path / f"proc/{pid}/cgroup").write_text(f"0::/docker/{name}\n")
        (tmp_path / f"cg/docker/{name}").mkdir(parents=True)
        (tmp_path / f"cg/docker/{name}/cpu.stat").write_text("usage_usec 1\n")
    (tmp_path / "proc/self").mkdir()
    (tmp_path / "proc/self/mountinfo").write_text("31 23 0:28 / /cg rw - cgroup2 cgroup2 rw\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    try:
        assert descriptor_budget() == 100
        reader = CgroupReader(tmp_path)
        found = reader.read([container(name, pid) for pid, name in enumerate(names, start=1)])
        reader.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(found) == 1000


def test_a_process_id_that_is_somebody_else_here_is_not_read(labs: Labs) -> None:
    lab = labs("v2-systemd")
    assert lab.reader.read((container("d" * 64),)) == ()


@pytest.mark.parametrize("membership", ["0::/", f"0::/../{ID}", "", "0::/system.slice/ssh.service"])
def test_a_process_whose_place_cannot_be_told_is_left_out(membership: str, labs: Labs) -> None:
    lab = labs("v2-systemd")
    (lab.root / "proc/100/cgroup").write_text(membership)
    assert lab.read() is None


def test_a_container_beside_the_part_that_is_mounted_here_is_left_out(labs: Labs) -> None:
    lab = labs("v2-nested")
    (lab.root / "proc/100/cgroup").write_text(f"0::/docker/{ID}")
    assert lab.read() is None


def test_without_a_process_there_is_nothing_to_read(labs: Labs) -> None:
    assert labs("v2-systemd").reader.read((container(pid=None), container("e" * 64, pid=999))) == ()


def test_a_replica_that_is_not_asked_for_is_forgotten(labs: Labs) -> None:
    lab = labs("v2-systemd")
    usage_of(lab)
    lab.reader.read(())
    lab.spend(1.0, seconds=5.0)
    assert usage_of(lab).quality is Quality.WARMING


def test_garbage_in_a_counter_is_a_missing_figure(labs: Labs) -> None:
    lab = labs("v1-cgroupfs")
    lab.write("cpuacct.usage", "x")
    lab.write("cpuset.cpus", "0-x")
    assert usage_of(lab).quality is Quality.PARTIAL


def test_a_mount_point_with_a_space_is_found(labs: Labs) -> None:
    lab = labs("v2-systemd")
    (lab.root / "sys/fs/cgroup").rename(lab.root / "sys/fs/c group")
    mounts = lab.root / "proc/self/mountinfo"
    mounts.write_text(mounts.read_text().replace("/sys/fs/cgroup", "/sys/fs/c\\040group"))
    assert usage_of(lab).memory_bytes == 200 * MIB
