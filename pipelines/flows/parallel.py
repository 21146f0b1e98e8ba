"""`map` over processes: the same answers in the same order, however many there are."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from pipelines.steps.plan import Answered, Asked, Mapped


@contextmanager
def mapped_over(jobs: int) -> Iterator[Mapped]:
    """A `map` over so many processes, each of which keeps BLAS and OpenMP to one thread; over none for one job."""
    if jobs == 1:
        yield map
        return
    from joblib import Parallel, delayed, parallel_config

    with (
        parallel_config(backend="loky", inner_max_num_threads=1),
        Parallel(n_jobs=jobs, return_as="generator") as workers,
    ):

        def mapped(function: Callable[[Asked], Answered], asked: Iterable[Asked], /) -> Iterable[Answered]:
            answers: Iterable[Answered] = workers(delayed(function)(each) for each in asked)
            return answers

        yield mapped
