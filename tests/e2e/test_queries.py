"""Demand that an object gives by a query scales its Deployment; the query reads its own namespace and no other."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.support.controlplane import ControlPlane, wait_until
from tests.support.live_demand import LiveDemand, live_demand
from tests.support.running import FORECASTING, LITTLE, SOON_SECONDS, Scene, a_scene, an_object

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def demand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveDemand]:
    with live_demand(tmp_path_factory.mktemp("demand")) as running:
        yield running


@pytest.fixture
def scene(control_plane: ControlPlane, demand: LiveDemand, tmp_path: Path) -> Iterator[Scene]:
    with a_scene(control_plane, demand, tmp_path, FORECASTING) as made:
        yield made


def test_a_query_scales_a_deployment_and_reads_no_other_namespace(scene: Scene, demand: LiveDemand) -> None:
    """One object asks for its own series, one for all of a name, one for another namespace's, one for nonsense."""
    used = "container_memory_working_set_bytes"
    scene.put("queue", "backend", "other", "wrong", "many", "usual")
    queries = {
        "queue": f'sum({used}{{pod=~"backend-.*"}}) * 2',
        "other": f'sum({used}{{namespace="bank"}})',
        "wrong": "summ(jobs)",
        "many": used,
    }
    for name, query in queries.items():
        scene.plane.apply(an_object(scene.namespace, name, metric={"query": query}))
    demand.use("bank", 30e9, "backend-vault")
    scene.use(2.0, "backend")
    scene.use(LITTLE, "queue", "other", "wrong", "many")
    scene.use(3.0, "usual")
    scene.leader(scene.start())

    scene.until_replicas("queue", 4)
    scene.until_replicas("usual", 3)
    refused = {
        "other": f'reads what is not namespace="{scene.namespace}"',
        "wrong": "not PromQL as foresize knows it",
        "many": "series, such as",
    }

    def said(name: str, why: str) -> bool:
        return why in scene.condition(name, "ScalingActive")[2]

    for name, why in refused.items():
        # A first look may have come before the first scrape, when nothing matches.
        wait_until(partial(said, name, why), SOON_SECONDS, why)
        assert scene.condition(name, "ScalingActive")[:2] == ("False", "FailedQuery")
    message = scene.until_condition("queue", "ForecastAvailable", "True", "SeasonalNaiveServes")
    wait_until(lambda: "observed" in scene.status("queue"), SOON_SECONDS, "what was observed")

    assert "there is no model" in message
    assert scene.status("queue")["observed"]["value"] == 4e9
    assert [scene.replicas(name) for name in refused] == [1, 1, 1]
    demand.forget("bank")


def test_an_object_that_only_observes_does_not_change_what_one_that_acts_sees(scene: Scene) -> None:
    """Two queries for one Deployment: that of the object in mode Auto is asked, and the other object says so.

    Whatever their names; nor does the observer take the other one's changes of replicas for its own.
    """
    used = "container_memory_working_set_bytes"
    scene.put("web", metric={"query": f"sum({used})"})
    observer = an_object(scene.namespace, "a-trial", metric={"query": f"sum({used}) * 100"})
    observer["spec"] |= {"mode": "Observe", "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}
    scene.plane.apply(observer)
    scene.use(3.0, "web")
    scene.leader(scene.start())

    scene.until_replicas("web", 3)
    message = scene.until_condition("a-trial", "ScalingActive", "False", "FailedQuery")
    wait_until(lambda: scene.status("a-trial").get("currentReplicas") == 3, SOON_SECONDS, "the observer to see it")

    assert "another PredictiveAutoscaler of the same target has another query" in message
    assert "decisions" not in scene.status("a-trial")
    assert "SuccessfulRescale" not in scene.reasons("a-trial")
    assert scene.status("web")["observed"]["value"] == 3e9
