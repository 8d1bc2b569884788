"""Sizes, CPU shares and durations: exact, strict, and the same after a round trip."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfscale.core.units import GIB, format_cpu, format_duration, format_size, parse_cpu, parse_duration, parse_size
from cfscale.errors import InputError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4G", 4 * GIB),
        ("2Gi", 2 * GIB),
        ("512M", 512 * 2**20),
        ("0.5G", GIB // 2),
        ("1B", 1),
        ("7", 7),
        ("1TiB", 2**40),
    ],
)
def test_sizes_are_binary(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "4 G",
        "٣G",
        "1_000",
        "1e3",
        "1e400",
        "-1",
        "+1",
        "G",
        "4X",
        "0",
        "00",
        ".5G",
        "5.",
        "4Gb",
        "inf",
        "nan",
        "4G\n",
    ],
)
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"is not a size|less than one byte"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "millicores"), [("0.5", 500), ("2", 2000), ("500m", 500), ("0.0001", 1), ("1.25", 1250)]
)
def test_cpu_shares(text: str, millicores: int) -> None:
    assert parse_cpu(text) == millicores


@pytest.mark.parametrize("text", ["", "0", "-1", "1e3", "٣", "1_0", "2 cores", "m"])
def test_what_is_no_cpu_share_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_cpu(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("10s", 10), ("1h30m", 5400), ("250ms", 0.25), ("0s", 0), ("7d", 604_800), ("1.5m", 90)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "1h30", "s", "-5s", "5 s", "٣s", "1_0s", "infs"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is not a duration"):
        parse_duration(text)


@given(st.integers(1, 2**60))
def test_sizes_survive_a_round_trip(size: int) -> None:
    assert parse_size(format_size(size)) == size


@given(st.integers(1, 10**9))
def test_cpu_shares_survive_a_round_trip(millicores: int) -> None:
    assert parse_cpu(format_cpu(millicores)) == millicores


@given(st.integers(0, 10**10))
def test_durations_survive_a_round_trip(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds / 1000)) == milliseconds / 1000
