"""A file of forecasts that appears whole or not at all."""

import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from predictor.errors import InvalidUsage
from predictor.registry.folder import put_in_place

if TYPE_CHECKING:
    import pandas as pd

SUFFIXES = (".parquet", ".csv")


class ForecastFile:
    """Tables written one after the other into one Parquet or CSV file; use as a context manager.

    What is written goes beside the file's place and is moved there when the block ends well; otherwise an older file
    stays as it was. Raises InvalidUsage for a place that cannot be written to, before anything else happens.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix.lower() not in SUFFIXES:
            raise InvalidUsage(f"{path}: the name must end in {' or '.join(SUFFIXES)}")
        self.path = path
        self._writer: Any = None

    def __enter__(self) -> Self:
        try:
            handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.", suffix=".part")
        except OSError as error:
            raise InvalidUsage(f"{self.path}: cannot be written: {error.strerror}") from error
        os.close(handle)
        self._part = Path(name)
        return self

    def write(self, table: "pd.DataFrame") -> None:
        """Add the rows of a table; every table has the same columns. Raises InvalidUsage, for a full disk too."""
        try:
            if self.path.suffix.lower() == ".csv":
                is_first = self._writer is None
                self._writer = "csv"
                table.to_csv(self._part, mode="a", header=is_first, index=False, date_format="%Y-%m-%dT%H:%M:%SZ")
                return
            import pyarrow.parquet as pq

            rows = _arrow(table)
            if self._writer is None:
                self._writer = pq.ParquetWriter(self._part, rows.schema, compression="zstd")
            self._writer.write_table(rows)
        except OSError as error:
            raise InvalidUsage(f"{self.path}: cannot be written: {error}") from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if hasattr(self._writer, "close"):
                self._writer.close()
            if kind is None:
                put_in_place(self._part, self.path)
        except OSError as problem:
            if kind is None:
                raise InvalidUsage(f"{self.path}: cannot be written: {problem}") from problem
        finally:
            self._part.unlink(missing_ok=True)


def _arrow(table: "pd.DataFrame") -> Any:
    """The table for Parquet. Times are given as whole seconds UTC: pyarrow's own way asks pandas for what it drops."""
    import pandas as pd
    import pyarrow as pa

    columns = {}
    for name, column in table.items():
        if isinstance(column.dtype, pd.DatetimeTZDtype):
            seconds = column.dt.tz_convert(None).to_numpy().astype("datetime64[s]")
            columns[str(name)] = pa.array(seconds, type=pa.timestamp("s", tz="UTC"))
        else:
            columns[str(name)] = pa.array(column.array)
    return pa.table(columns)
