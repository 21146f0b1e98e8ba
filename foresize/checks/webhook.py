"""Whether `foresize webhook` can be called, where it is installed or a policy waits for it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from foresize.checks.check import Check, Checks

if TYPE_CHECKING:
    from pipelines.settings import Settings

WEBHOOK_ACCOUNT = "foresize-webhook"
"""The ServiceAccount that deploy/webhook gives `foresize webhook`."""
WEBHOOK_ADVICE = "kubectl apply -k deploy/webhook"
WEBHOOK_LOG = (
    "`foresize webhook` mends it within a minute: look whether its copies run, and for `not looked after` in their log"
)


def webhook_checks(settings: "Settings", client: Any, specs: Sequence[Mapping[str, Any]], now_seconds: float) -> Checks:
    """Whether `foresize webhook` can be called, where it is installed or one of the policies waits for it."""
    from autoscaler.cluster.nodes import Actuator
    from autoscaler.errors import ClusterRefused, ObjectGone
    from autoscaler.kube.webhook import CONFIGURATIONS

    named = f"MutatingWebhookConfiguration {settings.webhook.configuration}"
    waiting = sum(
        each.get("mode") == "Auto" and (each.get("actuator") or {}).get("type") == Actuator.REQUEST_AMPLIFICATION
        for each in specs
    )
    try:
        hooks = client.get(f"{CONFIGURATIONS}/{settings.webhook.configuration}").get("webhooks") or []
    except ObjectGone:
        if waiting:
            text = f"there is no {named}: requests are not lowered as {waiting} OversubscriptionPolicies want it"
            yield Check("cluster", "WARN", text, WEBHOOK_ADVICE)
        return
    except ClusterRefused:
        if waiting:
            yield Check("cluster", "OK", f"may not get {named}: whether pods are changed was not looked at")
        return
    found = [
        *_certificate_checks(settings, client, hooks, now_seconds),
        *_service_checks(settings, client, hooks),
        *_webhook_role_checks(settings, client),
    ]
    yield from found or [Check("cluster", "OK", f"{named} is there and trusts the webhook's certificate")]


def _certificate_checks(
    settings: "Settings", client: Any, hooks: Sequence[Mapping[str, Any]], now_seconds: float
) -> Checks:
    from base64 import b64decode

    from autoscaler.errors import ClusterRefused, ObjectGone
    from autoscaler.kube.certificates import Certificate, certificate_in, is_trusted

    of = settings.webhook
    secret = f"Secret {of.certificate_namespace}/{of.certificate_name}"
    try:
        content = client.get(f"/api/v1/namespaces/{of.certificate_namespace}/secrets/{of.certificate_name}")
    except ObjectGone:
        yield Check("cluster", "WARN", f"there is no {secret} for the webhook's certificate", WEBHOOK_ADVICE)
        return
    except ClusterRefused:
        yield Check("cluster", "OK", f"may not get {secret}: the webhook's certificate was not looked at")
        return
    kept = {name: b64decode(text) for name, text in (content.get("data") or {}).items()}
    certificate = certificate_in(kept, of.dns_name, now_seconds)
    if not isinstance(certificate, Certificate):
        text = f"the webhook's certificate in {secret} should have been renewed: {certificate}"
        yield Check("cluster", "WARN", text, WEBHOOK_LOG)
        return
    bundles = {each["name"]: b64decode((each.get("clientConfig") or {}).get("caBundle") or "") for each in hooks}
    distrusting = [name for name, bundle in bundles.items() if not is_trusted(certificate.certificate, bundle)]
    if distrusting:
        text = f"{', '.join(distrusting)} of {of.configuration} trust another certificate than that in {secret}"
        yield Check("cluster", "WARN", f"{text}: no pod is changed", WEBHOOK_LOG)


def _service_checks(settings: "Settings", client: Any, hooks: Sequence[Mapping[str, Any]]) -> Checks:
    """Where the configuration names a Service: whether the certificate is made out to it, and anybody is behind it."""
    from autoscaler.errors import ClusterRefused

    services = {
        (each["namespace"], each["name"]) for hook in hooks if (each := (hook.get("clientConfig") or {}).get("service"))
    }
    for namespace, name in sorted(services):
        called = f"{name}.{namespace}.svc"
        if called != settings.webhook.dns_name:
            text = f"the API server calls the webhook by {called}, webhook.dns_name is {settings.webhook.dns_name}"
            yield Check("cluster", "WARN", text, "set webhook.dns_name to it: the certificate is made out to that name")
        slices = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
        try:
            items = client.get(slices, labelSelector=f"kubernetes.io/service-name={name}").get("items") or ()
        except ClusterRefused:
            continue
        ends = [end for each in items for end in each.get("endpoints") or ()]
        if not any((end.get("conditions") or {}).get("ready") for end in ends):
            text = f"no copy of the webhook is Ready behind the Service {namespace}/{name}: no pod is changed"
            yield Check("cluster", "WARN", text, f"kubectl describe deployment -n {namespace} {name}, then its log")


def _webhook_role_checks(settings: "Settings", client: Any) -> Checks:
    """What its ServiceAccount may not do, where this user may ask for others."""
    from autoscaler.errors import ClusterRefused

    of = settings.webhook
    user = f"system:serviceaccount:{of.certificate_namespace}:{WEBHOOK_ACCOUNT}"
    needed = (
        *(("", "foresize.io", "oversubscriptionpolicies", "", verb) for verb in ("list", "watch")),
        *(("", "", each, "", verb) for each in ("limitranges", "resourcequotas") for verb in ("list", "watch")),
        *(
            ("", "admissionregistration.k8s.io", "mutatingwebhookconfigurations", of.configuration, verb)
            for verb in ("get", "patch")
        ),
        *((of.certificate_namespace, "", "secrets", of.certificate_name, verb) for verb in ("get", "patch")),
    )
    lacking: list[str] = []
    for namespace, group, resource, name, verb in needed:
        attributes = {"namespace": namespace, "group": group, "resource": resource, "name": name, "verb": verb}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": user, "resourceAttributes": {key: value for key, value in attributes.items() if value}},
        }
        try:
            answer = client.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
        except ClusterRefused:
            return
        if not (answer.get("status") or {}).get("allowed"):
            plain = f"{resource}.{group}" if group else resource
            lacking.append(f"{verb} {plain}{' ' + name if name else ''}")
    if lacking:
        text = f"the webhook's ServiceAccount {of.certificate_namespace}/{WEBHOOK_ACCOUNT} may not {', '.join(lacking)}"
        yield Check("cluster", "WARN", text, f"{WEBHOOK_ADVICE} binds its roles (deploy/webhook/rbac.yaml)")
