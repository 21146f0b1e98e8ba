"""The whole path on real servers: Prometheus → trained model in MLflow → replicas on a Kubernetes API server."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from autoscaler.settings import ScalingSettings
from models.forecast import FloatArray
from pipelines.demo.exporters import RawSeries
from tests.support.controlplane import ControlPlane, deployment, wait_until
from tests.support.mlflow_server import mlflow_server
from tests.support.prometheus import STEP, a_pod, a_prometheus, a_series

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
FORESIZE = Path(sys.executable).parent / "foresize"
DAYS = 21
LOW_CORES, HIGH_CORES = 0.8, 4.0
RISE_AFTER_SECONDS = 300
"""From now to the daily rise: within the lead time of ten minutes, so its capacity must be ordered now."""


@dataclass
class Shell:
    """Runs foresize as a user would, in a folder of its own."""

    folder: Path
    variables: dict[str, str]

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("FORESIZE_")}
        return subprocess.run(
            [str(FORESIZE), *arguments],
            cwd=self.folder,
            env=clean | self.variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )


def decision_of(run: subprocess.CompletedProcess[str], workload: str) -> dict[str, Any]:
    """The log line of a workload's decision."""
    lines = [json.loads(line) for line in run.stderr.splitlines() if line.startswith("{")]
    return next(line for line in lines if line.get("event") == "decision" and line["workload"] == workload)


def daily_rise(times: FloatArray, now: float) -> FloatArray:
    """Low until five minutes after now, then high for two hours; no day as high as the next, no sample as the last.

    That tells forecasters apart: yesterday's sample carries a noise of its own, which others average out.
    """
    rng = np.random.default_rng(1)
    since = np.mod(times - now - RISE_AFTER_SECONDS, 86_400)
    day = ((times - times[0]) // 86_400).astype(int)
    level = np.where(since < 7200, HIGH_CORES * rng.lognormal(0, 0.25, day[-1] + 1)[day], LOW_CORES)
    return np.asarray(level * rng.lognormal(0, 0.15, times.size))


def history(namespace: str, start: int, now: int) -> list[RawSeries]:
    """Three weeks of a Deployment with the rise, and of another one that is always the same."""
    times = np.arange(start, now, STEP, dtype=np.float64)
    series: list[RawSeries] = []
    for name, cores in (("web", daily_rise(times, now)), ("flat", np.full(times.size, 0.5))):
        owner = f"{name}-5c9f"
        series += a_pod(f"{owner}-x", cores=list(cores), owner=("ReplicaSet", owner), namespace=namespace)
        series.append(
            a_series(
                "kube_replicaset_owner",
                [1] * times.size,
                namespace=namespace,
                replicaset=owner,
                owner_kind="Deployment",
                owner_name=name,
            )
        )
    return series


def test_a_rise_is_met_before_it_comes_and_outages_shrink_nothing(control_plane: ControlPlane, tmp_path: Path) -> None:
    """Trained on history, the controller raises a Deployment before its daily rise; outages make it hold."""
    now = int(time.time()) // STEP * STEP
    start = now - DAYS * 86_400
    with (
        control_plane.namespace() as namespace,
        mlflow_server(tmp_path / "mlflow") as mlflow,
        a_prometheus(tmp_path, history(namespace, start, now), start_seconds=start) as prometheus,
    ):
        foresize = Shell(
            tmp_path,
            {
                "FORESIZE_PROMETHEUS__URL": prometheus.url,
                "FORESIZE_PROMETHEUS__SCRAPE_INTERVAL": "5m",
                "FORESIZE_PROMETHEUS__RETRIES": "0",
                "FORESIZE_REGISTRY__TRACKING_URI": mlflow.uri,
                "FORESIZE_HISTORY__SPAN": f"{DAYS}d",
                "FORESIZE_FORECAST__HORIZON": "1h",
                "FORESIZE_SCALING__NAMESPACES": f"[{namespace}]",
                "FORESIZE_SCALING__LEASE_NAMESPACE": namespace,
            },
        )
        control_plane.apply(yaml.safe_load((DEPLOY / "crd.yaml").read_text()))
        control_plane.apply(deployment("web", namespace, replicas=3, requests={"cpu": "500m"}))
        control_plane.apply(
            {
                "apiVersion": "foresize.io/v1alpha1",
                "kind": "PredictiveAutoscaler",
                "metadata": {"name": "web", "namespace": namespace},
                "spec": {
                    "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
                    "horizontal": {"maxReplicas": 20},
                },
            }
        )
        status_path = f"/apis/foresize.io/v1alpha1/namespaces/{namespace}/predictiveautoscalers/web"
        selector = "app=web"
        path = f"/apis/apps/v1/namespaces/{namespace}/deployments/web"

        def replicas() -> int:
            return int(control_plane.get(path)["spec"]["replicas"])

        def run(*options: str) -> subprocess.CompletedProcess[str]:
            return foresize("run", "--once", "--port", "0", "--kubeconfig", str(control_plane.kubeconfig), *options)

        wait_until(lambda: len(control_plane.ready_pods(namespace, selector)) == 3, 60, "3 ready pods")

        trained = foresize("train")
        assert trained.returncode == 0, trained.stderr
        assert "version 1 is the new champion" in trained.stdout

        rehearsal = run("--dry-run")
        assert rehearsal.returncode == 0, rehearsal.stderr
        assert "status" not in control_plane.get(status_path), "a dry run writes nothing"

        observed = run()
        assert observed.returncode == 0, observed.stderr
        assert replicas() == 3, "an object observes until it is told otherwise"
        status = control_plane.get(status_path)["status"]
        assert (status["currentReplicas"], status["reason"]) == (3, "ForecastPeak")
        assert status["desiredReplicas"] > 3

        control_plane.api.patch(status_path, {"spec": {"mode": "Auto"}})
        acted = run()
        raised = replicas()
        assert acted.returncode == 0, acted.stderr
        assert "ForecastPeak" in acted.stderr
        assert control_plane.get(status_path)["status"]["currentReplicas"] == raised
        assert raised > 3, acted.stderr
        decided = decision_of(acted, f"{namespace}/Deployment/web")
        needed_now = decided["observed"] / (0.5 * ScalingSettings().reactive_utilisation)
        assert needed_now <= 3, "what is used now would not have raised it: the forecast did"
        assert decided["forecast"] > 2 * decided["observed"]
        wait_until(lambda: len(control_plane.ready_pods(namespace, selector)) == raised, 60, f"{raised} ready pods")

        why = foresize("explain", f"{namespace}/web", "--kubeconfig", str(control_plane.kubeconfig))
        assert why.returncode == 0, why.stderr
        assert "ceil(" in why.stdout
        nobody = foresize("explain", f"{namespace}/nobody", "--kubeconfig", str(control_plane.kubeconfig))
        assert nobody.returncode != 0
        assert "nobody" in nobody.stderr
        assert "Traceback" not in nobody.stderr

        mlflow.stop()
        without_registry = run()
        assert without_registry.returncode == 0, without_registry.stderr
        assert replicas() >= raised
        assert '"rung":"champion"' in without_registry.stderr, "the last good model goes on serving"
        assert '"model":"model version 1 (last good copy)","age_seconds":' in without_registry.stderr

        before = replicas()
        prometheus.stop()
        blind = run()
        assert blind.returncode == 3, blind.stderr
        assert replicas() == before, "without usage nothing is changed"
        assert "held everything: " in blind.stderr
        assert prometheus.url in blind.stderr, "it says what could not be read"
        assert decision_of(blind, f"{namespace}/Deployment/web")["decision"] == "hold"
        assert "Traceback" not in blind.stderr
