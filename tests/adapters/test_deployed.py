"""Compose files of any hand, read strictly."""

from pathlib import Path

import pytest

from cfscale.adapters.deployed import MAX_BYTES, read_deployed
from cfscale.core.deviation import Deployed
from cfscale.errors import InputError


def read(tmp_path: Path, text: str) -> dict[str, Deployed]:
    (tmp_path / "compose.yaml").write_text(text)
    return {part.name: part for part in read_deployed(tmp_path)[0]}


def problem(tmp_path: Path, text: str) -> str:
    with pytest.raises(InputError) as caught:
        read(tmp_path, text)
    return str(caught.value).removeprefix(f"{tmp_path}/")


def test_amounts_are_read_in_base_units(tmp_path: Path) -> None:
    text = """
services:
  agents:
    image: "a:1"
    stop_grace_period: 1m30s
    deploy:
      replicas: 4
      resources: {limits: {cpus: "1.5", memory: 2gb}, reservations: {cpus: 0.5, memory: 512M}}
    ports: ["127.0.0.1:8080-8082:80", "[::1]:53:53/udp", 9000, {target: 1, published: 2, host_ip: "::1"}]
    healthcheck: {test: [CMD, "true"]}
"""
    assert read(tmp_path, text)["agents"] == Deployed(
        name="agents",
        part_of="agents",
        replicas=4,
        image="a:1",
        cpu_request_millicores=500,
        cpu_limit_millicores=1500,
        memory_request_bytes=512 * 2**20,
        memory_limit_bytes=2 * 2**30,
        ports=("0.0.0.0:any->9000", "127.0.0.1:8080-8082->80", "[::1]:2->1", "[::1]:53->53/udp"),
        stop_grace_milliseconds=90_000,
        checked=True,
    )


def test_older_keys_count_where_deploy_says_nothing(tmp_path: Path) -> None:
    text = "services: {a: {scale: 2, cpus: 1, mem_limit: 1G, mem_reservation: 512m}}"

    part = read(tmp_path, text)["a"]

    assert (part.replicas, part.cpu_limit_millicores) == (2, 1000)
    assert (part.memory_limit_bytes, part.memory_request_bytes) == (2**30, 2**29)


def test_what_is_not_said_is_what_docker_does(tmp_path: Path) -> None:
    part = read(tmp_path, "services: {a: {}}")["a"]

    assert (part.replicas, part.stop_grace_milliseconds, part.memory_limit_bytes, part.checked) == (
        1,
        10_000,
        None,
        False,
    )


def test_zero_is_no_limit(tmp_path: Path) -> None:
    part = read(tmp_path, "services: {a: {cpus: 0.0, mem_limit: 0m}}")["a"]

    assert (part.cpu_limit_millicores, part.memory_limit_bytes) == (None, None)


def test_anchors_and_merge_keys_are_followed_and_own_keys_win(tmp_path: Path) -> None:
    text = """
x-a: &a {image: a, scale: 2}
x-b: &b {image: b, cpus: 3}
services:
  one: {<<: [*a, *b], scale: 5}
  two: {<<: *b}
"""
    found = read(tmp_path, text)

    assert (found["one"].image, found["one"].replicas, found["one"].cpu_limit_millicores) == ("a", 5, 3000)
    assert found["two"].image == "b"


@pytest.mark.parametrize("text", ["${N:-3}", "${N-3}"])
def test_a_variable_stands_for_its_default(tmp_path: Path, text: str) -> None:
    part = read(tmp_path, f"services: {{a: {{scale: '{text}', image: 'i:$$1'}}}}")["a"]

    assert (part.replicas, part.image, part.unknown) == (3, "i:$1", {})


@pytest.mark.parametrize("text", ["$N", "${N}", "${N:?needed}", "${N:+3}", "${N:-${M:-3}}"])
def test_a_variable_without_a_plain_default_is_unknown(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, f"services: {{a: {{scale: '{text}'}}}}")["a"].unknown == {"replicas": text}


