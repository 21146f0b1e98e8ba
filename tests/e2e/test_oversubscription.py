"""Nodes oversold on a real control plane, from usage in a real Prometheus: observed, sold, guarded, cleaned up."""

import os
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from autoscaler.controller.memory import MemoryLeadership
from autoscaler.settings import ScalingSettings
from tests.support.controlplane import ApiError, ControlPlane, wait_until
from tests.support.shop import CRDS, IDLE, PEAK, ROLES, USABLE_CORES, Shop, a_bare_pod, a_policy

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
FORESIZE = Path(sys.executable).parent / "foresize"


def test_a_policy_that_observes_says_what_could_be_sold_and_writes_nothing_to_nodes(shop: Shop) -> None:
    """The peak is that of the past hours, the rate what it leaves; the node is as it was."""
    before = shop.plane.get(f"/api/v1/nodes/{shop.node}")["status"]["capacity"]
    shop.policy(mode="Observe")

    is_known = {"selected": 1, "cold": 0, "stale": 0, "suspended": 0}
    shop.until(lambda: shop.status().get("nodes") == is_known, "a status that knows the node")

    cpu = shop.cpu()
    assert cpu["predictedPeak"] == pytest.approx(PEAK, rel=0.1)
    assert cpu["predictedPeak"] >= PEAK * 0.999
    assert cpu["allocatable"] == 16
    assert cpu["requested"] == 15.5
    assert cpu["reclaimable"] == pytest.approx(min(USABLE_CORES - cpu["predictedPeak"], 1.5 * 16 - 15.5), rel=1e-3)
    assert cpu["rate"] == pytest.approx((15.5 + cpu["reclaimable"]) / 16, rel=1e-3)
    assert cpu["oracleRate"] == 1.5  # The last peak was 4 cores as well, and no more is allowed.
    assert (cpu["offered"], cpu["sold"]) == (0, 0)
    assert cpu["violations"]["nodeHorizons"] >= 1
    assert shop.condition("AbleToReclaim") == ("True", "Observe")
    assert shop.condition("ReclaimingActive") == ("True", "PeaksPredicted")
    assert shop.condition("Conflict") == ("False", "NoConflict")
    assert shop.plane.get(f"/api/v1/nodes/{shop.node}")["status"]["capacity"] == before
    assert shop.metric("policy_oversubscription_rate", policy=shop.namespace, resource="cpu") == pytest.approx(
        cpu["rate"], abs=1e-3
    )


def test_sold_scheduled_guarded_evicted_and_sold_again(shop: Shop) -> None:
    """The whole life of a node that is oversold, by what the scheduler, the eviction API and people see."""
    shop.plane.apply(a_bare_pod(shop, "ordinary", {"requests": {"cpu": "2"}}))
    shop.policy()

    # What the web server will not use is offered, and pods fit that did not before.
    shop.until(shop.offered, "an offer")
    assert 8000 <= (shop.offered() or 0) <= 8500  # the rate of 1.5 allows 8500
    for name, priority in (("dear-1", "dear"), ("cheap-1", "cheap"), ("cheap-2", "cheap"), ("dear-2", "dear")):
        shop.batch(name, priority)
    batch = ["cheap-1", "cheap-2", "dear-1", "dear-2"]
    shop.until(lambda: shop.running() == [*batch, "web-0"], "four batch pods on the node")
    shop.until(lambda: shop.cpu()["sold"] == 8, "a status that counts them")

    # More is used than is usable: nothing more is sold, then the cheapest pod goes, and no more than needed.
    shop.usage.use({"web": IDLE, "cheap": 3.6, "dear": 3.6})
    shop.until(lambda: shop.condition("ReclaimingLimited") == ("True", "NodeFull"), "a guard that steps in")
    assert shop.status()["suspendedNodes"] == [shop.node]
    assert shop.metric("node_suspended", node=shop.node) == 1
    shop.until(lambda: len(shop.running()) < 5, "an eviction")
    shop.until(lambda: shop.offered() == 2000 * (len(shop.running()) - 1), "an offer of what is sold")
    gone = set(batch) - set(shop.running())
    assert len(gone) == 1
    assert gone < {"cheap-1", "cheap-2"}
    assert shop.metric("evictions_total", outcome="applied") == 1
    violations = shop.cpu()["violations"]["count"]
    assert violations >= 1
    reasons = [reason for reason, _ in shop.events()]
    assert reasons[:2] == ["NodeSuspended", "PodEvicted"]
    shop.batch("late", "dear")
    shop.cycle()
    assert "late" not in shop.running()

    # Calm for long enough, it is sold again.
    shop.usage.use({"web": IDLE, "cheap": 0.5, "dear": 0.5})
    shop.until(lambda: "late" in shop.running(), "a node that is sold again")
    assert shop.status()["nodes"]["suspended"] == 0
    assert [reason for reason, _ in shop.events()][-1] == "NodeResumed"
    assert shop.cpu()["violations"]["count"] == violations

    # Without the policy nothing of it is left.
    shop.delete(shop.namespace)
    shop.until(lambda: shop.offered() is None, "a clean node")
    assert "late" in shop.running()
    assert shop.metric("node_offered", node=shop.node, resource="cpu") is None


