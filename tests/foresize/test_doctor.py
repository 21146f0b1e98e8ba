"""`foresize doctor` says what is wrong, what to do, and ends in time when nothing answers."""

import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from foresize.checks.check import Check
from foresize.checks.cluster import NEEDED_FOR, PERMISSIONS
from foresize.checks.machine import configuration_checks, disk_checks
from foresize.checks.prometheus import prometheus_checks
from foresize.doctor import DEADLINE_SECONDS, all_checks, doctor
from foresize.settings import load_settings
from pipelines.settings import Settings

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
NOW = datetime(2026, 3, 2, tzinfo=UTC).timestamp()


def run_doctor(*arguments: str, **overrides: Any) -> Result:
    """The command with settings of the test's own, none from the machine."""

    def load(given: Mapping[tuple[str, ...], Any]) -> Settings:
        own = {tuple(name.split("__")): value for name, value in overrides.items()}
        return load_settings(None, {}, own | {path: value for path, value in given.items() if value is not None})

    return CliRunner().invoke(doctor, list(arguments), obj=load)


@pytest.fixture
def silent_address() -> Iterator[str]:
    """An address that takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


class Prometheus(BaseHTTPRequestHandler):
    """Knows the metrics of kubelet and kube-state-metrics, but not kube_replicaset_owner; two days of past.

    The clock of one node is two and a half minutes ahead.
    """

    def do_GET(self) -> None:
        names = ["container_cpu_usage_seconds_total", "container_memory_working_set_bytes", "kube_pod_owner"]
        self._answer(names)

    def do_POST(self) -> None:
        form = self.rfile.read(int(self.headers["Content-Length"])).decode()
        start, end = (int(form.split(f"{name}=")[1].split("&")[0]) for name in ("start", "end"))
        if "offset+-5m" in form:
            found = {"metric": {"node": "n7"}, "values": [[start, "150"]]}
            self._answer({"resultType": "matrix", "result": [found]})
            return
        is_count = "count_over_time" in form
        times = [start] if is_count else range(max(start, int(NOW) - 2 * 86_400), end + 1, 86_400)
        values = [[moment, "20" if is_count else "1"] for moment in times]
        self._answer({"resultType": "matrix", "result": [{"metric": {}, "values": values}]})

    def _answer(self, data: Any) -> None:
        body = json.dumps({"status": "success", "data": data}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Keeps the test's output clean."""


