"""Whose record a series leans on while its own is short: its siblings', the nearest first. Pure."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from predictor.usage.kin import NO_KIN, UNKNOWN_KIN, Kin
from predictor.usage.panel import SeriesKey

KINSHIPS: tuple[str, ...] = ("of the same name", "with the same image", "of the same owner")
"""What makes workloads siblings, in words: kind and name in other namespaces, kind and image, or what owns them."""

Tie = tuple[str, ...]
"""What siblings by one kinship have in common; empty where that is not known."""


def ties(key: SeriesKey, kin: Mapping[str, Kin]) -> tuple[Tie, ...]:
    """What the series of a workload has in common with its siblings, by each of KINSHIPS.

    Who share an image must be of one kind too: a CronJob that runs a shop's image does not behave as the shop does.
    """
    known = kin.get(key.workload, UNKNOWN_KIN)
    kind_and_name = tuple(key.workload.split("/")[1:]) or (key.workload,)
    by_image = (kind_and_name[0] if len(kind_and_name) > 1 else "", known.image) if known.image else ()
    return kind_and_name, by_image, (key.namespace, known.owner) if known.owner else ()


def siblings(keys: Sequence[SeriesKey], kin: Mapping[str, Kin] = NO_KIN) -> NDArray[np.intp]:
    """By each of KINSHIPS a number for each series, the same for siblings, [kinships, series]; −1 is not known."""
    numbers: list[dict[Tie, int]] = [{(): -1} for _ in KINSHIPS]
    found = [
        [each.setdefault(tie, len(each)) for each, tie in zip(numbers, ties(key, kin), strict=True)] for key in keys
    ]
    return np.asarray(found, dtype=np.intp).reshape(-1, len(KINSHIPS)).T