def test_a_policy_that_observes_counts_how_often_the_prediction_was_wrong(shop: Shop) -> None:
    """The web server uses more than ever before: one violation, however long it lasts; nobody is suspended."""
    shop.policy(mode="Observe")
    shop.until(lambda: shop.condition("ReclaimingActive")[0] == "True", "a prediction")
    assert shop.cpu()["violations"]["count"] == 0

    shop.usage.use({"web": 2 * PEAK})
    shop.until(lambda: shop.cpu()["violations"]["count"], "a violation")

    violations = shop.cpu()["violations"]
    assert violations["budget"] == pytest.approx(0.1 * violations["nodeHorizons"])
    assert 0 < violations["severity"] < 0.6
    assert violations["budgetUsed"] == pytest.approx(violations["count"] / violations["budget"], rel=1e-4)
    assert shop.metric("policy_violations", policy=shop.namespace, resource="cpu") == violations["count"]
    assert shop.status()["nodes"]["suspended"] == 0
    assert shop.events() == []


@pytest.mark.parametrize("how", ["observes", "is paused"])
def test_a_policy_that_no_longer_sells_takes_back_what_it_offered(shop: Shop, how: str) -> None:
    name = shop.policy()
    shop.until(shop.offered, "an offer")

    if how == "observes":
        shop.policy(mode="Observe")
    else:
        path = f"/apis/foresize.io/v1alpha1/oversubscriptionpolicies/{name}"
        shop.plane.api.patch(path, {"metadata": {"annotations": {"foresize.io/paused": "true"}}})

    shop.until(lambda: shop.offered() is None, "a clean node")
    shop.until(lambda: shop.cpu()["offered"] == 0, "a status that says so")


def test_a_node_that_is_not_measured_offers_what_it_has_sold_and_is_sold_on_once_it_is(shop: Shop) -> None:
    """Its pods stay."""
    shop.policy()
    shop.until(shop.offered, "an offer")
    shop.batch("batch", "cheap", cores=3.0)
    shop.until(lambda: "batch" in shop.running(), "a batch pod")

    shop.usage.silent_nodes.add(shop.node)
    shop.until(lambda: shop.offered() == 3000, "an offer of what is sold")
    assert shop.status()["nodes"]["stale"] == 1
    assert shop.condition("ReclaimingActive") == ("False", "StaleNodeMetrics")
    assert "batch" in shop.running()

    shop.usage.silent_nodes.clear()
    shop.until(lambda: (shop.offered() or 0) > 8000, "a larger offer")


@pytest.mark.parametrize(("budgets", "allowed"), [(1, 0), (2, 1)], ids=["its budget", "two budgets"])
def test_a_pod_whose_disruption_budget_does_not_let_it_go_stays_and_the_next_one_goes(
    shop: Shop, budgets: int, allowed: int
) -> None:
    """And a pod whose owner did not opt in stays as well, cheap as it is. Of two budgets the API server allows none."""
    evictable = {"foresize.io/evictable": "true"}
    shop.policy()
    shop.until(shop.offered, "an offer")
    for number in range(budgets):
        shop.plane.apply(
            {
                "apiVersion": "policy/v1",
                "kind": "PodDisruptionBudget",
                "metadata": {"name": f"kept-{number}", "namespace": shop.namespace},
                "spec": {"maxUnavailable": allowed, "selector": {"matchLabels": {"kept": "yes"}}},
            }
        )
    shop.batch("kept", "cheap", labels={**evictable, "kept": "yes"})
    shop.batch("not-asked", "cheap", labels={"app": "batch"})
    shop.batch("dear", "dear")
    shop.until(lambda: len(shop.running()) == 4, "three batch pods")

    shop.usage.use({"kept": 5.0, "not-asked": 5.0, "dear": 5.0})
    shop.until(lambda: "dear" not in shop.running(), "an eviction")

    assert shop.running() == ["kept", "not-asked", "web-0"]
    assert any(reason == "EvictionBlocked" and "kept" in note for reason, note in shop.events())


