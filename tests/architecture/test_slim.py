"""The controller's profile stays slim: what only the pipelines need is never loaded with it."""

import subprocess
import sys

HEAVY = ("pandas", "pyarrow", "sklearn", "matplotlib", "mlflow")
CONTROLLER = (
    "autoscaler.cli, autoscaler.wiring, autoscaler.kube.cluster, autoscaler.api.server, "
    "predictor.wiring, foresize.settings"
)


def test_the_controller_loads_no_data_frames() -> None:
    """Everything `foresize run` imports before it starts, in a fresh interpreter."""
    code = f"import sys, {CONTROLLER}; print(sorted(set({HEAVY!r}) & set(sys.modules)))"

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "[]"
