"""`foresize webhook` called by a real API server: which pods it changes, and that no pod ever waits for it."""

import json
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
import yaml

from autoscaler.api.server import start_server
from autoscaler.api.webhook import ServedCertificate, build_webhook_app
from autoscaler.kube.certificates import LIFETIME, RENEWED_BEFORE, issued
from autoscaler.kube.client import KubeClient
from autoscaler.kube.webhook import PodAdmission, WebhookCertificate
from autoscaler.settings import WebhookSettings
from tests.support.controlplane import ControlPlane, JsonObject, wait_until
from tests.support.shop import Shop, a_bare_pod
from tests.support.webhook import CONFIGURATIONS, DEPLOY, ORIGINAL, POLICIES, Webhook, a_webhook, requests

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest.fixture
def webhook(control_plane: ControlPlane, tmp_path: Path) -> Iterator[Webhook]:
    """Configured and not started, in a namespace of its own."""
    with control_plane.namespace("admitted") as namespace, a_webhook(control_plane, tmp_path, namespace) as webhook:
        webhook.configure()
        yield webhook


def is_changed(pod: JsonObject) -> bool:
    return ORIGINAL in (pod["metadata"].get("annotations") or {})


def test_a_full_node_takes_a_pod_whose_request_is_divided_by_the_nodes_rate(shop: Shop, tmp_path: Path) -> None:
    """The whole way: usage in Prometheus, the peak, the rate in the status, the webhook, the scheduler, the guard."""
    shop.plane.apply(a_bare_pod(shop, "as-it-was", {"requests": {"cpu": "700m"}}))
    spec = shop.plane.get(f"{POLICIES}/{shop.policy()}")["spec"]
    with a_webhook(shop.plane, tmp_path, shop.namespace) as webhook:
        webhook.policy(resources=spec["resources"], mode="Observe")
        shop.until(lambda: shop.cpu().get("amplification", {}).get("rate") == 1.5, "what the rate could be")
        assert "lookedAt" not in shop.status()
        webhook.policy(resources=spec["resources"])
        webhook.configure()
        webhook.opt_in()
        webhook.start()
        shop.until(lambda: "lookedAt" in shop.status(), "a rate that may be used")
        assert shop.cpu()["amplification"]["rate"] == 1.5
        assert shop.offered() is None
        assert shop.condition("AbleToReclaim") == ("True", "SucceededUpdate")

        pod = webhook.until_changed("probe", {"requests": {"cpu": "15m"}})
        assert requests(pod) == {"cpu": "10m"}
        labels = {"foresize.io/evictable": "true"}
        manifest = a_bare_pod(shop, "lowered", {"requests": {"cpu": "690m"}}, labels)
        shop.plane.apply(manifest)
        shop.until(lambda: "lowered" in shop.running(), "a pod on a node that was full")
        assert "as-it-was" not in shop.running()

        # The first request goes on counting.
        requested = shop.cpu()["requested"]
        shop.until(lambda: shop.cpu()["requested"] >= 15.5 + 0.69, f"more than {requested} requested")

        # Too much is used: the rate is 1 at once, and the pod that opted in goes.
        shop.usage.use({"web": 10.0, "lowered": 8.0})
        shop.until(lambda: shop.cpu()["amplification"]["rate"] == 1, "a rate of 1")
        shop.until(lambda: "lowered" not in shop.running(), "an eviction")
        assert not is_changed(webhook.pod("late", {"requests": {"cpu": "690m"}}))
        assert webhook.stop() == 0