def test_where_two_policies_select_a_node_the_stricter_holds_and_both_say_so(shop: Shop) -> None:
    """The lower rate, and no sale while one of them observes."""
    strict, other = shop.policy(f"{shop.namespace}-a", maxRate=1.2), shop.policy(f"{shop.namespace}-b")

    shop.until(lambda: shop.offered() == 3700, "an offer by the lower rate")
    for name in (strict, other):
        assert shop.condition("Conflict", name) == ("True", "Conflict")
        assert "Conflict" in [reason for reason, _ in shop.events(name)]

    shop.policy(other, mode="Observe")
    shop.until(lambda: shop.offered() is None, "a clean node")
    shop.until(lambda: shop.condition("AbleToReclaim", strict) == ("False", "Conflict"), "a status that says so")


def test_a_new_leader_goes_on_where_the_last_one_stopped(shop: Shop) -> None:
    """A suspended node is not sold again by a restart, and the record of violations is kept."""
    shop.policy()
    shop.until(shop.offered, "an offer")
    shop.batch("batch", "cheap", labels={"app": "batch"})
    shop.until(lambda: "batch" in shop.running(), "a batch pod")
    shop.usage.use({"batch": 14.0})
    shop.until(lambda: shop.cpu()["violations"]["count"] == 1, "a violation")
    shop.until(lambda: shop.offered() == 2000, "an offer of what is sold")

    shop.usage.use({"batch": 0.0})
    shop.close()
    shop.control = shop.a_control()
    shop.cycle()

    assert shop.offered() == 2000
    assert shop.status()["suspendedNodes"] == [shop.node]
    assert shop.cpu()["violations"]["count"] == 1
    shop.until(lambda: (shop.offered() or 0) > 2000, "a node that is sold again")


def test_a_pause_of_the_whole_controller_takes_back_what_was_offered(shop: Shop) -> None:
    """What nobody guards is not sold."""
    shop.policy()
    shop.until(shop.offered, "an offer")
    shop.control.controller.settings = ScalingSettings(paused=True)

    shop.until(lambda: shop.offered() is None, "a clean node")

    shop.until(lambda: shop.condition("AbleToReclaim") == ("False", "Paused"), "a status that says so")


def test_a_dry_run_writes_nothing_at_all(shop: Shop) -> None:
    """No status either; the metrics say what would be offered."""
    shop.policy()
    shop.control.controller.is_dry_run = True

    labels = {"node": shop.node, "resource": "cpu"}
    shop.until(lambda: shop.metric("node_reclaimable", **labels), "a prediction")

    assert shop.offered() is None
    assert shop.status() == {}
    assert shop.metric("node_offered", **labels) == 0


def test_a_node_short_of_memory_is_not_sold_on_and_loses_the_cheapest_pod(shop: Shop) -> None:
    """Whatever its CPU looks like."""
    shop.policy()
    shop.until(shop.offered, "an offer")
    shop.batch("cheap", "cheap")
    shop.batch("dear", "dear")
    shop.until(lambda: shop.running() == ["cheap", "dear", "web-0"], "two batch pods")

    pressure = {"type": "MemoryPressure", "status": "True", "reason": "KubeletHasInsufficientMemory", "message": ""}
    path = f"/api/v1/nodes/{shop.node}/status"
    shop.plane.api.patch(path, {"status": {"conditions": [pressure]}}, "application/strategic-merge-patch+json")
    shop.until(lambda: shop.running() == ["dear", "web-0"], "an eviction")

    shop.until(lambda: shop.condition("ReclaimingLimited") == ("True", "NodePressure"), "a status that says so")
    assert shop.events()[0][0] == "NodeSuspended"


