"""The doctor against a real API server: it names exactly the permissions that a role lacks, and what objects lack."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from autoscaler.kube.client import KubeClient
from autoscaler.kube.webhook import WebhookCertificate
from autoscaler.settings import WebhookSettings
from foresize.checks.check import Check
from foresize.checks.cluster import cluster_checks
from foresize.settings import load_settings
from tests.support.controlplane import ApiError, ControlPlane, JsonObject, deployment, wait_until
from tests.support.prometheus import STEP, a_prometheus, a_series
from tests.support.running import an_object
from tests.support.webhook import CONFIGURATIONS, POLICIES, Webhook, a_webhook

pytestmark = pytest.mark.e2e
DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
ROLES: dict[str, list[dict[str, Any]]] = {
    each["metadata"]["name"]: each["rules"]
    for each in yaml.safe_load_all((DEPLOY / "rbac.yaml").read_text())
    if each["kind"] in ("ClusterRole", "Role")
}


def checked(plane: ControlPlane, *roles: str, without: str = "") -> list[tuple[str, str]]:
    """What the doctor says to a user who has these roles of ours, but for one resource."""
    plane.apply(yaml.safe_load((DEPLOY / "crd.yaml").read_text()))
    rules = [rule for role in roles for rule in ROLES[role] if without not in rule["resources"]]
    with plane.namespace() as namespace:
        chosen: dict[tuple[str, ...], Any] = {
            ("scaling", "namespaces"): (namespace,),
            ("scaling", "lease_namespace"): namespace,
        }
        kubeconfig = plane.kubeconfig_for("doctor", rules, namespace)
        checks = cluster_checks(load_settings(None, {}, chosen), kubeconfig, None, asks_queries=True)
        return [(check.status, check.message.replace(namespace, "NS")) for check in checks]


def test_our_own_roles_are_enough(control_plane: ControlPlane) -> None:
    """With all of them nothing is missing; no object yet is a warning."""
    checks = checked(control_plane, *ROLES)

    assert [status for status, _ in checks] == ["OK", "OK", "OK", "WARN"]
    assert checks[2] == ("OK", "may hold the lease foresize-controller in namespace NS")
    assert checks[3] == ("WARN", "0 PredictiveAutoscalers")


def test_the_reading_role_lacks_what_only_writing_needs(control_plane: ControlPlane) -> None:
    """Warnings, one by one: a dry run needs none of it."""
    denied = [check for check in checked(control_plane, "foresize-read") if "may not" in check[1]]

    assert denied == [
        ("WARN", "may not patch predictiveautoscalers.foresize.io/status in namespace NS"),
        ("WARN", "may not create events.events.k8s.io in namespace NS"),
        ("WARN", "may not get, patch deployments.apps/scale in namespace NS"),
        ("WARN", "may not get, patch statefulsets.apps/scale in namespace NS"),
        ("WARN", "may not get, patch horizontalpodautoscalers.autoscaling in namespace NS"),
        ("WARN", "may not patch pods/resize in namespace NS"),
        ("WARN", "may not get, create, patch leases.coordination.k8s.io in namespace NS"),
    ]


def test_what_oversubscription_policies_need_is_checked_where_there_are_any(control_plane: ControlPlane) -> None:
    """In the whole cluster, as nodes are in no namespace."""
    control_plane.apply(yaml.safe_load((DEPLOY / "crd.yaml").read_text()))
    control_plane.apply(yaml.safe_load((DEPLOY / "crd-oversubscriptionpolicies.yaml").read_text()))
    spec = {"nodeSelector": {"pool": "none"}, "resources": [{"name": "cpu"}]}
    policy = {"apiVersion": "foresize.io/v1alpha1", "kind": "OversubscriptionPolicy", "spec": spec}
    control_plane.apply(policy | {"metadata": {"name": "looked-at"}})

    def said(user: str, *roles: str) -> list[tuple[str, str]]:
        kubeconfig = control_plane.kubeconfig_for(user, [rule for role in roles for rule in ROLES[role]])
        checks = cluster_checks(load_settings(None, {}, {}), kubeconfig, None, asks_queries=False)
        return [
            (c.status, c.message)
            for c in checks
            if "nodes" in c.message or "eviction" in c.message or "Over" in c.message
        ]

    try:
        assert said("reads", "foresize-read", "foresize-tell") == [
            ("WARN", "may not patch nodes/status in the cluster"),
            ("WARN", "may not create pods/eviction in the cluster"),
        ]
        assert said("sells", *ROLES) == [("OK", "may do everything that 1 OversubscriptionPolicies can ask for")]
        sharing = {"resources": [{"name": "gpu"}], "actuator": {"type": "GPUSharing"}}
        control_plane.apply(policy | {"metadata": {"name": "looked-at"}, "spec": spec | sharing})
        others = [name for name in ROLES if name != "foresize-gpus"]
        assert said("sells-no-gpus", *others) == [("WARN", "may not patch nodes in the cluster")]
    finally:
        control_plane.api.delete("/apis/foresize.io/v1alpha1/oversubscriptionpolicies/looked-at")


def about_the_webhook(webhook: Webhook, kubeconfig: Path | None = None) -> list[tuple[str, str]]:
    """What is said of it to an administrator, or whoever else asks."""
    settings = load_settings(
        None,
        {},
        {
            ("webhook", "dns_name"): "localhost",
            ("webhook", "configuration"): webhook.namespace,
            ("webhook", "certificate_namespace"): webhook.namespace,
            ("webhook", "certificate_name"): webhook.namespace,
        },
    )
    checks = cluster_checks(settings, kubeconfig or webhook.plane.kubeconfig, None, asks_queries=False)
    said = [(c.status, c.message.replace(webhook.namespace, "NS")) for c in checks]
    return [each for each in said if "webhook" in each[1].lower() or "Secret" in each[1]]


def bind_webhook_roles(webhook: Webhook, without: str = "") -> None:
    """Those of deploy/webhook in the namespace, for its own configuration and Secret, but for one resource."""
    for each in yaml.safe_load_all((DEPLOY / "webhook" / "rbac.yaml").read_text()):
        for place in (each["metadata"], *each.get("subjects", ())):
            if "namespace" in place:
                place["namespace"] = webhook.namespace
        if each["kind"].startswith("Cluster"):
            each["metadata"]["name"] = webhook.namespace
        if each["kind"] == "ClusterRoleBinding":
            each["roleRef"]["name"] = webhook.namespace
        each["rules"] = [
            rule | ({"resourceNames": [webhook.namespace]} if "resourceNames" in rule else {})
            for rule in each.get("rules") or ()
            if without not in rule["resources"]
        ]
        webhook.plane.apply({key: value for key, value in each.items() if value})


@pytest.fixture
def webhook(control_plane: ControlPlane, tmp_path: Path) -> Iterator[Webhook]:
    """Nothing of it is there yet."""
    control_plane.apply(yaml.safe_load((DEPLOY / "crd.yaml").read_text()))
    with control_plane.namespace("examined") as namespace, a_webhook(control_plane, tmp_path, namespace) as webhook:
        wait_until(lambda: is_served(control_plane, POLICIES), 30, "a server that has taken in the applied kind")
        yield webhook


def is_served(plane: ControlPlane, path: str) -> bool:
    try:
        plane.get(path)
    except ApiError:
        return False
    return True


def test_a_webhook_that_is_installed_is_examined_step_by_step(webhook: Webhook) -> None:
    """From a policy that waits for it to one that is called; each step says what is still missing."""
    webhook.policy()
    waiting = "requests are not lowered as 1 OversubscriptionPolicies want it"
    assert about_the_webhook(webhook) == [("WARN", f"there is no MutatingWebhookConfiguration NS: {waiting}")]

    webhook.configure()
    bind_webhook_roles(webhook, without="secrets")
    assert about_the_webhook(webhook) == [
        ("WARN", "there is no Secret NS/NS for the webhook's certificate"),
        ("WARN", "the webhook's ServiceAccount NS/foresize-webhook may not get secrets NS, patch secrets NS"),
    ]

    bind_webhook_roles(webhook)
    webhook.make_secret()
    ((status, message),) = about_the_webhook(webhook)
    assert status == "WARN"
    assert message.endswith("should have been renewed: it has no ca.crt, tls.crt, tls.key")

    client = KubeClient.connect(webhook.plane.kubeconfig)
    try:
        of = {"configuration": webhook.namespace, "certificate_namespace": webhook.namespace}
        settings = WebhookSettings(dns_name="localhost", certificate_name=webhook.namespace, **of)
        WebhookCertificate(client, settings, time.time).kept()
    finally:
        client.close()
    assert about_the_webhook(webhook) == [
        ("OK", "MutatingWebhookConfiguration NS is there and trusts the webhook's certificate")
    ]

    webhook.configure()  # Applied anew, without whom to trust.
    webhook.plane.api.patch(
        f"{CONFIGURATIONS}/{webhook.namespace}",
        {
            "webhooks": [
                {"name": f"{n}.foresize.io", "clientConfig": {"caBundle": None}} for n in ("amplify", "reclaim")
            ]
        },
        "application/strategic-merge-patch+json",
    )
    (distrust,) = about_the_webhook(webhook)
    assert "amplify.foresize.io, reclaim.foresize.io of NS trust another certificate" in distrust[1]

    reader = webhook.plane.kubeconfig_for(f"{webhook.namespace}-reader", ROLES["foresize-read"])
    assert about_the_webhook(webhook, reader) == [
        ("OK", "may not get MutatingWebhookConfiguration NS: whether pods are changed was not looked at")
    ]


def test_a_webhook_that_nobody_answers_for_is_a_warning(webhook: Webhook) -> None:
    """The Service that the API server calls has no Ready copy behind it, and another name than the certificate."""
    configuration = yaml.safe_load((DEPLOY / "webhook" / "configuration.yaml").read_text())
    configuration["metadata"]["name"] = webhook.namespace
    for hook in configuration["webhooks"]:
        hook["clientConfig"]["service"]["namespace"] = webhook.namespace
        hook["namespaceSelector"] = {"matchLabels": {"kubernetes.io/metadata.name": webhook.namespace}}
    webhook.plane.apply(configuration)

    said = [message for _, message in about_the_webhook(webhook)]

    called = "foresize-webhook.NS.svc"
    assert f"the API server calls the webhook by {called}, webhook.dns_name is localhost" in said
    assert "no copy of the webhook is Ready behind the Service NS/foresize-webhook: no pod is changed" in said


def test_what_even_a_dry_run_needs_fails(control_plane: ControlPlane) -> None:
    """Without pods nothing can be learned of how long they take; no object is looked for then."""
    checks = checked(control_plane, *ROLES, without="pods")

    assert ("FAIL", "may not list, watch pods in namespace NS") in checks
    assert not any("PredictiveAutoscalers" in message for _, message in checks)


DAY = 86_400 // STEP
QUERY = "metric.query "


def of_objects(plane: ControlPlane, namespace: str, url: str, *, asks_queries: bool = True) -> dict[str, Check]:
    """What the doctor says of each object of the namespace, by its name."""
    chosen: dict[tuple[str, ...], Any] = {
        ("scaling", "namespaces"): (namespace,),
        ("scaling", "lease_namespace"): namespace,
        ("prometheus", "url"): url,
    }
    checks = cluster_checks(load_settings(None, {}, chosen), plane.kubeconfig, None, asks_queries=asks_queries)
    start = f"PredictiveAutoscaler {namespace}/"
    about = [check for check in checks if check.message.startswith(start)]
    named = {check.message.removeprefix(start).partition(":")[0]: check for check in about}
    assert len(named) == len(about), "one check for each"
    return named


def test_each_query_is_asked_and_what_is_wrong_with_it_is_said(control_plane: ControlPlane, tmp_path: Path) -> None:
    """By the name of its object, with what to do; a day of values is enough, an hour is not."""
    queries = {
        "fine": "sum(jobs_waiting)",
        "young": "sum(jobs_young)",
        "ended": "sum(jobs_ended)",
        "nothing": "sum(jobs_nobody_knows)",
        "many": "jobs_waiting",
        "other": 'sum(jobs_waiting{namespace="bank"})',
        "wrong": "summ(jobs_waiting)",
    }
    control_plane.apply(yaml.safe_load((DEPLOY / "crd.yaml").read_text()))
    start = int(time.time()) // STEP * STEP - (DAY + 2) * STEP
    with control_plane.namespace("doctor") as namespace:
        ids = {"namespace": namespace}
        # Two steps that are yet to come, so that none is missing when one begins meanwhile.
        series = [
            *(a_series("jobs_waiting", [21.0] * (DAY + 4), **ids, queue=queue) for queue in ("mail", "bills")),
            a_series("jobs_young", [7.0] * 14, DAY - 10, **ids),
            a_series("jobs_ended", [7.0] * (DAY - 12), **ids),
        ]
        for name, query in queries.items():
            control_plane.apply(deployment(name, namespace, 0))
            control_plane.apply(an_object(namespace, name, metric={"query": query}))
        with a_prometheus(tmp_path, series, start_seconds=start) as prometheus:
            found = of_objects(control_plane, namespace, prometheus.url)
            unasked = of_objects(control_plane, namespace, prometheus.url, asks_queries=False)

    assert {name: check.status for name, check in found.items()} == dict.fromkeys(queries, "WARN") | {"fine": "OK"}
    said = {name: check.message.partition(QUERY)[2] for name, check in found.items()}
    assert said["fine"] == f"answers 42 now, {DAY} of {DAY} points of the last day"
    assert said["young"].startswith("answers 7 now, but has only ")
    assert said["ended"].startswith("has no value now (")
    assert said["nothing"] == "matches nothing in its own namespace"
    assert said["many"].startswith("has 2 series, such as ")
    assert said["other"].startswith("is refused: ")
    assert f'reads what is not namespace="{namespace}"' in said["other"]
    assert said["wrong"].startswith("is refused: not PromQL as foresize knows it")
    assert all(check.advice for name, check in found.items() if name != "fine")
    assert unasked["fine"].message.endswith("is accepted; not asked")
    assert unasked["other"].status == "WARN"


def test_objects_that_cannot_be_followed_are_named(control_plane: ControlPlane) -> None:
    """A target that is not there, and pods that request none of what demand is measured by; one that is well is not."""
    control_plane.apply(yaml.safe_load((DEPLOY / "crd.yaml").read_text()))
    share: JsonObject = {"metric": {"resource": "cpu"}, "target": {"averageUtilization": 80}}
    with control_plane.namespace("doctor") as namespace:
        control_plane.apply(deployment("bare", namespace, 0, requests={"memory": "64Mi"}))
        control_plane.apply(deployment("well", namespace, 0, requests={"cpu": "100m"}))
        for name in ("bare", "well", "gone"):
            control_plane.apply(an_object(namespace, name, **share))
        found = of_objects(control_plane, namespace, "http://127.0.0.1:9")

    assert sorted(found) == ["bare", "gone"]
    assert found["bare"].message.endswith(": its containers request no cpu")
    assert found["bare"].advice == "set a cpu request or spec.horizontal.target.averageValue"
    assert found["gone"].message.endswith(f": there is no Deployment gone in namespace {namespace}")
    assert found["gone"].advice == "create it, or mend spec.targetRef"
    assert {check.status for check in found.values()} == {"WARN"}
