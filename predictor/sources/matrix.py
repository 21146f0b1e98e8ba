"""A range query's answer as labels and one array, and how such answers are joined."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.forecast import FloatArray

Labels = tuple[tuple[str, str], ...]
"""A series' labels, sorted by name."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """Series on one grid: `values` is [series, points], NaN where the query had no value."""

    labels: tuple[Labels, ...]
    values: FloatArray
    warnings: tuple[str, ...] = ()
    infos: tuple[str, ...] = ()

    @property
    def points(self) -> int:
        """How many evaluations."""
        return int(self.values.shape[1])

    def rows(self) -> Iterator[tuple[Labels, FloatArray]]:
        """Each series with its values."""
        return zip(self.labels, self.values, strict=True)

    def part(self, first: int, stop: int) -> "Matrix":
        """The points in [first, stop), without the series that live only outside them."""
        values = self.values[:, first:stop]
        rows = np.flatnonzero(~np.isnan(values).all(axis=1) | np.isnan(self.values).all(axis=1))
        return Matrix(tuple(self.labels[row] for row in rows), values[rows], self.warnings, self.infos)

    def padded(self, points: int) -> "Matrix":
        """With points that hold no value added at the end."""
        missing = points - self.points
        values = np.pad(self.values, ((0, 0), (0, missing)), constant_values=np.nan)
        return Matrix(self.labels, values, self.warnings, self.infos)


def matrix_from_json(
    data: Mapping[str, Any],
    *,
    start_seconds: int,
    points: int,
    step_seconds: int,
) -> Matrix:
    """The `data` field of a range answer on its grid. Raises ValueError, KeyError or TypeError for another shape."""
    if data["resultType"] != "matrix":
        raise ValueError(f"a {data['resultType']} instead of a matrix")
    result = data["result"]
    labels: list[Labels] = []
    values = np.full((len(result), points), np.nan)
    for row, series in enumerate(result):
        labels.append(tuple(sorted((str(k), str(v)) for k, v in series["metric"].items())))
        pairs = series["values"]
        times = np.asarray([pair[0] for pair in pairs], dtype=np.float64)
        column = np.rint((times - start_seconds) / step_seconds).astype(np.intp)
        if column.size and (column.min() < 0 or column.max() >= points):
            raise ValueError("a sample lies outside the time that was asked for")
        values[row, column] = [float(pair[1]) for pair in pairs]
    return Matrix(tuple(labels), values)


def joined_in_rows(parts: Sequence[Matrix], warnings: tuple[str, ...], infos: tuple[str, ...]) -> Matrix:
    """The series of one answer that came in parts of some series each, with what was remarked on it."""
    labels = tuple(each for part in parts for each in part.labels)
    values = parts[0].values if len(parts) == 1 else np.concatenate([part.values for part in parts])
    return Matrix(labels, values, warnings, infos)


def joined_in_time(parts: Sequence[Matrix]) -> Matrix:
    """Answers to one query for adjoining times, as one."""
    rows = {labels: i for i, labels in enumerate(dict.fromkeys(each for part in parts for each in part.labels))}
    values = np.full((len(rows), sum(part.points for part in parts)), np.nan)
    first = 0
    for part in parts:
        index = [rows[labels] for labels in part.labels]
        values[index, first : first + part.points] = part.values
        first += part.points
    return Matrix(
        tuple(rows),
        values,
        tuple(dict.fromkeys(w for part in parts for w in part.warnings)),
        tuple(dict.fromkeys(i for part in parts for i in part.infos)),
    )