def test_a_node_whose_kubelet_evicts_for_want_of_memory_is_not_sold_on_and_says_so(shop: Shop) -> None:
    """Whatever its usage looks like; the pods that are left stay."""
    shop.policy()
    shop.until(shop.offered, "an offer")
    shop.batch("big", "cheap")
    shop.batch("dear", "dear")
    shop.until(lambda: shop.running() == ["big", "dear", "web-0"], "two batch pods")

    # The kubelet's clock is a little ahead: there is more time to see it before it is long ago.
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 10))
    target = {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet", "lastTransitionTime": at}
    status = {
        "phase": "Failed",
        "reason": "Evicted",
        "message": "The node was low on resource: memory. Threshold quantity: 100Mi, available: 80Mi. ",
        "conditions": [target],
    }
    shop.plane.api.patch(f"/api/v1/namespaces/{shop.namespace}/pods/big/status", {"status": status})

    shop.until(lambda: shop.condition("ReclaimingLimited") == ("True", "KubeletEviction"), "a status that says so")
    (suspended, *_) = shop.events()
    assert suspended[0] == "NodeSuspended"
    assert f"the kubelet has evicted {shop.namespace}/big" in suspended[1]
    assert shop.cpu()["offered"] == shop.cpu()["sold"]
    assert {"dear", "web-0"} <= set(shop.running())
    shop.until(lambda: shop.status()["nodes"]["suspended"] == 0, "a node that is sold again")


def test_the_guard_does_not_wait_for_the_next_cycle_and_a_copy_that_lost_the_lease_evicts_nobody(shop: Shop) -> None:
    """Cycles an hour apart: sold, suspended and evicted within one; then another copy leads, and nothing is written."""
    control, leads = shop.control, shop.control.controller.leadership
    assert isinstance(leads, MemoryLeadership)
    control.controller.settings = ScalingSettings(interval=timedelta(hours=1))
    shop.policy()
    threads = [threading.Thread(target=run, daemon=True) for run in (control.controller.run, control.run)]
    for each in threads:
        each.start()
    try:
        wait_until(shop.offered, 60, "an offer")
        shop.batch("cheap", "cheap")
        shop.batch("dear", "dear")
        wait_until(lambda: shop.running() == ["cheap", "dear", "web-0"], 60, "two batch pods")

        shop.usage.use({"web": IDLE, "cheap": 8.0, "dear": 8.0})
        wait_until(lambda: shop.running() == ["dear", "web-0"], 60, "an eviction")

        wait_until(lambda: len(shop.events()) >= 2, 60, "Events")
        assert [reason for reason, _ in shop.events()][:2] == ["NodeSuspended", "PodEvicted"]
        assert sum(shop.metric("cycles_total", outcome=each) or 0 for each in ("complete", "held", "failed")) == 1

        leads.is_leader = False
        looked = shop.metric("node_looks_total", outcome="standby") or 0
        wait_until(lambda: (shop.metric("node_looks_total", outcome="standby") or 0) >= looked + 2, 60, "a standby")
        evictions = shop.metric("evictions_total", outcome="applied")
        shop.usage.use({"web": IDLE, "dear": 15.0})
        seen = shop.metric("node_looks_total", outcome="standby") or 0
        wait_until(lambda: (shop.metric("node_looks_total", outcome="standby") or 0) >= seen + 8, 60, "more looks")
        assert shop.running() == ["dear", "web-0"]
        assert shop.metric("evictions_total", outcome="applied") == evictions
    finally:
        control.controller.stop.set()
        for each in threads:
            each.join(60)


def test_a_busy_node_whose_tasks_wait_for_cpu_is_not_sold_on_and_loses_the_cheapest_pod(shop: Shop) -> None:
    """Though less is used than is usable; on an idle node the same pressure is tasks that wait for their own limits."""
    shop.policy()
    shop.until(shop.offered, "an offer")
    shop.batch("cheap", "cheap")
    shop.batch("dear", "dear")
    shop.until(lambda: shop.running() == ["cheap", "dear", "web-0"], "two batch pods")
    shop.usage.cpu_pressure[shop.node] = 0.6
    shop.until(lambda: (shop.metric("node_cpu_pressure", node=shop.node) or 0) > 0.5, "pressure that is seen")
    assert shop.status()["nodes"]["suspended"] == 0

    shop.usage.use({"web": IDLE, "cheap": 5.8, "dear": 5.8})
    shop.until(lambda: shop.running() == ["dear", "web-0"], "an eviction")

    (suspended, *_) = shop.events()
    assert suspended[0] == "NodeSuspended"
    assert "tasks waited for CPU" in suspended[1]
    assert shop.condition("ReclaimingLimited") == ("True", "CPUPressure")


def test_a_node_that_is_resized_cordoned_and_gone_is_followed(shop: Shop) -> None:
    """Less is offered once it is smaller, whoever runs on a cordoned one stays, and one gone leaves no trace."""
    path = f"/api/v1/nodes/{shop.node}"
    shop.policy()
    shop.until(lambda: (shop.offered() or 0) >= 8000, "an offer")
    shop.batch("batch", "cheap")
    shop.until(lambda: "batch" in shop.running(), "a batch pod")

    smaller = {"capacity": {"cpu": "12"}, "allocatable": {"cpu": "12"}}
    shop.plane.api.patch(f"{path}/status", {"status": smaller})
    shop.until(lambda: shop.cpu()["allocatable"] == 12, "a status that knows its size")
    shop.until(lambda: shop.offered() == 2500, "what the rate of 1.5 allows of 12 cores beside 15.5")

    shop.plane.api.patch(path, {"spec": {"unschedulable": True}})
    shop.cycle()
    assert shop.offered() == 2500
    assert shop.running() == ["batch", "web-0"]

    shop.plane.api.delete(path)
    shop.until(lambda: shop.condition("NodesSelected") == ("False", "NoNodes"), "a status that says so")
    assert "suspendedNodes" not in shop.status()
    assert shop.metric("node_offered", node=shop.node, resource="cpu") is None


def test_a_controller_without_the_role_says_which_rule_it_needs(shop: Shop) -> None:
    """In the condition; nothing else fails."""
    rules = [r for name in ("foresize-read", "foresize-tell") for r in ROLES[name]]
    shop.close()
    shop.kubeconfig = shop.plane.kubeconfig_for(f"{shop.namespace}-reader", rules)
    shop.control = shop.a_control()
    shop.policy()

    shop.until(lambda: shop.condition("AbleToReclaim") == ("False", "FailedUpdateNode"), "a status that says so")

    (said,) = [c["message"] for c in shop.status()["conditions"] if c["type"] == "AbleToReclaim"]
    assert "kubectl apply -f deploy/binding-nodes.yaml" in said
    assert 'resources: ["nodes/status"], verbs: ["patch"]' in said
    assert shop.offered() is None
    assert (shop.metric("node_writes_total", outcome="failed") or 0) > 0


def as_a_user(shop: Shop, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """The command with the addresses in variables."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FORESIZE_")}
    settings = {
        "FORESIZE_PROMETHEUS__URL": shop.usage.url,
        "FORESIZE_PROMETHEUS__SCRAPE_INTERVAL": "2s",
        "FORESIZE_HISTORY__STEP": "10m",
        "FORESIZE_SCALING__NAMESPACES": shop.namespace,
        "FORESIZE_SCALING__LEASE_NAMESPACE": shop.namespace,
    }

    return subprocess.run(
        [str(FORESIZE), *command, "--kubeconfig", str(shop.kubeconfig)],
        cwd=folder,
        env=clean | settings,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_one_cycle_of_foresize_run_looks_after_policies(shop: Shop, tmp_path: Path) -> None:
    """As a user starts it."""
    shop.policy(mode="Observe")

    ran = as_a_user(shop, tmp_path, "run", "--once")

    assert shop.cpu().get("predictedPeak") == pytest.approx(PEAK, rel=0.1), ran.stderr
    assert shop.condition("AbleToReclaim") == ("True", "Observe")


def test_foresize_explains_what_could_be_sold_of_a_node_and_writes_nothing(shop: Shop, tmp_path: Path) -> None:
    """Before any controller has looked; and a name that is nearly right is put right."""
    shop.policy()

    def explained() -> subprocess.CompletedProcess[str]:
        return as_a_user(shop, tmp_path, "explain", "--node", shop.node)

    wait_until(lambda: "not measured lately" not in explained().stdout, 60, "a node that has been scraped twice")
    told = explained()
    wrong = as_a_user(shop, tmp_path, "explain", "--node", f"{shop.node}x")

    assert told.returncode == 0, told.stderr
    assert f"policies     {shop.namespace}" in told.stdout
    assert "cpu          ExtendedResources; 16 cores allocatable" in told.stdout
    assert "are exceeded within 1 h with a probability of 0.1" in told.stdout
    assert "because      MaxRatio: " in told.stdout
    assert shop.offered() is None
    assert shop.status() == {}
    assert wrong.returncode == 1
    assert f"did you mean {shop.node}?" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_a_policy_that_selects_nothing_says_so(shop: Shop) -> None:
    name = f"{shop.namespace}-nowhere"
    shop.plane.apply(a_policy(name, {"nodeSelector": {"pool": "nowhere"}, "resources": [{"name": "memory"}]}))

    shop.until(lambda: shop.condition("NodesSelected", name) == ("False", "NoNodes"), "a status that says so")
    shop.delete(name)


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ({"violationProbability": 0}, "above 0 and below 0.5"),
        ({"violationProbability": 0.5}, "above 0 and below 0.5"),
        ({"maxRate": 0.9}, "from 1 to 10"),
        ({"horizon": "30m"}, "from 1h to 96h"),
        ({"horizon": "a day"}, "horizon"),
        ({"horizon": ""}, "from 1h to 96h"),
        ({"name": "disk"}, "Unsupported value"),
        ({"name": "gpu"}, "the actuator GPUSharing belong together"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_the_api(
    control_plane: ControlPlane, terms: dict[str, Any], said: str
) -> None:
    control_plane.apply(CRDS[1])

    with pytest.raises(ApiError, match=said):
        control_plane.apply(a_policy("refused", {"resources": [{"name": "cpu"} | terms]}))


AS_KUBECTL_ASKS = "application/json;as=Table;v=v1;g=meta.k8s.io"


def test_kubectl_get_osp_shows_rates_and_nodes_that_are_not_sold_and_wide_the_budget(
    control_plane: ControlPlane,
) -> None:
    """What a policy has not said yet, or is not about, is left empty."""
    control_plane.apply(CRDS[1])
    control_plane.apply(a_policy("listed", {"resources": [{"name": "cpu"}], "nodeSelector": {"pool": "none"}}))
    path = "/apis/foresize.io/v1alpha1/oversubscriptionpolicies/listed"
    status = {
        "nodes": {"selected": 9, "cold": 1, "stale": 2, "suspended": 3},
        "resources": [{"name": "cpu", "rate": 1.25, "violations": {"budgetUsed": 0.5}}],
    }
    control_plane.api.patch(f"{path}/status", {"status": status})

    table = control_plane.api.request("GET", path, accept=AS_KUBECTL_ASKS)
    control_plane.api.delete(path)

    (row,) = table["rows"]
    columns = table["columnDefinitions"]
    shown = {each["name"]: cell for each, cell in zip(columns, row["cells"], strict=True)}
    assert (shown["Mode"], shown["Nodes"], shown["Cold"], shown["Stale"], shown["Suspended"]) == ("Observe", 9, 1, 2, 3)
    assert float(shown["CPU"]) == 1.25
    assert (shown["Memory"], shown["GPU"]) == (None, None)
    assert float(shown["CPU Budget"]) == 0.5
    assert {each["name"] for each in columns if each["priority"]} == {
        "CPU Budget",
        "Memory Budget",
        "GPU Budget",
        "Conflict",
    }


def test_a_policy_observes_unless_it_says_otherwise(control_plane: ControlPlane) -> None:
    """With a day's horizon; how probable a violation may be depends on the resource, so that no default is written."""
    control_plane.apply(CRDS[1])

    taken = control_plane.apply(a_policy("taken", {"resources": [{"name": "cpu"}], "nodeSelector": {"pool": "none"}}))
    control_plane.api.delete("/apis/foresize.io/v1alpha1/oversubscriptionpolicies/taken")

    assert taken["spec"]["mode"] == "Observe"
    assert taken["spec"]["actuator"] == {"type": "ExtendedResources"}
    assert taken["spec"]["resources"] == [{"name": "cpu", "horizon": "24h", "maxRate": 1.5}]
