"""How well supply followed demand: the elasticity measures of the SPEC Research Group (Herbst et al. 2016)."""

from dataclasses import dataclass

import numpy as np

from models.forecast import BoolArray, IntArray


@dataclass(frozen=True, slots=True)
class Elasticity:
    """Supply, the Ready replicas, against those that demand needs, over the time in which it is known. All are shares.

    0 is best everywhere. What a workload must keep by its minimum counts as needed.
    """

    theta_under: float
    """Accuracy: mean shortage ÷ what was needed."""
    theta_over: float
    """Accuracy: mean excess ÷ what was needed."""
    tau_under: float
    """Timeshare: of the time, with too few."""
    tau_over: float
    """Timeshare: of the time, with more than needed."""
    instability: float
    """Share of ticks at which supply and need did not change in the same direction, or only one of them changed."""


PERFECT = Elasticity(0.0, 0.0, 0.0, 0.0, 0.0)
"""Also where demand is never known."""


def elasticity(needed: IntArray, ready: IntArray, known: BoolArray) -> Elasticity:
    """The measures of one workload; all three are [ticks], `needed` is at least 1."""
    ticks = int(known.sum())
    if ticks == 0:
        return PERFECT
    gap = np.where(known, ready - needed, 0)
    relative = gap / needed
    comparable = known[1:] & known[:-1]
    apart = np.sign(np.diff(ready)) != np.sign(np.diff(needed))
    return Elasticity(
        theta_under=float(np.abs(relative[gap < 0]).sum()) / ticks,
        theta_over=float(relative[gap > 0].sum()) / ticks,
        tau_under=int((gap < 0).sum()) / ticks,
        tau_over=int((gap > 0).sum()) / ticks,
        instability=int((apart & comparable).sum()) / max(1, int(comparable.sum())),
    )
