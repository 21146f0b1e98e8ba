"""Forecasts of many series, some at a time: what forecasters share stays near the processor, memory stays small, and
each thread takes some. NumPy and LightGBM let go of the interpreter while they work.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Answer = TypeVar("Answer")
Rows = NDArray[np.intp]

BLOCK_SERIES = 128
"""Series that are forecast at a time."""


def answered_in_blocks(answer: Callable[[Rows], Answer], rows: Sequence[int] | Rows, threads: int = 1) -> list[Answer]:
    """What is answered about each block of the rows, in order; however many threads there are, the same."""
    blocks = [np.asarray(rows[start : start + BLOCK_SERIES], np.intp) for start in range(0, len(rows), BLOCK_SERIES)]
    if threads == 1 or len(blocks) < 2:
        return [answer(block) for block in blocks]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(answer, blocks))
