"""A bundle as data and back: what is written of every forecaster, series and record, and under which name."""

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from models import catalog
from models.calibration import Calibration
from models.combination import Combination
from models.forecast import Forecaster, ForecasterState, JsonValue, Target
from models.gate import Gate
from predictor.serving.bundle import Bundle, SeriesModel
from predictor.serving.bundle_files import Parts
from predictor.usage.kin import Kin
from predictor.usage.panel import Resource, SeriesKey

_Value = TypeVar("_Value")


def parts_of(bundle: Bundle) -> Parts:
    """The bundle as JSON values, arrays and texts; `threads` is the process's, not the model's."""
    arrays: dict[str, NDArray[np.generic]] = {}
    texts: dict[str, str] = {}
    forecasters: list[JsonValue] = []
    for number, ((resource, name), forecaster) in enumerate(bundle.forecasters.items()):
        state = forecaster.to_state()
        arrays |= {f"{number}/{key}": values for key, values in state.arrays.items()}
        texts |= {f"{number}/{key}": text for key, text in state.texts.items()}
        forecasters.append({"resource": resource.value, "name": name, "parameters": state.parameters})
    rows: list[JsonValue] = [
        {
            "workload": key.workload,
            "resource": key.resource.value,
            "forecaster": model.forecaster,
            "scores": model.scores,
            "gate_passed": model.gate_passed,
            "reason": model.reason,
            "image": model.kin.image,
            "owner": model.kin.owner,
        }
        for key, model in bundle.series.items()
    ]
    combinations: list[JsonValue] = []
    for resource, record in bundle.combinations.items():
        combinations.append(
            {
                "resource": resource.value,
                "forecasters": list(record.forecasters),
                "part_ends": list(record.part_ends),
            }
        )
        arrays |= {f"{resource.value}/loss": record.loss, f"{resource.value}/evidence": record.evidence}
    calibrations: list[JsonValue] = []
    for resource, calibration in bundle.calibrations.items():
        calibrations.append(
            {
                "resource": resource.value,
                "levels": list(calibration.levels),
                "part_ends": list(calibration.part_ends),
            }
        )
        arrays |= {
            f"{resource.value}/covered": calibration.covered,
            f"{resource.value}/scored": calibration.evidence,
        }
    for resource, gate in bundle.gates.items():
        arrays |= {
            f"{resource.value}/gate_served": gate.served,
            f"{resource.value}/gate_baseline": gate.baseline,
            f"{resource.value}/gate_evidence": gate.evidence,
            f"{resource.value}/gate_is_closed": gate.is_closed,
        }
    peaks: list[JsonValue] = []
    for each in bundle.peaks:
        part, prefix = parts_of(each), f"peak_{each.target.steps}/"
        peaks.append(part.content)
        arrays |= {f"{prefix}{key}": values for key, values in part.arrays.items()}
        texts |= {f"{prefix}{key}": text for key, text in part.texts.items()}
    content: dict[str, JsonValue] = {
        "step_seconds": bundle.step_seconds,
        "target": {"steps": bundle.target.steps, "is_peak": bundle.target.is_peak},
        "levels": list(bundle.levels),
        "trained_until_seconds": bundle.trained_until_seconds,
        "forecasters": forecasters,
        "series": rows,
        "combinations": combinations,
        "calibrations": calibrations,
        "gates": [resource.value for resource in bundle.gates],
        "learned_until_seconds": bundle.learned_until_seconds,
        "peaks": peaks,
    }
    return Parts(content, arrays, texts)


def bundle_from(parts: Parts) -> Bundle:
    """The bundle back. Raises KeyError, TypeError, ValueError, AttributeError or IndexError for parts of none."""
    content: Mapping[str, Any] = parts.content
    forecasters: dict[tuple[Resource, str], Forecaster] = {}
    for number, row in enumerate(content["forecasters"]):
        state = ForecasterState(
            row["parameters"], _under(f"{number}/", parts.arrays), _under(f"{number}/", parts.texts)
        )
        forecasters[Resource(row["resource"]), row["name"]] = catalog.from_state(row["name"], state)
    models = [
        SeriesModel(
            SeriesKey(row["workload"], Resource(row["resource"])),
            row["forecaster"],
            row["scores"],
            row["gate_passed"],
            row["reason"],
            # Version 3 did not know them.
            Kin(row.get("image", ""), row.get("owner", "")),
        )
        for row in content["series"]
    ]
    combinations = {
        Resource(row["resource"]): Combination(
            tuple(row["forecasters"]),
            tuple(content["levels"]),
            tuple(row["part_ends"]),
            np.asarray(parts.arrays[f"{row['resource']}/loss"], dtype=np.float64),
            np.asarray(parts.arrays[f"{row['resource']}/evidence"], dtype=np.float64),
        )
        for row in content["combinations"]
    }
    calibrations = {
        Resource(row["resource"]): Calibration(
            tuple(row["levels"]),
            tuple(row["part_ends"]),
            np.asarray(parts.arrays[f"{row['resource']}/covered"], dtype=np.float64),
            np.asarray(parts.arrays[f"{row['resource']}/scored"], dtype=np.float64),
        )
        for row in content["calibrations"]
    }
    gates = {
        Resource(name): Gate(
            np.asarray(parts.arrays[f"{name}/gate_served"], dtype=np.float64),
            np.asarray(parts.arrays[f"{name}/gate_baseline"], dtype=np.float64),
            np.asarray(parts.arrays[f"{name}/gate_evidence"], dtype=np.float64),
            np.asarray(parts.arrays[f"{name}/gate_is_closed"], dtype=np.bool_),
        )
        # Versions before 5 had none.
        for name in content.get("gates", ())
    }
    peaks = []
    for row in content["peaks"]:
        prefix = f"peak_{row['target']['steps']}/"
        peaks.append(bundle_from(Parts(row, _under(prefix, parts.arrays), _under(prefix, parts.texts))))
    return Bundle(
        content["step_seconds"],
        Target(**content["target"]),
        tuple(content["levels"]),
        forecasters,
        {model.key: model for model in models},
        content["trained_until_seconds"],
        combinations,
        calibrations,
        content["learned_until_seconds"],
        tuple(peaks),
        gates,
    )


def _under(prefix: str, values: Mapping[str, _Value]) -> dict[str, _Value]:
    """What is stored under a prefix, without it."""
    return {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}
