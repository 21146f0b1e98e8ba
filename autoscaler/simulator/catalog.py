"""Name → policy: what a replay can be asked for, with the knob that a sweep turns and the values that it takes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from autoscaler.decisions.budget import LADDER, BudgetRules
from autoscaler.decisions.replicas import ReplicaRules
from autoscaler.simulator.outcome import ReplayError
from autoscaler.simulator.peers.catalog import PEERS, UTILISATIONS, Peer
from autoscaler.simulator.peers.hpa import HpaPolicy
from autoscaler.simulator.policies import ForesizePolicy, Policy
from models.forecast import FloatArray

FORESIZE, HPA = "foresize", "hpa"
BUDGETED = "foresize_budget"
LEVELS = (*LADDER, 0.9999)


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What policies are made from; rows are the replayed workloads'."""

    past: FloatArray
    """Demand before the replay, [workloads, past steps], NaN where it is not known."""
    peaks: Mapping[float, FloatArray]
    """By level: the demand to be ready for in each step, [workloads, steps]."""
    level: float
    """Foresize's level, unless a sweep turns it; one of those in `peaks`."""
    lead_seconds: float
    """That the forecasts reach beyond their step."""
    rules: ReplicaRules
    model_version: str
    hpa_utilisation: float
    """That the HPA aims at, and foresize where it has no forecast."""
    relaxation: float | None = None
    """Of foresize's error budget, as `BudgetRules` has it; None: foresize has none, unless it is asked for."""
    target_utilisation: float | None = None
    """Share of what replicas carry within the SLO that foresize fills; None: each workload's own."""
    later: FloatArray | None = None
    """The median of the demand peak within foresize's break-even window, [workloads, steps]; None: it has none."""
    break_even_seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One policy, as a replay mounts it."""

    make: Callable[[Given, float | None], Policy]
    """The policy with its knob at this value; None: as it is set up by default."""
    knob: str
    """What a sweep turns…"""
    values: tuple[float, ...]
    """…and to what."""
    is_reactive: bool
    """Follows what it measures and forecasts nothing: a peer to be compared with."""


def named(name: str) -> Entry:
    """The policy of this name. Raises ReplayError."""
    if name not in CATALOG:
        raise ReplayError(f"no policy is called {name!r}; there are: {', '.join(CATALOG)}")
    return CATALOG[name]


def _foresize(given: Given, level: float | None) -> Policy:
    return _of_level(given, level, given.relaxation if level is None else None, FORESIZE)


def _budgeted(given: Given, level: float | None) -> Policy:
    """The same with an error budget whatever the settings say; a sweep turns the level that is stated."""
    return _of_level(given, level, given.relaxation or 1.0, BUDGETED)


def _of_level(given: Given, level: float | None, relaxation: float | None, name: str) -> Policy:
    stated = given.level if level is None else level
    budget = None if relaxation is None else BudgetRules(stated, relaxation)
    return ForesizePolicy(
        peaks=given.peaks[stated],
        level=stated,
        lead_seconds=given.lead_seconds,
        rules=given.rules,
        target_utilisation=given.target_utilisation,
        budget=budget,
        rungs={} if budget is None else {rung: given.peaks[rung] for rung in budget.rungs},
        later=given.later,
        break_even_seconds=given.break_even_seconds,
        model_version=given.model_version,
        name=name,
    )


def _hpa(given: Given, utilisation: float | None) -> Policy:
    return HpaPolicy(target_utilisation=given.hpa_utilisation if utilisation is None else utilisation, name=HPA)


def _peer(peer: Peer[Policy], *, is_reactive: bool) -> Entry:
    return Entry(
        make=lambda given, value: peer.make(given.past, value),
        knob=peer.knob.replace("_", " "),
        values=peer.values,
        is_reactive=is_reactive,
    )


REACTIVE = frozenset({HPA, "hpa_requests", "keda", "kpa"})
"""Those that follow what they measure and forecast nothing."""

CATALOG: Mapping[str, Entry] = MappingProxyType(
    {
        FORESIZE: Entry(make=_foresize, knob="SLA level", values=LEVELS, is_reactive=False),
        BUDGETED: Entry(make=_budgeted, knob="stated SLA level", values=LEVELS, is_reactive=False),
        HPA: Entry(make=_hpa, knob="target utilisation", values=UTILISATIONS, is_reactive=True),
        **{name: _peer(peer, is_reactive=name in REACTIVE) for name, peer in PEERS.items() if name != HPA},
    }
)
