"""The wire to an API server: every failure has a name, a place and advice, and none takes for ever."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest

from autoscaler.errors import ClusterRefused, ClusterUnavailable, CommandConflict, HistoryExpired, ObjectGone
from autoscaler.kube.client import PAGE_ITEMS, KubeClient, missing_rule, our_role
from tests.support.http_answers import Answer, AnsweringServer, Asked, answering, unused_url
from tests.support.kubeconfig import a_kubeconfig

DEPLOYMENTS = "/apis/apps/v1/deployments"


@contextmanager
def connected(folder: Path, answer: Answer) -> Iterator[tuple[KubeClient, AnsweringServer]]:
    """A client of a server that always answers the same."""
    with answering(answer) as server:
        client = KubeClient.connect(a_kubeconfig(folder, server.url))
        client.timeout_seconds = (1.0, 0.3)
        yield client, server
        client.close()


def status(code: int, message: str) -> Answer:
    return Answer(code, orjson.dumps({"kind": "Status", "code": code, "message": message}))


def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    """The address and what the network said."""
    url = unused_url()

    with pytest.raises(ClusterUnavailable, match=rf"{url} did not answer GET {DEPLOYMENTS}: .*Connection refused"):
        KubeClient.connect(a_kubeconfig(tmp_path, url)).get(DEPLOYMENTS)


def test_a_server_that_hangs_is_given_up(tmp_path: Path) -> None:
    """After its time-out, once: what would have been answered later is not waited for, nor asked for again."""
    with connected(tmp_path, Answer(delay_seconds=30)) as (client, server):
        with pytest.raises(ClusterUnavailable, match="timed out"):
            client.get(DEPLOYMENTS)

        assert len(server.asked) == 1


def test_a_connection_that_died_is_replaced_for_a_read(tmp_path: Path) -> None:
    """The first answer is cut off, as by a restart; the second one is whole."""
    broken, whole = Answer(body=b"{", missing_bytes=9), Answer(body=b'{"items": []}')

    with answering(lambda _, number: whole if number else broken) as server:
        answer = KubeClient.connect(a_kubeconfig(tmp_path, server.url)).get(DEPLOYMENTS)

    assert answer == {"items": []}


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (status(401, "Unauthorized"), ClusterRefused, "does not know this user"),
        (status(403, "deployments is forbidden"), ClusterRefused, r"add to the role in the cluster: \{apiGroups"),
        (status(404, "not found"), ObjectGone, "not found"),
        (status(410, "too old resource version"), HistoryExpired, "too old resource version"),
        (status(422, "spec.replicas: must be positive"), ClusterRefused, "spec.replicas: must be positive"),
        (status(422, "metadata.uid: Invalid value: field is immutable"), CommandConflict, "made anew"),
        (status(429, "too many requests"), ClusterUnavailable, "could not answer"),
        (status(503, "etcd leader changed"), ClusterUnavailable, "etcd leader changed"),
        (Answer(502, b"<html>Bad Gateway</html>"), ClusterUnavailable, "Bad Gateway"),
        (Answer(200, b"<html>Login</html>"), ClusterUnavailable, "is it a Kubernetes API server"),
        (Answer(200, b'"a string"'), ClusterUnavailable, "with str"),
        (Answer(200, b'{"items": [', missing_bytes=50), ClusterUnavailable, "did not answer"),
    ],
    ids=["401", "403", "404", "410", "422", "uid", "429", "503", "proxy", "html", "no object", "cut off"],
)
def test_a_bad_answer_has_the_error_that_says_what_to_do(
    tmp_path: Path, answer: Answer, error: type[Exception], said: str
) -> None:
    """Unavailable is tried again next cycle, refused is not, gone is forgotten; credentials are never in the text."""
    with connected(tmp_path, answer) as (client, _), pytest.raises(error, match=said) as raised:
        client.get(DEPLOYMENTS)

    assert "secret-token" not in str(raised.value)


def test_a_token_that_no_header_may_hold_is_not_shown(tmp_path: Path) -> None:
    """What is wrong is said, and not what the token is."""
    path = a_kubeconfig(tmp_path, unused_url())
    path.write_text(path.read_text().replace("secret-token", "secret\\ntoken"))

    with pytest.raises(ClusterUnavailable, match="holds characters that no header may hold") as raised:
        KubeClient.connect(path).get(DEPLOYMENTS)

    assert "secret" not in str(raised.value)


def test_a_long_list_is_read_page_by_page(tmp_path: Path) -> None:
    """All pages, in order, each asked for with the token of the page before; one list per kind."""

    def page(asked: Asked, number: int) -> Answer:
        following = {"continue": "more"} if number == 0 else {}
        return Answer(body=orjson.dumps({"metadata": following, "items": [{"page": number}]}))

    with answering(page) as server:
        pages = list(
            KubeClient.connect(a_kubeconfig(tmp_path, server.url)).pages(DEPLOYMENTS, labelSelector="a=b,c!=d")
        )

    assert [page["items"] for page in pages] == [[{"page": 0}], [{"page": 1}]]
    assert server.asked[0].path == f"{DEPLOYMENTS}?labelSelector=a%3Db%2Cc%21%3Dd&limit={PAGE_ITEMS}"
    assert server.asked[1].path.endswith("&continue=more")
    assert server.asked[0].headers["authorization"] == "Bearer secret-token"


@pytest.mark.parametrize(
    ("method", "path", "rule"),
    [
        ("GET", "/api/v1/nodes", 'in the cluster: {apiGroups: [""], resources: ["nodes"], verbs: ["list"]}'),
        (
            "PATCH",
            "/apis/apps/v1/namespaces/shop/deployments/cart/scale",
            'in namespace shop: {apiGroups: ["apps"], resources: ["deployments/scale"], verbs: ["patch"]}',
        ),
        (
            "GET",
            "/apis/apps/v1/namespaces/shop/statefulsets/db/scale",
            'in namespace shop: {apiGroups: ["apps"], resources: ["statefulsets/scale"], verbs: ["get"]}',
        ),
        ("WATCH", "/api/v1/pods", 'in the cluster: {apiGroups: [""], resources: ["pods"], verbs: ["watch"]}'),
        (
            "POST",
            "/apis/coordination.k8s.io/v1/namespaces/shop/leases",
            'in namespace shop: {apiGroups: ["coordination.k8s.io"], resources: ["leases"], verbs: ["create"]}',
        ),
    ],
)
def test_a_missing_rule_is_written_as_it_must_be_added(method: str, path: str, rule: str) -> None:
    """What an operator can paste into a role."""
    assert missing_rule(method, path) == f"add to the role {rule}"


@pytest.mark.parametrize(
    ("path", "role"),
    [
        (
            "/apis/apps/v1/namespaces/shop/deployments/cart/scale",
            "foresize-scale (kubectl apply -f deploy/binding-auto",
        ),
        ("/api/v1/namespaces/shop/pods/cart-1/resize", "foresize-resize (kubectl apply -f deploy/binding"),
        ("/apis/foresize.io/v1alpha1/namespaces/shop/predictiveautoscalers/cart/status", "foresize-tell"),
        ("/apis/coordination.k8s.io/v1/namespaces/foresize/leases/foresize-controller", "foresize-lease"),
    ],
)
def test_a_role_of_ours_is_named_before_a_rule_to_write(path: str, role: str) -> None:
    """Who runs the manifests of deploy/ has only to bind it."""
    assert our_role(path).startswith(f"bind {role}")
    assert our_role(DEPLOYMENTS) == ""


def test_a_kubeconfig_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """A missing file, a foreign one, one that is no YAML (without its text, which may be a token), a wrong context."""
    foreign, broken = tmp_path / "foreign", tmp_path / "broken"
    foreign.write_text("- just\n- a list\n")
    broken.write_text("users:\n- user: {token: [s3cret\n")

    with pytest.raises(ClusterUnavailable, match="there is no kubeconfig"):
        KubeClient.connect(tmp_path / "absent")
    with pytest.raises(ClusterUnavailable, match=r"no cluster from .*foreign"):
        KubeClient.connect(foreign)
    with pytest.raises(ClusterUnavailable, match=r"broken line \d: is not YAML") as refusal:
        KubeClient.connect(broken)
    assert "s3cret" not in str(refusal.value)
    with pytest.raises(ClusterUnavailable, match="prod"):
        KubeClient.connect(a_kubeconfig(tmp_path, "http://127.0.0.1:1"), context="prod")
