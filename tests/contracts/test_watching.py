"""A watched picture beside a real API server: what people change, what networks and servers do to it."""

import itertools
import random
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autoscaler.errors import ClusterRefused
from autoscaler.kube.client import JsonObject, KubeClient
from autoscaler.kube.clocks import seconds_since_boot
from autoscaler.kube.watch import WatchedCollection, WatchTiming
from tests.support.controlplane import ControlPlane, wait_until
from tests.support.http_answers import seconds_since
from tests.support.relay import relayed

pytestmark = pytest.mark.e2e

QUICK = WatchTiming(first_retry_seconds=0.2, longest_retry_seconds=1.0, absent_retry_seconds=0.5)
PATIENCE_SECONDS = 30.0


def value_of(item: JsonObject) -> str | None:
    """Kept of a ConfigMap: one value; the one that each namespace is given is of no interest."""
    value = (item.get("data") or {}).get("value")
    return None if value is None else str(value)


@contextmanager
def watching(
    kubeconfig: Path, path: str, timing: WatchTiming = QUICK, reduce: Callable[[JsonObject], Any] = value_of
) -> Iterator[WatchedCollection[Any]]:
    client = KubeClient.connect(kubeconfig)
    picture = WatchedCollection[Any](
        client, path, reduce, clock=seconds_since_boot, random=random.Random(1), timing=timing
    )
    picture.start()
    try:
        yield picture
    finally:
        picture.stop()
        client.close()


def folder(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/configmaps"


def put(plane: ControlPlane, namespace: str, name: str, value: str) -> None:
    plane.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": namespace},
            "data": {"value": value},
        }
    )


def shows(picture: WatchedCollection[Any], expected: dict[str, str], within_seconds: float = PATIENCE_SECONDS) -> None:
    wait_until(lambda: picture.snapshot() == expected, within_seconds, f"{expected}; problem {picture.problem}")


def test_changes_are_seen_as_they_happen(control_plane: ControlPlane) -> None:
    """What is there, what is added, changed and deleted; each within a second of the API server's answer."""
    with control_plane.namespace("watch") as namespace:
        put(control_plane, namespace, "a", "1")
        with watching(control_plane.kubeconfig, folder(namespace)) as picture:
            assert picture.wait_until_synced(PATIENCE_SECONDS)
            assert picture.snapshot() == {f"{namespace}/a": "1"}

            put(control_plane, namespace, "b", "1")
            shows(picture, {f"{namespace}/a": "1", f"{namespace}/b": "1"}, within_seconds=1)
            put(control_plane, namespace, "a", "2")
            shows(picture, {f"{namespace}/a": "2", f"{namespace}/b": "1"}, within_seconds=1)
            control_plane.api.delete(f"{folder(namespace)}/b")
            shows(picture, {f"{namespace}/a": "2"}, within_seconds=1)

            assert picture.age_seconds() < 5
            assert (picture.problem, picture.is_absent) == (None, False)
            started = time.monotonic()
        assert seconds_since(started) < 2  # stopped at once, though its watch would have gone on


def test_more_than_a_page_is_seen(control_plane: ControlPlane) -> None:
    """Cluster-wide, with names of their own where a kind has no namespaces."""
    group = f"{secrets.token_hex(4)}.example.org"
    for number in range(501):
        control_plane.api.create(
            "/apis/rbac.authorization.k8s.io/v1/clusterroles",
            {"metadata": {"name": f"{number}.{group}", "labels": {"group": group}}, "rules": []},
        )
    collection = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
    client = KubeClient.connect(control_plane.kubeconfig)
    picture = WatchedCollection(
        client,
        collection,
        lambda item: str(item["metadata"]["uid"]),
        clock=seconds_since_boot,
        random=random.Random(1),
        selector=f"group={group}",
        timing=QUICK,
    )
    try:
        picture.start()
        assert picture.wait_until_synced(PATIENCE_SECONDS)
        assert set(picture.snapshot()) == {f"{number}.{group}" for number in range(501)}
        control_plane.api.request("DELETE", collection, params={"labelSelector": f"group={group}"})
        shows(picture, {})
    finally:
        picture.stop()
        client.close()


