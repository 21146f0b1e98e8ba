"""A history written into a Prometheus data folder: OpenMetrics text, one small file per block, through promtool.

promtool reads its whole input again for every block it makes, so one file per block turns minutes into seconds.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import numpy as np
import orjson

from pipelines.demo.exporters import RawSeries
from pipelines.demo.world import VERSION, demo_world
from pipelines.errors import DemoUnavailable

Progress = Callable[[int, int], None]
BLOCK_HOURS = 18
"""A length that Prometheus's own compaction makes (2 h × 3 × 3): few blocks, fast queries, nothing to compact."""
MANIFEST = "foresize-demo.json"
PARALLEL = 2


def demo_data(
    folder: Path, *, seed: int, end_seconds: int, days: int, promtool: Path, progress: Progress | None = None
) -> Path:
    """A Prometheus data folder under `folder` that holds the demo's world; made at the first call, then reused.

    It appears under its final name only when it is complete. Raises DemoUnavailable.
    """
    identity = {"seed": seed, "end": end_seconds, "days": days, "version": VERSION, "block_hours": BLOCK_HOURS}
    final = folder / f"demo-{seed}-{end_seconds}-{days}d-v{VERSION}"
    try:
        if orjson.loads((final / MANIFEST).read_bytes()) == identity:
            return final
    except (OSError, orjson.JSONDecodeError):
        # Not there, or not complete: it is made anew.
        shutil.rmtree(final, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f"{final.name}.unfinished-", dir=folder))
    try:
        world = demo_world(seed=seed, end_seconds=end_seconds, days=days)
        write_series(
            unfinished, world.series, world.start_seconds, world.step_seconds, promtool=promtool, progress=progress
        )
        (unfinished / MANIFEST).write_bytes(orjson.dumps(identity))
        unfinished.rename(final)
    except OSError as error:
        raise DemoUnavailable(f"the demo's history cannot be written under {folder}: {error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return final


def write_series(
    data_folder: Path,
    series: Sequence[RawSeries],
    start_seconds: int,
    step_seconds: int,
    *,
    promtool: Path,
    progress: Progress | None = None,
) -> None:
    """Add the series to a Prometheus data folder. Raises DemoUnavailable where promtool fails."""
    ordered = sorted(series, key=lambda each: (each.metric, each.labels))
    steps = max((each.first + each.values.size for each in ordered), default=0)
    with (
        tempfile.TemporaryDirectory(prefix="foresize-openmetrics-") as texts,
        ThreadPoolExecutor(PARALLEL, thread_name_prefix="promtool") as pool,
    ):
        spans = list(_block_spans(start_seconds, step_seconds, steps))

        def backfilled(number: int) -> None:
            path = Path(texts) / f"{number}.om"
            first, stop = spans[number]
            with path.open("w", encoding="utf-8") as file:
                file.writelines(_lines(ordered, start_seconds, step_seconds, first, stop))
            _create_block(promtool, path, data_folder)
            path.unlink()

        futures = [pool.submit(backfilled, number) for number in range(len(spans))]
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                future.result()
                if progress is not None:
                    progress(done, len(spans))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _block_spans(start_seconds: int, step_seconds: int, steps: int) -> Iterator[tuple[int, int]]:
    """Half-open ranges of steps that fall into one block each; blocks are aligned to the epoch."""
    block = BLOCK_HOURS * 3600
    end = start_seconds + steps * step_seconds
    for begin in range(start_seconds // block * block, end, block):
        first = max(0, -(-(begin - start_seconds) // step_seconds))
        stop = min(steps, -(-(begin + block - start_seconds) // step_seconds))
        if stop > first:
            yield first, stop


def _lines(series: Sequence[RawSeries], start_seconds: int, step_seconds: int, first: int, stop: int) -> Iterator[str]:
    """OpenMetrics text of the steps [first, stop); series sorted by metric."""
    stamps: dict[int, list[str]] = {}
    metric = ""
    for each in series:
        begin, end = max(first, each.first), min(stop, each.first + each.values.size)
        if begin >= end:
            continue
        if each.metric != metric:
            metric = each.metric
            family, kind = (metric[:-6], "counter") if metric.endswith("_total") else (metric, "unknown")
            yield f"# TYPE {family} {kind}\n"
        if each.offset_seconds not in stamps:
            moved = start_seconds + each.offset_seconds
            stamps[each.offset_seconds] = [str(moved + step * step_seconds) for step in range(first, stop)]
        times = stamps[each.offset_seconds][begin - first : end - first]
        values = each.values[begin - each.first : end - each.first]
        labels = ",".join(f'{name}="{_escaped(text)}"' for name, text in each.labels)
        head = f"{metric}{{{labels}}} "
        seen = ~np.isnan(values)
        if seen.all() and values[0] == values[-1] and (values == values[0]).all():
            between = f"\n{head}{values[0]:.16g} "
            yield f"{head}{values[0]:.16g} {between.join(times)}\n"
        else:
            yield "".join(
                f"{head}{value:.16g} {time}\n"
                for value, time, is_seen in zip(values.tolist(), times, seen, strict=True)
                if is_seen
            )
    yield "# EOF\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _create_block(promtool: Path, text: Path, data_folder: Path) -> None:
    command = [
        str(promtool), "tsdb", "create-blocks-from", f"--max-block-duration={BLOCK_HOURS}h", "--quiet",
        "openmetrics", str(text), str(data_folder),
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, "GOMAXPROCS": "1"}
        )
    except OSError as error:
        raise DemoUnavailable(f"promtool cannot be run: {error}") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-500:]
        raise DemoUnavailable(f"promtool could not write the history to {data_folder}: {said}")