def test_only_pods_that_opted_in_are_changed_and_only_while_the_rate_holds(webhook: Webhook) -> None:
    policy = webhook.policy()
    webhook.start()
    webhook.tell(policy, amplification={"rate": 1.5})
    wait_until(webhook.trusted, 60, "a trusted certificate")
    assert not is_changed(webhook.pod("not-opted-in"))

    webhook.opt_in()
    pod = webhook.until_changed("opted-in")
    assert requests(pod) == {"cpu": "200m"}
    assert json.loads(pod["metadata"]["annotations"][ORIGINAL]) == {"app": {"requests": {"cpu": "300m"}}}

    assert not is_changed(webhook.pod("opted-out", labels={"foresize.io/oversubscribe": "false"}))
    assert requests(webhook.pod("nothing", {})) == {}
    assert requests(webhook.pod("below-the-floor", {"requests": {"cpu": "5m"}})) == {"cpu": "5m"}
    assert requests(webhook.pod("at-the-floor", {"requests": {"cpu": "12m"}})) == {"cpu": "10m"}

    # A second policy that may select the same node: the lower rate holds; one that observes stops it.
    zonal = webhook.policy(f"{webhook.namespace}-zonal", nodeSelector={"zone": webhook.namespace})
    webhook.tell(zonal, amplification={"rate": 1.2})
    wait_until(lambda: requests(webhook.pod(f"lower-{time.monotonic_ns()}")) == {"cpu": "250m"}, 30, "the lower rate")
    webhook.policy(zonal, nodeSelector={"zone": webhook.namespace}, mode="Observe")
    wait_until(lambda: not is_changed(webhook.pod(f"none-{time.monotonic_ns()}")), 30, "no rate")
    webhook.plane.api.delete(f"{POLICIES}/{zonal}")
    webhook.until_changed("alone-again")

    # What was told long ago holds no more.
    webhook.plane.api.patch(f"{POLICIES}/{policy}/status", {"status": {"lookedAt": "2020-01-01T00:00:00Z"}})
    wait_until(lambda: not is_changed(webhook.pod(f"stale-{time.monotonic_ns()}")), 30, "a rate that is too old")
    said = [json.loads(line) for line in webhook.log().splitlines()]
    assert any("StaleRate" in str(each.get("left_alone")) for each in said)


def test_a_limit_range_refuses_no_pod_that_was_lowered(webhook: Webhook) -> None:
    """The lowered request stays at its minimum."""
    metadata = {"name": "least", "namespace": webhook.namespace}
    limits = [{"type": "Container", "min": {"cpu": "250m"}}]
    webhook.plane.apply({"apiVersion": "v1", "kind": "LimitRange", "metadata": metadata, "spec": {"limits": limits}})
    webhook.opt_in()
    webhook.start()
    webhook.tell(webhook.policy(), amplification={"rate": 1.5})

    assert requests(webhook.until_changed("ranged")) == {"cpu": "250m"}


def test_pods_with_the_label_ask_for_reclaimed_resources_where_they_are_sold(webhook: Webhook) -> None:
    policy = webhook.policy(actuator={"type": "ExtendedResources"})
    labels = {"foresize.io/reclaimed": "true"}
    resources = {"requests": {"cpu": "1500m", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "1Gi"}}
    webhook.start()
    webhook.tell(policy, offered=0)
    wait_until(webhook.trusted, 60, "a trusted certificate")
    assert requests(webhook.pod("none-sold", resources, labels)) == {"cpu": "1500m", "memory": "1Gi"}

    webhook.tell(policy, offered=4, sold=4, largestUnsold=0)
    wait_until(
        lambda: (
            not is_changed(webhook.pod(f"late-{time.monotonic_ns()}", resources, labels)) and "SoldOut" in webhook.log()
        ),
        30,
        "a pod that starts as an ordinary one where all is sold",
    )
    webhook.tell(policy, offered=4, sold=0, largestUnsold=2)
    wanted = {"foresize.io/reclaimed-cpu": "1500", "memory": "1Gi"}
    wait_until(
        lambda: requests(webhook.pod(f"sold-{time.monotonic_ns()}", resources, labels)) == wanted,
        30,
        "a translated pod",
    )
    pod = webhook.pod("sold", resources, labels)
    assert pod["spec"]["containers"][0]["resources"]["limits"] == {"foresize.io/reclaimed-cpu": "1500", "memory": "1Gi"}
    assert requests(webhook.pod("unlabelled", resources)) == {"cpu": "1500m", "memory": "1Gi"}


def test_pods_start_while_nobody_answers_and_where_nobody_is_asked_any_more(webhook: Webhook) -> None:
    """The process is gone; then the configuration, which the process never makes anew."""
    webhook.opt_in()
    webhook.start()
    policy = webhook.policy()
    webhook.tell(policy, amplification={"rate": 1.5})
    webhook.until_changed("asked")

    assert webhook.stop() == 0
    assert not is_changed(webhook.pod("unanswered"))

    webhook.start()
    webhook.until_changed("asked-again")
    webhook.plane.api.delete(f"{CONFIGURATIONS}/{webhook.namespace}")
    wait_until(lambda: not is_changed(webhook.pod(f"off-{time.monotonic_ns()}")), 30, "a webhook that is off")
    assert not [c for c in webhook.plane.get(CONFIGURATIONS)["items"] if c["metadata"]["name"] == webhook.namespace]


