"""The controller's profile stays slim: what only the pipelines need is never loaded with it."""

import subprocess
import sys

HEAVY = ("pandas", "pyarrow", "sklearn", "matplotlib", "mlflow", "statsmodels")
CONTROLLER = (
    "autoscaler.cli, autoscaler.wiring, autoscaler.kube.cluster, autoscaler.api.server, "
    "predictor.wiring, foresize.settings"
)


def test_the_controller_loads_no_data_frames() -> None:
    """Everything `foresize run` imports before it starts, in a fresh interpreter."""
    code = f"import sys, {CONTROLLER}; print(sorted(set({HEAVY!r}) & set(sys.modules)))"

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "[]"


def test_the_python_api_is_loaded_when_it_is_asked_for() -> None:
    """`import foresize` loads nothing; a name of the API, what the pipelines need; an unknown one is refused."""
    heavy = ("numpy", "pandas", "pydantic")
    code = (
        f"import sys, foresize; print(sorted(set({heavy!r}) & set(sys.modules))); foresize.fit; "
        f"print(sorted(set({heavy!r}) & set(sys.modules)), 'predict' in dir(foresize), hasattr(foresize, 'predict'))"
    )

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout.splitlines() == ["[]", f"{sorted(heavy)} False False"]