def test_our_label_and_our_second_queue_say_what_a_service_is_part_of(tmp_path: Path) -> None:
    text = "services: {queue: {}, w: {labels: {cfscale.service: agents}}, x: {labels: [a=b]}}"

    assert {name: part.part_of for name, part in read(tmp_path, text).items()} == {
        "queue": "queue",
        "w": "agents",
        "x": "x",
    }


def test_a_service_behind_a_profile_is_not_counted_and_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("services: {a: {}, debug: {profiles: [debug]}}")

    parts, notes = read_deployed(tmp_path)

    assert [part.name for part in parts] == ["a"]
    assert notes == ("debug starts only with a profile of Compose and is not counted",)


@pytest.mark.parametrize("check", ["{test: [NONE]}", "{test: NONE}", "{disable: true, test: x}", "{interval: 1s}"])
def test_a_health_check_that_is_switched_off_is_none(tmp_path: Path, check: str) -> None:
    assert not read(tmp_path, f"services: {{a: {{healthcheck: {check}}}}}")["a"].checked


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("services:\n  a: [1\n", "compose.yaml:3:1: not valid YAML"),
        ("services:\n  a: {}\n  a: {}\n", "compose.yaml:3:3: duplicate key 'a'"),
        ("services: {a: {mem_limit: 4X}}", "compose.yaml:1:27: services.a.mem_limit: '4X' is not a size"),
        ("services: {a: {scale: -1}}", "compose.yaml:1:23: services.a.scale: '-1' is not a number of replicas"),
        ("services: {a: {ports: ['x']}}", "compose.yaml:1:24: 'x' is not a port"),
        ("services: {a: {ports: 80}}", "compose.yaml:1:23: services.a.ports: expected a list"),
        ("services: {a: {ports: [{published: 1}]}}", "compose.yaml:1:24: a port without 'target'"),
        ("services: {a: {image: [x]}}", "compose.yaml:1:23: services.a.image: expected a plain value"),
        ("services: {a: text}", "compose.yaml:1:15: services.a: expected a mapping"),
        ("services: {a: {extends: {service: b}}}", "compose.yaml:1:25: a: 'extends' is not followed"),
        ("include: [x]\nservices: {a: {}}", "compose.yaml:1:10: 'include' is not followed"),
        ("services: {a: {<<: text}}", "compose.yaml:1:16: '<<' takes a mapping"),
        ("services: {a: *gone}", "compose.yaml:1:15: the alias '*gone' refers to nothing"),
        ("a: &a [*a]", "compose.yaml:1:8: the alias '*a' refers to nothing"),
        ("{[a]: b}", "compose.yaml:1:2: a key must be a plain word"),
        ("a: 1\n---\nb: 2\n", "compose.yaml:3:1: a second document"),
        ("- a", "compose.yaml:1:1: not a Compose file"),
        ("", "compose.yaml:1:1: not a Compose file"),
        ("a: 1", "compose.yaml:1:1: 'services' is missing"),
        ("a: " + "[" * 200, "compose.yaml:1:68: nested more than 64 levels deep"),
        ("a: " + "[" * 5000, "compose.yaml:1:"),  # newer parsers end there by themselves
        ("a: \x07", "compose.yaml:1:1: not valid YAML"),
    ],
)
def test_what_is_malformed_is_refused_with_its_place(tmp_path: Path, text: str, expected: str) -> None:
    assert problem(tmp_path, text).startswith(expected)


def test_an_alias_bomb_is_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60))]

    assert "expands to too many values" in problem(tmp_path, "\n".join(lines))


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    assert f"more than {MAX_BYTES} bytes" in problem(tmp_path, "#" * (MAX_BYTES + 1))


def test_text_that_is_not_utf_8_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes(b"a: 1\nb: \xff\n")

    with pytest.raises(InputError, match=r"c\.yaml:2:1: not UTF-8"):
        read_deployed(tmp_path / "c.yaml")


def test_a_missing_file_and_an_empty_folder_say_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"No such file or directory: give a Compose file"):
        read_deployed(tmp_path / "gone.yaml")
    with pytest.raises(InputError, match=r"no compose\.yaml in it"):
        read_deployed(tmp_path)
