"""Down the ladder and up again as models come and go in a real MLflow: each step is told, no replica moves for it."""

from pathlib import Path

import numpy as np
import pytest

from models import catalog
from models.forecast import Target
from pipelines.steps.record import Submission
from pipelines.tracking.mlflow import MlflowTracker
from predictor.serving.bundle import Bundle, SeriesModel
from predictor.usage.panel import Resource, SeriesKey, UsagePanel
from tests.support.controlplane import ControlPlane, wait_until
from tests.support.live_demand import STEP_SECONDS, LiveDemand
from tests.support.mlflow_server import mlflow_server
from tests.support.running import EACH, FORECASTING, SOON_SECONDS, a_scene

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
HORIZON = Target(30)
"""Steps of the minute that copies forecast here."""
LEVELS = (0.5, 0.9, 0.99)


def a_model(workload: str) -> tuple[Bundle, UsagePanel]:
    """A model that knows the memory of one workload and nothing else, and usage to register it with."""
    key = SeriesKey(workload, Resource.MEMORY)
    usage = UsagePanel((key,), 0, STEP_SECONDS, np.full((1, 300), 2.5 * EACH))
    forecaster = catalog.create("seasonal_naive").fit(usage.history(), HORIZON)
    bundle = Bundle(
        step_seconds=STEP_SECONDS,
        target=HORIZON,
        levels=LEVELS,
        forecasters={(Resource.MEMORY, "seasonal_naive"): forecaster},
        series={key: SeriesModel(key, "seasonal_naive", reason="a test's")},
        trained_until_seconds=usage.end_seconds,
    )
    return bundle, usage


def promoted(tracker: MlflowTracker, workload: str, expected: str | None) -> str:
    """The version that was made champion in the place of the one expected."""
    bundle, usage = a_model(workload)
    with tracker.run({}) as run:
        version = run.register(Submission(bundle, {"foresize.fingerprint": "a test's"}, usage))
        assert run.promote(version, expected)
    return version


def test_models_that_do_not_know_a_workload_lead_down_the_ladder_and_back(
    control_plane: ControlPlane, demand: LiveDemand, tmp_path: Path
) -> None:
    """Champion, the champion before, seasonal naive, champion: by promotions alone, with the copy running on."""
    with mlflow_server(tmp_path / "mlflow") as mlflow:
        tracker = MlflowTracker(mlflow.uri, "rungs", "foresize", "champion")
        variables = FORECASTING | {
            "FORESIZE_REGISTRY__TRACKING_URI": mlflow.uri,
            "FORESIZE_REGISTRY__REFRESH": "2s",
        }
        with a_scene(control_plane, demand, tmp_path, variables) as scene:
            web, other = f"{scene.namespace}/Deployment/web", f"{scene.namespace}/Deployment/other"
            scene.use(2.5, "web")
            scene.put("web", replicas=3, maxReplicas=9)
            first = promoted(tracker, web, None)
            scene.start()

            def until(rung: str, version: str) -> None:
                wait_until(
                    lambda: (
                        (scene.status("web").get("rung"), scene.status("web").get("modelVersion")) == (rung, version)
                    ),
                    SOON_SECONDS,
                    f"{rung} by version {version!r}",
                )

            until("champion", first)
            second = promoted(tracker, other, first)
            until("previous", first)
            message = scene.until_condition("web", "ForecastAvailable", "True", "PreviousServes")
            assert f"version {second} does not know it: version {first}, the champion before, serves" in message
            third = promoted(tracker, other, second)
            until("seasonal_naive", third)
            message = scene.until_condition("web", "ForecastAvailable", "True", "SeasonalNaiveServes")
            assert "cold: not among the 1 series" in message
            fourth = promoted(tracker, web, third)
            until("champion", fourth)
            scene.until_condition("web", "ForecastAvailable", "True", "ChampionServes")

            def steps() -> list[tuple[str, str]]:
                told = scene.events("web")
                return [(reason, note.partition(":")[0]) for reason, note in told if reason.startswith("Rung")]

            wait_until(lambda: steps()[-1][1] == "seasonal_naive -> champion", SOON_SECONDS, "the last Event")
            # The champion before is fetched beside the cycles, once it is needed: until then the rung below it serves.
            assert steps()[-4:] == [
                ("RungLowered", "champion -> seasonal_naive"),
                ("RungRaised", "seasonal_naive -> previous"),
                ("RungLowered", "previous -> seasonal_naive"),
                ("RungRaised", "seasonal_naive -> champion"),
            ]
            assert (scene.replicas("web"), scene.generation("web")) == (3, 1), "no rung changed what is needed"
