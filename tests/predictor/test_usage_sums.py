"""Sums of workloads as series: against plain loops, and what is not known stays unknown."""

from dataclasses import replace

import numpy as np
import pytest

from predictor.errors import InvalidUsage
from predictor.usage.panel import Resource, SeriesKey
from predictor.usage.sums import Together, summed
from tests.support.panels import a_panel

NAMES = ("shop/Deployment/cart", "pay/Deployment/till", "shop/Deployment/web")
NOTHING = np.nan


def test_a_namespace_is_the_sum_of_its_workloads() -> None:
    """Step by step, each namespace a series named after it; attributes do not come along."""
    usage = np.asarray([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0], [0.5, 0.5, 0.5]])
    panel = replace(a_panel(usage, names=NAMES), attributes={"limit": usage})

    made = summed(panel, Together.NAMESPACE)

    assert [key.workload for key in made.keys] == ["shop/Namespace/sum", "pay/Namespace/sum"]
    assert made.usage.tolist() == [[1.5, 2.5, 3.5], [10.0, 20.0, 30.0]]
    assert dict(made.attributes) == {}
    assert summed(panel, Together.ALL).usage.tolist() == [[11.5, 22.5, 33.5]]


def test_what_is_missing_in_between_is_not_taken_as_zero() -> None:
    """Before a workload's first sample and after its last it does not exist; between them its gap is one of the sum."""
    usage = np.asarray([[1.0, 1.0, 1.0, 1.0, 1.0], [NOTHING, 2.0, NOTHING, 2.0, NOTHING]])

    made = summed(a_panel(usage, names=NAMES[:2]), Together.ALL)

    np.testing.assert_array_equal(made.usage, [[1.0, 3.0, NOTHING, 3.0, 1.0]])
    nobody = summed(a_panel(np.full((2, 3), NOTHING), names=NAMES[:2]), Together.ALL)
    assert np.isnan(nobody.usage).all()


def test_resources_and_pools_are_kept_apart() -> None:
    """A workload without a pool is in no sum; where none has one, that is said."""
    panel = a_panel(np.ones((3, 4)), names=NAMES)
    pooled = replace(panel, node_pool={NAMES[0]: "big", NAMES[1]: "big"})

    made = summed(pooled, Together.NODE_POOL)

    assert made.keys == (SeriesKey("big/NodePool/sum", Resource.CPU),)
    assert (made.usage == 2.0).all()
    with pytest.raises(InvalidUsage, match="give the table a column 'node_pool'"):
        summed(panel, Together.NODE_POOL)
