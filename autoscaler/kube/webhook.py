"""The webhook's side of the cluster: policies and namespaces' rules that it watches, its Secret and its configuration.

Every copy does the same and none leads: whoever finds the certificate old renews it, and a Secret that another copy has
just written is read again. The configuration is never created here, so that deleting it switches the webhook off.
"""

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

import structlog

from autoscaler.cluster.reasons import Reason, ReasonCode
from autoscaler.controller.admission import rates_of
from autoscaler.errors import AutoscalerError, CommandConflict, ObjectGone
from autoscaler.kube.admission import Admission, Rule, admitted, limit_range_of, quota_of, reviewed, rules_of
from autoscaler.kube.certificates import AUTHORITIES, CERTIFICATE, KEY, Certificate, certificate_in, issued
from autoscaler.kube.client import JsonObject, KubeClient
from autoscaler.kube.clocks import seconds_since_boot
from autoscaler.kube.nodes import OLDEST_SECONDS, POLICIES, policy_of
from autoscaler.kube.objects import FIELD_MANAGER
from autoscaler.kube.watch import WatchedCollection
from autoscaler.metrics import WebhookMetrics
from autoscaler.settings import WebhookSettings

log = structlog.get_logger("autoscaler.webhook")

CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
LIMIT_RANGES, QUOTAS = "/api/v1/limitranges", "/api/v1/resourcequotas"
ATTEMPTS = 3
"""How often a Secret is read that other copies go on writing."""


@dataclass
class PodAdmission:
    """Decides what becomes of pods, from watches; a picture that is old changes nothing."""

    client: KubeClient
    stale_after_seconds: float
    """A policy's status that is older oversells nothing."""
    now: Callable[[], float]
    metrics: WebhookMetrics = field(default_factory=WebhookMetrics)
    clock: Callable[[], float] = seconds_since_boot
    random: Random = field(default_factory=Random)

    def __post_init__(self) -> None:
        reduced: dict[str, Callable[[JsonObject], Any]] = {
            POLICIES: policy_of,
            LIMIT_RANGES: limit_range_of,
            QUOTAS: quota_of,
        }
        self._watched: dict[str, WatchedCollection[Any]] = {
            path: WatchedCollection(self.client, path, reduce, clock=self.clock, random=self.random)
            for path, reduce in reduced.items()
        }

    def start(self) -> None:
        """Begins to watch."""
        for each in self._watched.values():
            each.start()

    def close(self) -> None:
        """Ends every watch."""
        for each in self._watched.values():
            each.stop()

    def unready_because(self) -> str:
        """Why no pod can be changed; empty where that depends on the pods alone."""
        for path, each in self._watched.items():
            if not each.is_synced:
                return f"{path} is not listed yet: {each.problem or 'it was just begun'}"
            if each.age_seconds() > OLDEST_SECONDS and not each.is_absent:
                return f"{path} was last seen {each.age_seconds():.0f} s ago: {each.problem or 'nothing was heard'}"
        return ""

    def answer(self, rule_name: str, review: Mapping[str, Any]) -> JsonObject:
        """The AdmissionReview with the answer. Raises AutoscalerError for what is none."""
        rule = Rule(rule_name)
        try:
            response, admission = reviewed(review, lambda pod, namespace: self._admission(rule, pod, namespace))
        except AutoscalerError:
            self.metrics.pods.labels(rule.value, "refused", "").inc()
            raise
        if admission.operations:
            self.metrics.pods.labels(rule.value, "changed", "").inc()
        else:
            reason = admission.reasons[0]
            self.metrics.pods.labels(rule.value, "left_alone", reason.code.value).inc()
        pod = review["request"]["object"].get("metadata") or {}
        log.info(
            "pod admitted",
            rule=rule.value,
            namespace=review["request"].get("namespace", ""),
            pod=pod.get("name") or pod.get("generateName", ""),
            is_changed=bool(admission.operations),
            left_alone=[str(each) for each in admission.reasons],
        )
        return response

    def _admission(self, rule: Rule, pod: Mapping[str, Any], namespace: str) -> Admission:
        problem = self.unready_because()
        if problem:
            return Admission(reasons=(Reason(ReasonCode.STALE_RATE, problem),))
        policies = self._watched[POLICIES].snapshot().values()
        found = [*self._watched[LIMIT_RANGES].snapshot().values(), *self._watched[QUOTAS].snapshot().values()]
        rates = rates_of(policies, self.now(), self.stale_after_seconds)
        return admitted(pod, rule, rates, rules_of(namespace, found))


@dataclass
class WebhookCertificate:
    """Keeps the certificate in its Secret young, and the configuration trusting it."""

    client: KubeClient
    settings: WebhookSettings
    now: Callable[[], float]
    metrics: WebhookMetrics = field(default_factory=WebhookMetrics)

    def kept(self) -> Certificate:
        """The certificate to serve from now on, renewed where it had to be; whoever calls the webhook trusts it first.

        Raises ClusterUnavailable, ClusterRefused, and ObjectGone where there is no Secret to keep it in.
        """
        certificate = self._from_secret()
        self.metrics.is_on.set(self._is_trusted(certificate))
        self.metrics.certificate_expires.set(certificate.expires_seconds)
        return certificate

    def _from_secret(self) -> Certificate:
        path = f"/api/v1/namespaces/{self.settings.certificate_namespace}/secrets/{self.settings.certificate_name}"
        for attempt in range(ATTEMPTS):
            try:
                secret = self.client.get(path)
            except ObjectGone as gone:
                text = f"there is no Secret {self.settings.certificate_namespace}/{self.settings.certificate_name}"
                raise ObjectGone(f"{text} to keep the certificate in: kubectl apply -k deploy/webhook") from gone
            data = {name: base64.b64decode(text) for name, text in (secret.get("data") or {}).items()}
            found = certificate_in(data, self.settings.dns_name, self.now())
            if isinstance(found, Certificate):
                return found
            renewed = issued(self.settings.dns_name, self.now(), data.get(AUTHORITIES, b""))
            content = {AUTHORITIES: renewed.authorities, CERTIFICATE: renewed.certificate, KEY: renewed.key}
            changes = {
                "metadata": {"resourceVersion": secret["metadata"]["resourceVersion"]},
                "data": {name: base64.b64encode(pem).decode() for name, pem in content.items()},
            }
            try:
                self.client.patch(path, changes, fieldManager=FIELD_MANAGER)
            except CommandConflict:
                if attempt == ATTEMPTS - 1:
                    raise
                continue
            log.info("certificate renewed", because=found, dns_name=self.settings.dns_name)
            return renewed
        raise AssertionError("the last attempt returns or raises")

    def _is_trusted(self, certificate: Certificate) -> bool:
        """Whether the configuration is there; it trusts the certificate's authorities then."""
        path = f"{CONFIGURATIONS}/{self.settings.configuration}"
        bundle = base64.b64encode(certificate.authorities).decode()
        try:
            hooks = self.client.get(path).get("webhooks") or ()
            old = [each["name"] for each in hooks if (each.get("clientConfig") or {}).get("caBundle") != bundle]
            if old:
                changes = {"webhooks": [{"name": name, "clientConfig": {"caBundle": bundle}} for name in old]}
                self.client.strategic_patch(path, changes, fieldManager=FIELD_MANAGER)
                log.info("configuration trusts the certificate", configuration=self.settings.configuration)
        except ObjectGone:
            return False
        return True
