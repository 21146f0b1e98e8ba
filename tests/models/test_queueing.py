"""The M/M/c queue against textbook values, closed forms and a simulated queue."""

import itertools
from heapq import heapreplace
from math import exp

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.queueing import blocked_share, largest_load, largest_loads, late_share, late_shares, waiting_share


def test_erlang_b_and_c_give_the_textbook_values() -> None:
    """10 erlangs on 12 servers: 11.97 % blocked, 44.94 % wait; with one server Erlang C is the load."""
    assert blocked_share(10.0, 12) == pytest.approx(0.11974, abs=1e-5)
    assert waiting_share(10.0, 12) == pytest.approx(0.44939, abs=1e-5)
    assert waiting_share(0.7, 1) == pytest.approx(0.7)


@given(load=st.floats(0.01, 0.99), threshold=st.floats(0.1, 20))
def test_one_server_s_response_is_exponential(load: float, threshold: float) -> None:
    """M/M/1: the response exceeds t with probability exp(-(1 - load) t)."""
    assert late_share(load, 1, threshold) == pytest.approx(exp(-(1 - load) * threshold), rel=1e-6)


@given(servers=st.integers(1, 60), threshold=st.floats(1, 20), level=st.floats(0.5, 0.999))
def test_the_largest_load_is_the_largest(servers: int, threshold: float, level: float) -> None:
    """At it the level is kept, a little above it is not, and without any in time it is 0."""
    load = largest_load(servers, threshold, level)

    if load == 0.0:
        assert late_share(1e-9, servers, threshold) > 1 - level
        return
    assert late_share(load, servers, threshold) <= 1 - level
    assert late_share(load * (1 + 1e-6), servers, threshold) > (1 - level) * (1 - 1e-9)


@given(utilisation=st.floats(0, 1.2), servers=st.integers(1, 300), threshold=st.floats(0.1, 2000))
def test_arrays_are_as_late_as_each_alone(utilisation: float, servers: int, threshold: float) -> None:
    """The recursion and the Poisson distribution agree, and nothing overflows."""
    load = utilisation * servers

    together = late_shares(np.array([load]), np.array([float(servers)]), threshold)

    assert together[0] == pytest.approx(late_share(load, servers, threshold), rel=1e-6, abs=1e-12)


@given(threshold=st.floats(1, 20), level=st.floats(0.5, 0.999))
def test_arrays_carry_as_much_as_each_alone(threshold: float, level: float) -> None:
    """The same largest loads, 0 included where none is in time."""
    servers = np.array([1.0, 2.0, 7.0, 40.0])

    loads = largest_loads(servers, threshold, level)

    assert loads == pytest.approx([largest_load(int(each), threshold, level) for each in servers], abs=1e-6)


@given(threshold=st.floats(2, 20), level=st.floats(0.5, 0.99))
def test_more_servers_may_be_busier(threshold: float, level: float) -> None:
    """Pooling: load per server grows with the number of servers."""
    shares = [largest_load(servers, threshold, level) / servers for servers in (1, 2, 4, 8, 16, 32, 64)]

    assert all(a <= b + 1e-8 for a, b in itertools.pairwise(shares))


def test_a_simulated_queue_is_late_as_often_as_the_formula_says() -> None:
    """200,000 requests through 4 servers at 3.2 erlangs, within sampling error."""
    rng = np.random.default_rng(7)
    arrivals = np.cumsum(rng.exponential(1 / 3.2, 200_000))
    services = rng.exponential(1.0, arrivals.size)
    free = [0.0] * 4
    responses = np.empty(arrivals.size)
    for i, (arrived, service) in enumerate(zip(arrivals, services, strict=True)):
        done = max(free[0], arrived) + service
        heapreplace(free, done)
        responses[i] = done - arrived

    for threshold in (1.0, 3.0, 6.0):
        assert np.mean(responses > threshold) == pytest.approx(late_share(3.2, 4, threshold), rel=0.06)
