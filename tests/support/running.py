"""The controller as people run it: copies of `foresize run` in processes of their own, to be killed, stopped and read.

And the place they work in: a namespace of a real cluster with Deployments and PredictiveAutoscalers, and what people
would see of these with kubectl.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.support.controlplane import ControlPlane, deployment, wait_until
from tests.support.http_answers import unused_url
from tests.support.kube_api import JsonObject
from tests.support.live_demand import STEP_SECONDS, LiveDemand

FORESIZE = Path(sys.executable).parent / "foresize"
CRD: JsonObject = yaml.safe_load((Path(__file__).resolve().parents[2] / "deploy" / "crd.yaml").read_text())
API = "/apis/foresize.io/v1alpha1"
EACH = 1e9
"""Bytes that one replica of the objects here should carry."""
LITTLE, MUCH = 0.1, 30.0
"""What one replica carries, and what takes all that an object allows (up to 10) even in the mean of a step in which
demand went from one to the other: so each change is one change of replicas."""
FORECASTING = {"FORESIZE_HISTORY__SERVING_SPAN": "2m"}
"""For copies that forecast, on the rung `fallback`, once demand was seen for 24 s."""
SOON_SECONDS = 60.0
"""Longest wait for what takes a few seconds, on a busy machine."""


@dataclass
class Copy:
    """One running `foresize run`."""

    process: subprocess.Popen[bytes]
    log: Path

    def lines(self, event: str = "") -> list[JsonObject]:
        """What it has said so far, all of it or the lines of one event."""
        kept: list[JsonObject] = []
        for line in self.log.read_bytes().splitlines(keepends=True):
            if line.startswith(b"{") and line.endswith(b"\n"):
                kept.append(json.loads(line))
        return [line for line in kept if not event or line["event"] == event]

    @property
    def leads(self) -> bool:
        """Whether its last cycle decided something."""
        cycles = self.lines("cycle")
        return bool(cycles) and not cycles[-1]["standby"]

    @property
    def is_ready(self) -> bool:
        """Whether it has seen cluster and metrics, leading or waiting."""
        return bool(self.lines("cycle"))

    def decisions(self, after: int = 0) -> list[JsonObject]:
        """Its decision lines after so many others."""
        return self.lines("decision")[after:]

    def kill(self) -> None:
        """As a crash: no time to say goodbye."""
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        """Stops it where it is; it does not notice."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """After `pause`."""
        self.process.send_signal(signal.SIGCONT)

    def terminate(self) -> int:
        """As Kubernetes ends a pod: its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@dataclass
