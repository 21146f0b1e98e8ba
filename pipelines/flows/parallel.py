"""`map` over processes, here or on a Dask cluster: the same answers in the same order, however many there are."""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from pipelines.errors import ClusterUnavailable
from pipelines.steps.plan import Answered, Asked, Mapped

LOOK_SECONDS = 1.0
"""How often a worker looks whether its parent is still there."""


@contextmanager
def mapped_over(jobs: int, *, dask: str | None = None) -> Iterator[Mapped]:
    """A `map` over so many processes, each of which keeps BLAS and OpenMP to one thread; over none for one job.

    They end soon after this one, however it ends.

    `dask` is the address of a Dask scheduler, whose workers have foresize installed: they all work then, whatever
    `jobs` says. Raises ClusterUnavailable.
    """
    if dask is not None:
        with _mapped_over_cluster(dask) as mapped:
            yield mapped
        return
    if jobs == 1:
        yield map
        return
    from joblib import Parallel, parallel_config

    with (
        parallel_config(backend="loky", inner_max_num_threads=1, initializer=_end_after, initargs=(os.getpid(),)),
        Parallel(n_jobs=jobs, return_as="generator") as workers,
    ):
        yield _mapped_by(workers)


def _end_after(parent: int) -> None:
    """Ends this worker once its parent is gone: a parent that is killed tells nobody."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


@contextmanager
def _mapped_over_cluster(address: str) -> Iterator[Mapped]:
    from joblib import Parallel, parallel_config

    try:
        from distributed import Client
        from distributed.comm import get_address_host_port
    except ImportError as error:
        raise ClusterUnavailable(f"{address}: Dask is not installed: pip install 'foresize[dask]'") from error
    try:
        # A client that is given no address waits a minute for itself when the process ends.
        get_address_host_port(address)
        client = Client(address, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ClusterUnavailable(
            f"{address}: no Dask scheduler answered ({error}); give the address that `dask scheduler` prints, such as "
            "tcp://10.0.0.5:8786"
        ) from error
    with client, parallel_config(backend="dask", client=client), Parallel(return_as="generator") as workers:
        yield _mapped_by(workers)


def _mapped_by(workers: Callable[[Iterable[Any]], Any]) -> Mapped:
    from joblib import delayed

    def mapped(function: Callable[[Asked], Answered], asked: Iterable[Asked], /) -> Iterable[Answered]:
        answers: Iterable[Answered] = workers(delayed(function)(each) for each in asked)
        return answers

    return mapped
