"""Erlang C: the number of servers is minimal, proven by the number below it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfscale.core.queueing import minimal_servers, wait_probability
from cfscale.errors import RefusedError


@given(st.floats(0.01, 500), st.floats(0.001, 0.9))
def test_n_holds_the_target_and_one_fewer_does_not(load: float, target: float) -> None:
    n = minimal_servers(load, target)

    assert wait_probability(n, load) <= target
    assert wait_probability(n - 1, load) > target


@pytest.mark.parametrize(("load", "target", "servers"), [(1.0, 0.01, 5), (1.0, 0.05, 4), (10.0, 0.01, 19)])
def test_known_cases_where_the_square_root_rule_is_one_short(load: float, target: float, servers: int) -> None:
    assert minimal_servers(load, target) == servers


def test_an_absurd_load_is_refused_rather_than_computed_for_ever() -> None:
    with pytest.raises(RefusedError, match="split the workload"):
        minimal_servers(1e12, 0.05)
