"""Keeps the accuracy tracker's state on disk, so that a restart loses neither sums nor forecasts still waiting."""

import json
import os
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from predictor.serving.accuracy import AccuracyError, AccuracyState, AccuracyTracker


@dataclass(frozen=True, slots=True)
class AccuracyFile:
    """One file of arrays (npz, never a pickle), replaced as a whole."""

    path: Path

    def save(self, tracker: AccuracyTracker) -> None:
        """Writes the tracker's state; the file is the old or the new one, never half of one. Raises OSError."""
        state = tracker.to_state()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self.path.parent, prefix=self.path.name, delete=False) as file:
            try:
                # NumPy's annotation takes any array for its `allow_pickle`.
                np.savez(file, parameters=np.asarray(json.dumps(state.parameters)), **state.arrays)  # type: ignore[arg-type]
                file.flush()
                os.fsync(file.fileno())
                Path(file.name).replace(self.path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise

    def load(self) -> AccuracyTracker:
        """The tracker as it was saved. Raises AccuracyError where there is none or it cannot be used."""
        try:
            # Opened here, as NumPy leaves a damaged file open.
            with self.path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                parameters = json.loads(str(arrays["parameters"]))
                state = AccuracyState(parameters, {name: arrays[name] for name in arrays.files if name != "parameters"})
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise AccuracyError(f"{self.path}: holds no accuracy state: {error}") from error
        return AccuracyTracker.from_state(state)
