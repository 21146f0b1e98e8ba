"""Training cycles in MLflow: one run each, one parquet per table, one registered model for all workloads.

The client is used explicitly, never MLflow's global state, so a process may talk to two servers.
"""

import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from pipelines.errors import TrackingUnavailable
from pipelines.steps.record import Record, Submission
from predictor.errors import without_login
from predictor.registry.mlflow import (
    BUNDLE_FOLDER,
    bounded_requests,
    in_short,
    one_at_a_time,
    prepare_mlflow,
    sqlite_file,
    store_problems,
)
from predictor.serving.ports import alias_before

if TYPE_CHECKING:
    from mlflow import MlflowClient

MODEL_CODE = Path(__file__).with_name("pyfunc_model.py")

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class MlflowTracker:
    """Runs of one experiment, versions of one registered model."""

    tracking_uri: str
    experiment: str
    model_name: str
    alias: str
    timeout: timedelta = timedelta(seconds=10)
    """How long the server may take to answer the first request; later ones are retried as MLflow does."""

    @contextmanager
    def run(self, parameters: Mapping[str, str]) -> Iterator["MlflowRun"]:
        """A run that ends as finished, failed or killed. Raises TrackingUnavailable."""
        client, experiment = self._opened()
        with _telling(self.tracking_uri):
            from mlflow.entities import Param

            run_id = str(client.create_run(experiment, tags={"mlflow.source.name": "foresize train"}).info.run_id)
        run = MlflowRun(self, client, experiment, run_id)
        try:
            with _telling(self.tracking_uri):
                client.log_batch(run_id, params=[Param(key, value) for key, value in parameters.items()])
            yield run
        except Exception:
            run.end("FAILED")
            raise
        except BaseException:
            run.end("KILLED")
            raise
        with _telling(self.tracking_uri):
            client.set_terminated(run_id, "FINISHED")

    def _opened(self) -> "tuple[MlflowClient, str]":
        """The client and the experiment's id, after one bounded round trip; an SQLite store is made if need be."""
        prepare_mlflow()
        with _telling(self.tracking_uri):
            file = sqlite_file(self.tracking_uri)
            if file is not None:
                file.parent.mkdir(parents=True, exist_ok=True)
        with _telling(self.tracking_uri), bounded_requests(self.timeout), one_at_a_time(self.tracking_uri):
            from mlflow import MlflowClient

            client = MlflowClient(tracking_uri=self.tracking_uri, registry_uri=self.tracking_uri)
            found = client.get_experiment_by_name(self.experiment)
            if found is not None:
                return client, str(found.experiment_id)
            return client, str(client.create_experiment(self.experiment, artifact_location=self._artifacts()))

    def _artifacts(self) -> str | None:
        # Left alone, MLflow would put the artifacts of an SQLite store under the current directory.
        path = sqlite_file(self.tracking_uri)
        return (path.parent / "mlruns").resolve().as_uri() if path is not None else None