@pytest.fixture
def prometheus_url() -> Iterator[str]:
    """An HTTP server that answers as a small Prometheus does."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Prometheus)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_missing_metrics_are_named_with_what_exports_them(prometheus_url: str) -> None:
    """What is needed fails, what is wanted warns, what not every cluster has is only mentioned."""
    settings = load_settings(None, {}, {("prometheus", "url"): prometheus_url})

    checks = list(prometheus_checks(settings, NOW))

    failed = [check for check in checks if check.status == "FAIL"]
    assert [check.message for check in failed] == ["no series within the last hour of kube_replicaset_owner"]
    assert "kube-state-metrics" in failed[0].advice
    assert any(c.status == "WARN" and "kube_pod_container_resource_requests" in c.message for c in checks)
    assert any(c.status == "OK" and "dcgm-exporter" in c.message for c in checks)
    (unseen,) = [c for c in checks if "container_pressure_cpu_waiting_seconds_total" in c.message]
    assert unseen.status == "OK"
    assert "only needed where you oversell nodes" in unseen.message


def test_scrape_interval_and_reach_of_history_are_told(prometheus_url: str) -> None:
    """Twenty samples in ten minutes are one each 30 s; two days of past are too few for a weekly rhythm."""
    settings = load_settings(None, {}, {("prometheus", "url"): prometheus_url})

    checks = list(prometheus_checks(settings, NOW))

    assert any(c.status == "OK" and "scraped about every 30 s" in c.message for c in checks)
    assert any(c.status == "WARN" and "reaches back 2 days; history.span is 35 days" in c.message for c in checks)


def test_a_node_whose_clock_is_ahead_is_named(prometheus_url: str) -> None:
    """Where it is more than two scrapes."""
    said = {}
    for interval in ("60s", "90s"):
        chosen: dict[tuple[str, ...], Any] = {("prometheus", "url"): prometheus_url}
        chosen |= {("prometheus", "scrape_interval"): interval}
        checks = prometheus_checks(load_settings(None, {}, chosen), NOW)
        said[interval] = next(check for check in checks if "clock" in check.message)

    assert said["60s"].status == "WARN"
    assert "the clock of n7 is 150 s or more ahead of this machine's" in said["60s"].message
    assert "NTP" in said["60s"].advice
    assert said["90s"].status == "OK"


def test_nothing_configured_is_a_list_of_things_to_do(tmp_path: Path) -> None:
    """On a bare machine: Prometheus and cluster fail with advice, a missing model is a warning, exit code 1."""
    result = run_doctor(
        "--prometheus", "http://127.0.0.1:9", "--kubeconfig", str(tmp_path / "none"), state_folder=tmp_path
    )

    assert result.exit_code == 1
    assert "FAIL  prometheus" in result.output
    assert "FAIL  cluster" in result.output
    assert "WARN  mlflow" in result.output
    assert "foresize train" in result.output
    assert "Traceback" not in result.output


def test_a_registry_that_is_gone_is_a_warning(tmp_path: Path) -> None:
    """The ladder goes on without it, so foresize can work."""
    result = run_doctor(
        "--skip-prometheus", "--skip-cluster", state_folder=tmp_path, registry__tracking_uri="http://127.0.0.1:9"
    )

    assert result.exit_code == 0
    assert "WARN  mlflow" in result.output
    assert "yesterday's same hour" in result.output
    assert "foresize can work" in result.output


def test_what_is_skipped_is_not_asked(tmp_path: Path) -> None:
    """With everything outside skipped the doctor looks at configuration and disk and is content."""
    result = run_doctor("--skip-prometheus", "--skip-mlflow", "--skip-cluster", "--json", state_folder=tmp_path)

    report = json.loads(result.output)
    assert result.exit_code == 0
    assert report["ok"] is True
    assert {check["area"] for check in report["checks"]} == {"config", "disk"}


def test_servers_that_never_answer_do_not_hold_the_doctor(tmp_path: Path, silent_address: str) -> None:
    """Prometheus, MLflow and API server silent: the whole ends within its deadline."""
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": silent_address}}],
                "users": [{"name": "u", "user": {}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
    )
    started = time.monotonic()

    result = run_doctor(
        "--prometheus", silent_address, "--kubeconfig", str(kubeconfig), "--json",
        state_folder=tmp_path, registry__tracking_uri=silent_address,
    )  # fmt: skip

    checks = json.loads(result.output)["checks"]
    failed = {check["area"] for check in checks if check["status"] == "FAIL"}
    assert time.monotonic() - started < DEADLINE_SECONDS + 3
    assert failed == {"prometheus", "cluster"}
    assert [check["status"] for check in checks if check["area"] == "mlflow"] == ["WARN"]
    assert result.exit_code == 1


def test_an_area_that_hangs_or_breaks_hides_no_other() -> None:
    """What a slow area had found is kept; one that breaks is a failure of its own."""
    release = threading.Event()

    def slow() -> Iterator[Check]:
        yield Check("slow", "OK", "so far")
        release.wait(10)

    def broken() -> Iterator[Check]:
        raise RuntimeError("oops")
        yield

    checks = all_checks({"slow": slow, "broken": broken, "fine": lambda: iter([Check("fine", "OK", "good")])}, 0.2)
    release.set()

    assert [(c.area, c.status) for c in checks] == [
        ("slow", "OK"), ("slow", "FAIL"), ("broken", "FAIL"), ("fine", "OK")
    ]  # fmt: skip
    assert "RuntimeError: oops" in checks[2].message


def test_configuration_is_shown_without_secrets() -> None:
    """Changed values are listed with their names; tokens, headers and passwords in addresses are not."""
    settings = load_settings(
        None,
        {},
        {
            ("prometheus", "url"): "http://me:hunter2@prom:9090",
            ("prometheus", "bearer_token"): "s3cret",
            ("prometheus", "headers"): {"X-Scope-OrgID": "tenant-7"},
            ("scaling", "writes_per_second"): 40,
        },
    )

    text = " ".join(c.message for c in configuration_checks(settings, None, {"FORESIZE_PROMETHEUS__URL": "x"}))

    assert "scaling.writes_per_second = 40.0" in text
    assert "FORESIZE_PROMETHEUS__URL" in text
    assert not any(secret in text for secret in ("hunter2", "s3cret", "tenant-7"))


def test_every_permission_is_in_the_role_that_the_doctor_advises() -> None:
    """And the file that it names binds that role."""
    roles = {
        each["metadata"]["name"]: each["rules"]
        for each in yaml.safe_load_all((DEPLOY / "rbac.yaml").read_text())
        if each["kind"] == "ClusterRole"
    }

    for need, group, resources, verbs in PERMISSIONS:
        _, role, file, _ = NEEDED_FOR[need]
        allowed = [rule for rule in roles[role] if group in rule["apiGroups"] and set(verbs) <= set(rule["verbs"])]
        bound = [each for each in yaml.safe_load_all((DEPLOY / file).read_text()) if "roleRef" in each]

        assert set(resources) <= {name for rule in allowed for name in rule["resources"]}, role
        assert role in {each["roleRef"]["name"] for each in bound}, file


def test_a_state_folder_that_is_a_file_fails(tmp_path: Path) -> None:
    """The cache could not be written; the doctor says where it should go and makes nothing itself."""
    (tmp_path / "file").write_text("")
    good = load_settings(None, {}, {("state_folder",): tmp_path / "new" / "folder"})
    bad = load_settings(None, {}, {("state_folder",): tmp_path / "file"})

    assert next(c.status for c in disk_checks(good)) in ("OK", "WARN")
    assert [c.status for c in disk_checks(bad)] == ["FAIL"]
    assert not (tmp_path / "new").exists()
