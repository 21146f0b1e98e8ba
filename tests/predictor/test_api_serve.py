"""`foresize serve` as a process: it listens, answers and stops when told to."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest

from predictor.api.server import AddressUnavailable, listen
from tests.support.serving import CART, a_history

SERVE = """
import sys
state_folder = sys.argv.pop(1)
from predictor.cli import serve
from predictor.settings import PredictorSettings

def load(overrides):
    given = {}
    for path, value in overrides.items():
        if value is not None:
            given.setdefault(path[0], {})[path[1]] = value
    return PredictorSettings.model_validate({"state_folder": state_folder, **given})

serve.main(obj=load)
"""


def a_csv(path: Path) -> Path:
    """The made-up history as a usage table."""
    panel = a_history()
    lines = ["workload,resource,timestamp,usage"]
    for row, key in enumerate(panel.keys):
        for moment, value in zip(panel.times.tolist(), panel.usage[row].tolist(), strict=True):
            stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
            lines.append(f"{key.workload},{key.resource.value},{stamp},{value}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_port_in_use_is_said_in_words() -> None:
    """The message names the address and the option that changes it."""
    with listen("127.0.0.1", 0) as first, pytest.raises(AddressUnavailable, match=r"in use.*--port"):
        listen("127.0.0.1", first.getsockname()[1])


@pytest.mark.real
def test_serve_answers_from_a_file_and_ends_well_on_sigterm(tmp_path: Path) -> None:
    """A file stands in for Prometheus; SIGTERM, as Kubernetes sends it, ends the process with exit code 0."""
    history = a_csv(tmp_path / "usage.csv")
    command = [sys.executable, "-c", SERVE, str(tmp_path / "state"), "--history", str(history), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            assert said.startswith("serving on http://127.0.0.1:"), process.communicate(timeout=10)
            address = said.split()[2]
            with httpx2.Client(base_url=address, trust_env=False, timeout=10) as client:
                deadline = time.monotonic() + 60
                query = {"workload": CART, "resource": "cpu"}
                while (answer := client.get("/v1/forecasts", params=query)).status_code != 200:
                    assert time.monotonic() < deadline, answer.text
                    time.sleep(0.1)
                unready = client.get("/readyz")
        finally:
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=20)

    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert answer.json()["data_age_seconds"] == 0
    assert unready.status_code == 503
    assert "no model is loaded" in unready.text