def test_pods_start_with_an_expired_certificate_which_is_renewed(webhook: Webhook) -> None:
    """The API server refuses the certificate and goes on without; the next look at the Secret mends it in place."""
    secret = f"/api/v1/namespaces/{webhook.namespace}/secrets/{webhook.namespace}"
    webhook.make_secret()
    webhook.opt_in()
    webhook.tell(webhook.policy(), amplification={"rate": 1.5})
    client = KubeClient.connect(webhook.plane.kubeconfig)
    settings = WebhookSettings(
        dns_name="localhost",
        configuration=webhook.namespace,
        certificate_namespace=webhook.namespace,
        certificate_name=webhook.namespace,
    )
    long_ago = time.time() - LIFETIME.total_seconds() - 60
    keeper = WebhookCertificate(client, settings, lambda: long_ago)
    expired = keeper.kept()
    admission, served = PodAdmission(client, 300.0, time.time), ServedCertificate()
    served.serve(expired.certificate, expired.key)
    app = build_webhook_app(admission.answer, admission.unready_because, admission.metrics.registry)
    server = start_server(app, "127.0.0.1", webhook.port, served)
    admission.start()
    try:
        wait_until(lambda: not admission.unready_because(), 30, "a webhook that has seen the cluster")
        assert webhook.trusted() == expired.authorities
        trusting = ssl.create_default_context(cadata=expired.authorities.decode())
        with pytest.raises(httpx2.ConnectError, match="certificate has expired"):
            httpx2.get(f"https://localhost:{webhook.port}/healthz", verify=trusting, trust_env=False)
        assert not is_changed(webhook.pod("with-an-expired-certificate"))

        renewed = WebhookCertificate(client, settings, time.time).kept()
        served.serve(renewed.certificate, renewed.key)

        webhook.until_changed("with-a-new-certificate")
        assert webhook.trusted() == renewed.authorities
        assert expired.authorities not in renewed.authorities
        assert set(webhook.plane.get(secret)["data"]) == {"ca.crt", "tls.crt", "tls.key"}
    finally:
        server.stop()
        admission.close()
        client.close()


def test_copies_share_one_certificate_and_trust_the_former_one_while_they_change_over(webhook: Webhook) -> None:
    """Whoever looks first renews it, 30 days before its end; the other takes what it finds."""
    webhook.make_secret()
    client = KubeClient.connect(webhook.plane.kubeconfig)
    settings = WebhookSettings(
        configuration=webhook.namespace,
        certificate_namespace=webhook.namespace,
        certificate_name=webhook.namespace,
    )
    now = time.time()
    clock = [now]
    one, other = (WebhookCertificate(client, settings, lambda: clock[0]) for _ in range(2))
    try:
        first = one.kept()
        assert other.kept() == first

        clock[0] = now + (LIFETIME - RENEWED_BEFORE).total_seconds() + 60
        second = other.kept()
        assert second.certificate != first.certificate
        assert second.authorities.endswith(first.authorities)
        assert one.kept() == second
        assert webhook.trusted() == second.authorities
        assert second.expires_seconds == pytest.approx(clock[0] + LIFETIME.total_seconds(), abs=2)
    finally:
        client.close()


def test_a_webhook_without_its_secret_ends_and_says_how_to_get_it(webhook: Webhook) -> None:
    webhook.start(has_secret=False)

    assert webhook.process is not None
    assert webhook.process.wait(timeout=60) == 1
    assert f"there is no Secret {webhook.namespace}/{webhook.namespace}" in webhook.log().splitlines()[-1]
    assert "kubectl apply -k deploy/webhook" in webhook.log().splitlines()[-1]


def test_what_was_issued_is_made_out_to_one_name_only() -> None:
    """No other server can be taken for it, and its authority signs nothing else: the key of that is gone."""
    certificate = issued("foresize-webhook.foresize.svc", time.time())

    assert certificate.certificate.count(b"BEGIN CERTIFICATE") == 1
    assert certificate.key.count(b"PRIVATE KEY") == 2
    assert b"PRIVATE KEY" not in certificate.authorities


def test_the_webhook_is_no_part_of_what_is_installed_by_default() -> None:
    installed = yaml.safe_load((DEPLOY / "kustomization.yaml").read_text())["resources"]

    assert not [each for each in installed if "webhook" in each]
