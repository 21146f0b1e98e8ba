"""The registered model as MLflow runs it: long usage rows in, long forecast rows out.

MLflow keeps this file with the model and executes it on load (models from code), so nothing is ever pickled. The
bundle beside it is data; foresize itself must be installed where the model is loaded.
"""

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel

from pipelines.steps.record import forecast_rows
from predictor.serving.bundle import Bundle
from predictor.usage.table import panel_from_table


class ForesizeModel(PythonModel):
    """Every workload's own forecaster, chosen and calibrated for it."""

    def load_context(self, context: Any) -> None:
        """Read the bundle; raises CorruptModel where it is damaged."""
        self._bundle = Bundle.load(Path(context.artifacts["bundle"]))

    def predict(
        self,
        context: Any,  # noqa: ARG002 - MLflow's signature
        model_input: pd.DataFrame,
        params: Any = None,  # noqa: ARG002 - MLflow's signature
    ) -> pd.DataFrame:
        """Forecast rows from the last step of the usage rows on; a series without a forecast has none."""
        panel = panel_from_table(model_input, step_seconds=self._bundle.step_seconds)
        return forecast_rows(self._bundle.forecast(panel)).astype(
            dict.fromkeys(("workload", "resource", "target"), str)
        )


set_model(ForesizeModel())