@dataclass
class MlflowRun:
    """One cycle's run."""

    tracker: MlflowTracker
    client: "MlflowClient"
    experiment: str
    run_id: str

    def record(self, record: Record) -> None:
        """Tags and metrics in one request each; tables, findings and pictures as artifacts."""
        with _telling(self.tracker.tracking_uri), tempfile.TemporaryDirectory(prefix="foresize-run-") as scratch:
            from mlflow.entities import Metric, RunTag

            now = int(time.time() * 1000)
            self.client.log_batch(
                self.run_id,
                metrics=[Metric(name, value, now, 0) for name, value in record.metrics.items()],
                tags=[RunTag(name, value[:5000]) for name, value in record.tags.items()],
            )
            folder = Path(scratch)
            for name, table in record.tables.items():
                table.to_parquet(folder / f"{name}.parquet", index=False, compression="zstd")
            for name, picture in record.pictures.items():
                (folder / f"{name}.png").write_bytes(picture)
            findings = "".join(f"{finding}\n" for finding in record.findings)
            (folder / "findings.txt").write_text(findings or "nothing to report\n", encoding="utf-8")
            self.client.log_artifacts(self.run_id, scratch)

    def register(self, submission: Submission) -> str:
        """A new version, which no alias points to yet."""
        with _telling(self.tracker.tracking_uri), tempfile.TemporaryDirectory(prefix="foresize-model-") as scratch:
            from mlflow.entities import LoggedModelOutput
            from mlflow.exceptions import MlflowException

            name = self.tracker.model_name
            logged = self.client.create_logged_model(
                self.experiment, name=name, source_run_id=self.run_id, tags=dict(submission.tags), model_type="pyfunc"
            )
            folder = Path(scratch) / "model"
            self._write_model(submission, folder, logged)
            self.client.log_model_artifacts(logged.model_id, str(folder))
            self.client.finalize_logged_model(logged.model_id, "READY")
            self.client.log_outputs(self.run_id, [LoggedModelOutput(logged.model_id, 0)])
            try:
                self.client.create_registered_model(name, description="Forecasters of every workload, by foresize.")
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            # Tags go with the version's creation: there is no moment at which it has none.
            version = self.client.create_model_version(
                name,
                # Not models:/…, which an SQLite store would look up on MLflow's global tracking address.
                source=logged.artifact_location,
                run_id=self.run_id,
                tags=dict(submission.tags),
                model_id=logged.model_id,
            )
            return str(version.version)

    def promote(self, version: str, expected: str | None) -> bool:
        """Move the alias unless another cycle has moved it, and then the alias of the version before.

        In this order: stopped in between, the alias of the version before points to an older one, never to the new one.
        """
        from mlflow.exceptions import MlflowException

        with _telling(self.tracker.tracking_uri):
            name, alias = self.tracker.model_name, self.tracker.alias
            held: str | None = None
            try:
                held = str(self.client.get_model_version_by_alias(name, alias).version)
            except MlflowException as error:
                if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    raise
            if held != expected:
                return False
            self.client.set_registered_model_alias(name, alias, version)
            if held is not None and held != version:
                self.client.set_registered_model_alias(name, alias_before(alias), held)
            return True

    def end(self, status: str) -> None:
        """Mark a run that did not finish, and take back a version that it may have registered halfway.

        A server that is gone cannot be told; the log says so, and the reason for the end is not covered up.
        """
        try:
            with _telling(self.tracker.tracking_uri), bounded_requests(self.tracker.timeout):
                self.client.set_terminated(self.run_id, status)
                for found in self.client.search_model_versions(f"run_id = '{self.run_id}'"):
                    version = self.client.get_model_version(found.name, found.version)
                    if not version.aliases:
                        self.client.delete_model_version(found.name, found.version)
        except TrackingUnavailable as error:
            log.warning("run left open", run_id=self.run_id, wanted=status, error=str(error))

    def _write_model(self, submission: Submission, folder: Path, logged: Any) -> None:
        from mlflow.models import Model

        from predictor.usage.table import table_from_panel

        place = folder.parent / BUNDLE_FOLDER
        submission.bundle.save(place)
        usage = table_from_panel(submission.example)[["workload", "resource", "timestamp", "usage"]]
        with warnings.catch_warnings():
            # MLflow warns of type hints, its own as well as ours, though the signature is given.
            warnings.filterwarnings("ignore", category=UserWarning, module=r"mlflow\.")
            import mlflow.pyfunc

            mlflow.pyfunc.save_model(
                str(folder),
                python_model=str(MODEL_CODE),
                artifacts={"bundle": str(place)},
                signature=_signature(),
                input_example=usage.astype({"workload": str, "resource": str}),
                pip_requirements=_requirements(),
                mlflow_model=Model(
                    run_id=self.run_id, model_id=logged.model_id, artifact_path=logged.artifact_location
                ),
            )


@contextmanager
def _telling(tracking_uri: str) -> Iterator[None]:
    """MLflow's and the network's exceptions as one that says what to do."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise TrackingUnavailable(_advice(tracking_uri, in_short(error))) from error
    except store_problems() as error:
        raise TrackingUnavailable(_advice(tracking_uri, in_short(error))) from error


def _advice(tracking_uri: str, problem: str) -> str:
    what = "free or mend the file" if sqlite_file(tracking_uri) else "start it, or mend registry.tracking_uri"
    return f"MLflow at {without_login(tracking_uri)}: {problem}. To go on, {what}"


def _signature() -> Any:
    """Usage rows in, forecast rows out."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import AnyType

    # MLflow's strings refuse pandas categories and its datetime refuses time zones, both of which usage tables have;
    # the usage table's own check says more than MLflow's would.
    anything = AnyType()  # type: ignore[no-untyped-call]  # MLflow has no annotations here
    usage = [
        *(ColSpec(anything, name, required=False) for name in ("workload", "resource", "timestamp")),
        ColSpec(DataType.double, "usage"),
    ]
    forecast = [
        ColSpec(DataType.string, "workload"),
        ColSpec(DataType.string, "resource"),
        ColSpec(DataType.datetime, "cutoff"),
        ColSpec(DataType.datetime, "timestamp"),
        ColSpec(DataType.double, "level"),
        ColSpec(DataType.double, "value"),
    ]
    return ModelSignature(inputs=Schema([*usage]), outputs=Schema([*forecast]))


def _requirements() -> list[str]:
    # foresize itself is not named: an installer would look for that name wherever it is told to, and anyone may have
    # registered it there.
    return [f"{name}=={metadata.version(name)}" for name in ("mlflow", "numpy", "pandas", "lightgbm")]
