"""A real Prometheus on loopback for as long as it is needed: found, started, waited for, stopped."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import yaml

from pipelines.errors import DemoUnavailable

BIN_VARIABLE = "FORESIZE_PROMETHEUS_BIN"
READY_SECONDS = 60.0
STOP_SECONDS = 15.0
HOW_TO_GET = (
    "install the distribution's packages `prometheus` (and `promtool` where that is one of its own), or run "
    f"tools/prometheus.sh, or set {BIN_VARIABLE} to the folder that holds both programs"
)


@dataclass(frozen=True, slots=True)
class PrometheusPrograms:
    """The two programs."""

    prometheus: Path
    promtool: Path


@dataclass(frozen=True, slots=True)
class LocalPrometheus:
    """A Prometheus that runs."""

    url: str
    process: "subprocess.Popen[bytes]"

    def stop(self) -> None:
        """Stop it now, as a test of its absence does; twice is no harm."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def cache_folder(environment: Mapping[str, str] | None = None) -> Path:
    """Where downloads and made-up histories are kept: FORESIZE_CACHE, XDG_CACHE_HOME/foresize or ~/.cache/foresize."""
    variables = os.environ if environment is None else environment
    if own := variables.get("FORESIZE_CACHE"):
        return Path(own)
    if shared := variables.get("XDG_CACHE_HOME"):
        return Path(shared) / "foresize"
    return Path.home() / ".cache" / "foresize"


def find_prometheus(environment: Mapping[str, str] | None = None) -> PrometheusPrograms:
    """The programs from FORESIZE_PROMETHEUS_BIN, PATH or the cache, in this order. Raises DemoUnavailable."""
    variables = os.environ if environment is None else environment
    places = [
        variables.get(BIN_VARIABLE, ""),
        variables.get("PATH", ""),
        str(cache_folder(variables) / "prometheus" / "bin"),
    ]
    for place in filter(None, places):
        found = [shutil.which(name, path=place) for name in ("prometheus", "promtool")]
        if found[0] and found[1]:
            return PrometheusPrograms(Path(found[0]), Path(found[1]))
    raise DemoUnavailable(f"there is no prometheus with its promtool; {HOW_TO_GET}")


@contextmanager
def local_prometheus(
    data_folder: Path,
    *,
    programs: PrometheusPrograms | None = None,
    scrape_targets: Mapping[str, Sequence[str]] | None = None,
    scrape_interval_seconds: int = 1,
    rule_files: Sequence[Path] = (),
) -> Iterator[LocalPrometheus]:
    """A Prometheus over a data folder, stopped at the end of the block, and at the latest with this process.

    `scrape_targets` maps a job's name to `host:port` addresses whose /metrics it is to read. Raises DemoUnavailable
    with the end of its log when it does not become ready.
    """
    found = programs or find_prometheus()
    with tempfile.TemporaryDirectory(prefix="foresize-prometheus-") as folder:
        config = Path(folder) / "prometheus.yml"
        interval = f"{scrape_interval_seconds}s"
        config.write_text(
            yaml.safe_dump(
                {
                    "global": {
                        "scrape_interval": interval,
                        "scrape_timeout": interval,
                        "evaluation_interval": interval,
                    },
                    "rule_files": [str(path.resolve()) for path in rule_files],
                    "scrape_configs": [
                        {"job_name": job, "static_configs": [{"targets": list(addresses)}]}
                        for job, addresses in (scrape_targets or {}).items()
                    ],
                }
            ),
            encoding="utf-8",
        )
        log = Path(folder) / "log"
        running = _started(found.prometheus, config, data_folder, log)
        try:
            yield running
        finally:
            running.stop()


def _started(prometheus: Path, config: Path, data_folder: Path, log: Path) -> LocalPrometheus:
    for attempt in range(3):
        port = _free_port()
        url = f"http://127.0.0.1:{port}"
        command = [
            str(prometheus),
            f"--config.file={config}",
            f"--storage.tsdb.path={data_folder}",
            "--storage.tsdb.retention.time=10y",
            # Backfilled blocks stay as they are: nothing compacts while a demo or a test wants the processor.
            "--storage.tsdb.min-block-duration=2h",
            "--storage.tsdb.max-block-duration=2h",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        ]
        with log.open("wb") as output:
            try:
                process = subprocess.Popen(
                    _dying_with_parent(command),
                    stdout=output,
                    stderr=output,
                    # Big range queries on a small history: collecting garbage less often saves a sixth of the time.
                    env={"GOGC": "400", **os.environ},
                )
            except OSError as error:
                raise DemoUnavailable(f"{prometheus} cannot be started: {error}; {HOW_TO_GET}") from error
        running = LocalPrometheus(url, process)
        try:
            if _is_ready(running):
                return running
        except BaseException:
            running.stop()
            raise
        running.stop()
        said = log.read_text(encoding="utf-8", errors="replace").strip()
        if "address already in use" not in said or attempt == 2:
            break
    # A Go stack trace after the reason tells a user nothing.
    lines = [
        line for line in said.splitlines() if line and not line.startswith(("\t", "goroutine ", "github.com/", "main."))
    ]
    tail = "\n".join(lines[-5:])
    raise DemoUnavailable(f"Prometheus did not become ready on {url}. The end of its log:\n{tail}")


def _is_ready(running: LocalPrometheus) -> bool:
    deadline = time.monotonic() + READY_SECONDS
    with httpx2.Client(trust_env=False, timeout=2) as client:
        while time.monotonic() < deadline and running.process.poll() is None:
            try:
                if client.get(f"{running.url}/-/ready").status_code == 200:
                    return True
            except httpx2.TransportError:
                # Not listening yet.
                pass
            time.sleep(0.05)
    return False


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _dying_with_parent(command: list[str]) -> list[str]:
    """The command such that Linux ends it when the thread that started it is gone, however that came about."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "TERM", "--", *command] if setpriv else command