def test_a_quiet_collection_stays_young(control_plane: ControlPlane) -> None:
    """Nothing changes and no bookmark comes: the ends of its watches say that the picture is still true."""
    ages = []
    with (
        control_plane.namespace("watch") as namespace,
        watching(control_plane.kubeconfig, folder(namespace), WatchTiming(watch_seconds=2.0)) as picture,
    ):
        assert picture.wait_until_synced(PATIENCE_SECONDS)
        started = time.monotonic()
        while seconds_since(started) < 8:
            ages.append(picture.age_seconds())
            assert picture.problem is None
            time.sleep(0.02)

    drops = sum(after < before for before, after in itertools.pairwise(ages))
    assert drops >= 2
    assert min(ages[len(ages) // 2 :]) < 1


def test_a_network_that_goes_silent_is_noticed_and_left(control_plane: ControlPlane, tmp_path: Path) -> None:
    """The age grows from the last sign of life; a new connection brings what was missed."""
    timing = WatchTiming(read_timeout_seconds=3.0, watch_seconds=2.0, first_retry_seconds=0.2, longest_retry_seconds=1)
    with (
        control_plane.namespace("watch") as namespace,
        relayed(control_plane.kubeconfig, tmp_path) as (relay, kubeconfig),
        watching(kubeconfig, folder(namespace), timing) as picture,
    ):
        put(control_plane, namespace, "a", "1")
        shows(picture, {f"{namespace}/a": "1"})

        relay.silence()
        put(control_plane, namespace, "b", "1")
        problem = wait_until(lambda: picture.problem, PATIENCE_SECONDS, "the silence to be noticed")
        age_seconds = picture.age_seconds()
        assert picture.snapshot() == {f"{namespace}/a": "1"}
        relay.cut()
        relay.mend()
        shows(picture, {f"{namespace}/a": "1", f"{namespace}/b": "1"})

    assert "timed out" in str(problem)
    assert age_seconds > 2.5


def test_what_was_deleted_meanwhile_vanishes(control_plane: ControlPlane, tmp_path: Path) -> None:
    """While the network was away: the server still knows what happened, and tells."""
    with (
        control_plane.namespace("watch") as namespace,
        relayed(control_plane.kubeconfig, tmp_path) as (relay, kubeconfig),
        watching(kubeconfig, folder(namespace)) as picture,
    ):
        put(control_plane, namespace, "a", "1")
        put(control_plane, namespace, "b", "1")
        shows(picture, {f"{namespace}/a": "1", f"{namespace}/b": "1"})

        relay.cut()
        wait_until(lambda: picture.problem, PATIENCE_SECONDS, "the cut to be noticed")
        control_plane.api.delete(f"{folder(namespace)}/a")
        relay.mend()
        shows(picture, {f"{namespace}/b": "1"})
        assert picture.problem is None


def test_a_server_that_restarts_brings_the_picture_back(control_plane: ControlPlane, tmp_path: Path) -> None:
    """Its memory of what happened is gone, so what was deleted can only be missed in a new list. The age tells."""
    if control_plane.is_external:
        pytest.skip("FORESIZE_TEST_KUBECONFIG names a cluster with components of its own")
    with (
        control_plane.namespace("watch") as namespace,
        relayed(control_plane.kubeconfig, tmp_path) as (relay, kubeconfig),
        watching(kubeconfig, folder(namespace), replace(QUICK, watch_seconds=1.0)) as picture,
    ):
        put(control_plane, namespace, "a", "1")
        put(control_plane, namespace, "b", "1")
        shows(picture, {f"{namespace}/a": "1", f"{namespace}/b": "1"})

        relay.cut()
        control_plane.api.delete(f"{folder(namespace)}/a")
        control_plane.kill("kube-apiserver")
        try:
            relay.mend()
            wait_until(lambda: picture.age_seconds() > 2, PATIENCE_SECONDS, "the picture to age")
            assert picture.problem is not None
            assert picture.snapshot() == {f"{namespace}/a": "1", f"{namespace}/b": "1"}
        finally:
            control_plane.restart("kube-apiserver")
        shows(picture, {f"{namespace}/b": "1"})
        wait_until(lambda: picture.age_seconds() < 2, PATIENCE_SECONDS, "the picture to be young again")
        put(control_plane, namespace, "c", "1")
        shows(picture, {f"{namespace}/b": "1", f"{namespace}/c": "1"})
        assert picture.problem is None


def test_a_kind_that_is_installed_later_is_followed_from_then_on(control_plane: ControlPlane) -> None:
    """Until then the picture is empty, current and without a problem; when the kind goes, it is so again."""
    group = f"{secrets.token_hex(4)}.example.org"
    definition: JsonObject = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"wishes.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": "wishes", "singular": "wish", "kind": "Wish"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
                }
            ],
        },
    }
    with (
        control_plane.namespace("watch") as namespace,
        watching(control_plane.kubeconfig, f"/apis/{group}/v1/wishes", reduce=lambda item: item["wish"]) as picture,
    ):
        assert picture.wait_until_synced(PATIENCE_SECONDS)
        assert (picture.is_absent, picture.problem, dict(picture.snapshot())) == (True, None, {})
        assert picture.age_seconds() < 5

        control_plane.apply(definition)
        try:
            manifest = {"apiVersion": f"{group}/v1", "kind": "Wish", "metadata": {"name": "a"}, "wish": "rain"}
            collection = f"/apis/{group}/v1/namespaces/{namespace}/wishes"
            wait_until(
                lambda: control_plane.api.create(collection, manifest), PATIENCE_SECONDS, "the kind to be served"
            )
            shows(picture, {f"{namespace}/a": "rain"})
            assert not picture.is_absent
        finally:
            control_plane.api.delete(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/wishes.{group}")
        shows(picture, {})
        wait_until(lambda: picture.is_absent, PATIENCE_SECONDS, "the kind to be gone")


def test_who_may_not_look_is_told_the_rule_and_sees_once_it_is_there(control_plane: ControlPlane) -> None:
    """First no rule, then only `list`, then `watch` too: each lack is named; nothing needs a restart."""
    with control_plane.namespace("watch") as namespace:

        def allow(*verbs: str) -> Path:
            rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": list(verbs)}]
            return control_plane.kubeconfig_for("watcher", rules, namespace)

        put(control_plane, namespace, "a", "1")
        with watching(allow("get"), folder(namespace)) as picture:
            problem = wait_until(lambda: picture.problem, PATIENCE_SECONDS, "the refusal")
            assert isinstance(problem, ClusterRefused)
            assert f'in namespace {namespace}: {{apiGroups: [""], resources: ["configmaps"], verbs: ["list"]}}' in str(
                problem
            )
            assert not picture.is_synced
            assert not picture.is_absent

            allow("list")
            shows(picture, {f"{namespace}/a": "1"})
            wait_until(
                lambda: picture.problem is not None and 'verbs: ["watch"]' in str(picture.problem),
                PATIENCE_SECONDS,
                "the next refusal",
            )
            allow("list", "watch")
            put(control_plane, namespace, "b", "1")
            shows(picture, {f"{namespace}/a": "1", f"{namespace}/b": "1"})
            assert picture.problem is None
