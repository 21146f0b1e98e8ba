"""Blocks of series over threads answer what one call about all of them would."""

import numpy as np
import pytest

from predictor.serving.blocks import BLOCK_SERIES, Rows, answered_in_blocks


@pytest.mark.parametrize("threads", [1, 3])
def test_each_row_is_asked_about_once_and_in_order(threads: int) -> None:
    rows = np.arange(2 * BLOCK_SERIES + 5)[::-1]
    answers = answered_in_blocks(lambda block: block, rows, threads)
    assert [len(each) for each in answers] == [BLOCK_SERIES, BLOCK_SERIES, 5]
    np.testing.assert_array_equal(np.concatenate(answers), rows)
    assert answered_in_blocks(lambda block: block, [], threads) == []


def test_what_goes_wrong_in_a_thread_comes_through() -> None:
    def answer(block: Rows) -> int:
        raise ValueError(f"no answer about {block[0]}")

    with pytest.raises(ValueError, match="no answer about 0"):
        answered_in_blocks(answer, range(300), threads=2)
