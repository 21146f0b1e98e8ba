"""What this machine is given: settings, disk and the models in the registry."""

import os
import shutil
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foresize.checks.check import REQUEST_SECONDS, Check, Checks, Status

if TYPE_CHECKING:
    from pipelines.settings import Settings

LITTLE_SPACE_BYTES = 1 << 30
NO_SPACE_BYTES = 100 << 20
WITHOUT_REGISTRY = (
    "check registry.tracking_uri and the network; until then the last model on this disk serves, else yesterday's same "
    "hour, and nothing can be trained"
)
"""A warning only: the ladder goes on without the registry."""


def configuration_checks(settings: "Settings", given: Path | None, environ: Mapping[str, str]) -> Checks:
    """Where the settings come from and which are not the defaults. Values that may be secret are not shown."""
    from foresize.settings import DEFAULT_FILE, OTHER_VARIABLES, PREFIX
    from pipelines.settings import Settings

    named = environ.get("FORESIZE_CONFIG")
    file = given or (Path(named) if named else DEFAULT_FILE)
    variables = sorted(name for name in environ if name.startswith(PREFIX) and name not in OTHER_VARIABLES)
    source = f"file {file}" if file.exists() else "no settings file"
    yield Check("config", "OK", f"{source}; variables: {', '.join(variables) or 'none'}")
    own, defaults = (s.model_dump(mode="json") for s in (settings, Settings()))
    changed = [f"{name} = {value}" for name, value in _differences(own, defaults)]
    yield Check("config", "OK", f"not the defaults: {'; '.join(changed) or 'nothing'}")


def disk_checks(settings: "Settings") -> Checks:
    """Whether the state folder can be written, and how much room there is."""
    folder = settings.state_folder
    place = next(p for p in (folder, *folder.resolve().parents) if p.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        advice = "mount a volume there, or set state_folder"
        yield Check("disk", "FAIL", f"state folder {folder} cannot be written ({place})", advice)
        return
    free = shutil.disk_usage(place).free
    text = f"state folder {folder} can be written; {free / 1e9:.1f} GB free"
    status: Status = "FAIL" if free < NO_SPACE_BYTES else "WARN" if free < LITTLE_SPACE_BYTES else "OK"
    yield Check(
        "disk", status, text, "" if status == "OK" else "free some space, or set state_folder to a larger volume"
    )


def mlflow_checks(settings: "Settings") -> Checks:
    """Whether the registry answers, and the model under the alias exists, can be loaded and fits the settings."""
    from datetime import UTC, datetime

    from predictor.errors import CorruptModel, ModelNotFound, RegistryUnavailable
    from predictor.registry.mlflow import MlflowBundleStore

    registry = settings.registry
    limit = min(registry.timeout, timedelta(seconds=REQUEST_SECONDS))
    store = MlflowBundleStore(settings.tracking_uri, registry.model_name, limit)
    named = f"{registry.model_name}@{registry.alias}"
    try:
        version = store.version_of(registry.alias)
        yield Check("mlflow", "OK", f"{store.shown_uri} answers; {named} is version {version}")
        bundle = store.load(version)
    except ModelNotFound as error:
        advice = "run `foresize train`; until then yesterday's same hour is the forecast"
        yield Check("mlflow", "WARN", str(error), advice)
        return
    except CorruptModel as error:
        yield Check("mlflow", "FAIL", str(error), "run `foresize train`; until then the last good model serves")
        return
    except RegistryUnavailable as error:
        yield Check("mlflow", "WARN", str(error), WITHOUT_REGISTRY)
        return
    until = datetime.fromtimestamp(bundle.trained_until_seconds, UTC)
    step = int(settings.history.step.total_seconds())
    if bundle.step_seconds != step:
        text = f"version {version} forecasts steps of {bundle.step_seconds} s, but history.step is {step} s"
        yield Check("mlflow", "FAIL", text, "run `foresize train`, or set history.step to the model's")
        return
    yield Check(
        "mlflow",
        "OK",
        f"version {version} loads: {len(bundle.series)} series, trained until {until:%Y-%m-%d %H:%M} UTC",
    )


def _differences(own: Mapping[str, Any], defaults: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    from predictor.errors import without_login

    for name, value in own.items():
        default, place = defaults.get(name), f"{path}{name}"
        if value == default:
            continue
        if isinstance(value, dict) and isinstance(default, dict) and name not in ("headers", "matchers"):
            yield from _differences(value, default, f"{place}.")
        elif name in ("headers", "username") or "token" in name or "password" in name:
            yield place, "(not shown)"
        else:
            yield place, without_login(str(value))
