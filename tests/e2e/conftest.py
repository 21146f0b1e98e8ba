"""The control plane and the live demand that the end-to-end tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.controlplane import BinariesMissing, ControlPlane
from tests.support.live_demand import LiveDemand, live_demand
from tests.support.missing import without
from tests.support.shop import Shop, a_shop


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane with three kwok nodes of 16 cores, one per test run; each test works in its own namespace."""
    plane = ControlPlane(folder=tmp_path_factory.mktemp("control-plane"))
    missing = ""
    try:
        plane.start()
    except BinariesMissing as error:
        missing = str(error)
    if missing:
        without(missing)
    try:
        yield plane
    finally:
        plane.stop()


@pytest.fixture(scope="session")
def demand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveDemand]:
    """Demand that tests set, in a Prometheus that is one per test run; each test uses its own namespace."""
    with live_demand(tmp_path_factory.mktemp("live-demand")) as running:
        yield running


@pytest.fixture
def shop(control_plane: ControlPlane, tmp_path: Path) -> Iterator[Shop]:
    """A node that is oversold and its controller, in a namespace of their own."""
    if control_plane.is_external:
        pytest.skip("FORESIZE_TEST_KUBECONFIG names a cluster with kubelets of its own")
    with a_shop(control_plane, tmp_path) as shop:
        yield shop