class Scene:
    """A namespace with what is scaled in it."""

    plane: ControlPlane
    demand: LiveDemand
    namespace: str
    folder: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    """Variables for every copy, over those that make a test short."""

    def __post_init__(self) -> None:
        self._copies: list[Copy] = []

    # --- copies

    def start(self, *, kubeconfig: Path | None = None, prometheus: str = "") -> Copy:
        """Another copy, with a state folder of its own."""
        home = self.folder / f"copy-{len(self._copies)}"
        home.mkdir()
        variables = {
            "FORESIZE_PROMETHEUS__URL": prometheus or self.demand.url,
            "FORESIZE_PROMETHEUS__RETRIES": "0",
            "FORESIZE_PROMETHEUS__SCRAPE_INTERVAL": "1s",
            "FORESIZE_PROMETHEUS__CACHE": "false",
            "FORESIZE_HISTORY__STEP": f"{STEP_SECONDS}s",
            # Too short for a forecast: what is used now decides, to the replica. See FORECASTING.
            "FORESIZE_HISTORY__SERVING_SPAN": "20s",
            "FORESIZE_FORECAST__HORIZON": "1m",
            "FORESIZE_SCALING__REACTIVE_UTILISATION": "0.9",
            "FORESIZE_REGISTRY__TRACKING_URI": unused_url(),
            "FORESIZE_REGISTRY__REFRESH": "1h",
            "FORESIZE_SERVING__THREADS": "1",
            "FORESIZE_SCALING__INTERVAL": "1s",
            "FORESIZE_SCALING__LEAD_TIME": "10s",
            "FORESIZE_SCALING__LONGEST_LEAD_TIME": "20s",
            "FORESIZE_SCALING__NAMESPACES": f"[{self.namespace}]",
            "FORESIZE_SCALING__LEASE_NAMESPACE": self.namespace,
        } | dict(self.settings)
        clean = {name: value for name, value in os.environ.items() if not name.startswith("FORESIZE_")}
        path = str(kubeconfig or self.plane.kubeconfig)
        with (home / "log").open("ab") as log:
            process = subprocess.Popen(
                [str(FORESIZE), "run", "--port", "0", "--kubeconfig", path],
                cwd=home,
                env=clean | variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._copies.append(Copy(process, home / "log"))
        return self._copies[-1]

    def leader(self, *among: Copy) -> Copy:
        """The copy that decides, once one does."""
        copies = among or tuple(self._copies)

        def leading() -> Copy | None:
            for copy in copies:
                if copy.process.poll() is not None:
                    raise AssertionError(f"a copy ended: {copy.log.read_text()[-3000:]}")
            return next((copy for copy in copies if copy.leads), None)

        found = wait_until(leading, SOON_SECONDS, "a copy that leads")
        assert found is not None
        return found

    def end(self) -> None:
        """Ends every copy."""
        for copy in self._copies:
            copy.kill()

    # --- what people make

    def put(self, *names: str, replicas: int = 1, wait: bool = True, **horizontal: Any) -> None:
        """Deployments, and an object in mode Auto of each; a replica carries EACH bytes."""
        for name in names:
            self.plane.apply(deployment(name, self.namespace, replicas))
        for name in names:
            self.plane.apply(an_object(self.namespace, name, **horizontal))
        if wait:
            wanted = replicas * len(names)
            wait_until(
                lambda: len(self.plane.ready_pods(self.namespace)) >= wanted, SOON_SECONDS, f"{wanted} ready pods"
            )

    def use(self, amount: float, *names: str) -> None:
        """From now on these Deployments use what so many replicas carry, each."""
        self.demand.use(self.namespace, amount * EACH, *names)

    def path(self, name: str) -> str:
        """Of the Deployment."""
        return f"/apis/apps/v1/namespaces/{self.namespace}/deployments/{name}"

    def object_path(self, name: str) -> str:
        """Of the PredictiveAutoscaler."""
        return f"{API}/namespaces/{self.namespace}/predictiveautoscalers/{name}"

    # --- what people see

    def deployments(self) -> dict[str, JsonObject]:
        """All of them by name."""
        items = self.plane.get(f"/apis/apps/v1/namespaces/{self.namespace}/deployments")["items"]
        return {item["metadata"]["name"]: item for item in items}

    def replicas(self, name: str) -> int:
        """What the Deployment's scale asks for."""
        return int(self.plane.get(self.path(name))["spec"]["replicas"])

    def generation(self, name: str) -> int:
        """How often the Deployment's spec was written, 1 when it is new."""
        return int(self.plane.get(self.path(name))["metadata"]["generation"])

    def status(self, name: str) -> JsonObject:
        """Of the object; empty before the first."""
        return dict(self.plane.get(self.object_path(name)).get("status") or {})

    def condition(self, name: str, kind: str) -> tuple[str, str, str]:
        """Status, reason and message of a condition of the object; empty where it is not there."""
        found = (c for c in self.status(name).get("conditions") or () if c["type"] == kind)
        return next(((c["status"], c["reason"], c["message"]) for c in found), ("", "", ""))

    def events(self, name: str) -> list[tuple[str, str]]:
        """Reason and note of each Event about the object, oldest first."""
        items = self.plane.get(f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events")["items"]
        about = [item for item in items if item["regarding"].get("kind") == "PredictiveAutoscaler"]
        mine = [item for item in about if item["regarding"]["name"] == name]
        return [(str(i["reason"]), str(i.get("note", ""))) for i in sorted(mine, key=lambda i: str(i["eventTime"]))]

    def reasons(self, name: str) -> list[str]:
        """Of the Events about the object."""
        return [reason for reason, _ in self.events(name)]

    def until_replicas(self, name: str, wanted: int) -> None:
        """Waits for the Deployment to have so many."""
        wait_until(lambda: self.replicas(name) == wanted, SOON_SECONDS, f"{wanted} replicas of {name}")

    def until_condition(self, name: str, kind: str, status: str, reason: str) -> str:
        """The condition's message, once it is so."""
        wait_until(
            lambda: self.condition(name, kind)[:2] == (status, reason), SOON_SECONDS, f"{kind} {status} {reason}"
        )
        return self.condition(name, kind)[2]


def an_object(namespace: str, name: str, **horizontal: Any) -> JsonObject:
    """A PredictiveAutoscaler of the Deployment of the same name, whose replicas carry EACH bytes."""
    return {
        "apiVersion": "foresize.io/v1alpha1",
        "kind": "PredictiveAutoscaler",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "mode": "Auto",
            "horizontal": {"maxReplicas": 20, "metric": {"resource": "memory"}, "target": {"averageValue": "1G"}}
            | horizontal,
        },
    }


@contextmanager
def a_scene(
    plane: ControlPlane, demand: LiveDemand, folder: Path, variables: Mapping[str, str] | None = None, **scaling: str
) -> Iterator[Scene]:
    """An empty namespace for one test, with variables and keys of the section `scaling` for all its copies."""
    plane.apply(CRD)
    with plane.namespace("faults") as namespace:
        keys = {f"FORESIZE_SCALING__{name.upper()}": value for name, value in scaling.items()}
        scene = Scene(plane, demand, namespace, folder, {**(variables or {}), **keys})
        try:
            yield scene
        finally:
            scene.end()
            demand.forget(namespace)
