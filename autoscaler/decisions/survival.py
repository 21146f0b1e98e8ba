"""How many replicas it takes so that those that are left still carry demand when a node, or a zone, is lost.

Nobody knows where a scheduler will put the next pod, nor which one a ReplicaSet will remove. So it is worked out from
where pods are now, again in each cycle: of what is removed the fullest domain loses nothing, and what is added goes
where fewest are. The first never has to be taken back; the second is, by more, where pods came to lie badly, up to as
many as it would take if all that an even spread needs lay in one domain.
"""

from math import ceil

from autoscaler.cluster.domains import FailureDomains
from autoscaler.cluster.reasons import Reason, ReasonCode, replicas_text


def evenly_spread(needed: int, domains: int) -> int:
    """Fewest replicas of which so many are left when one of some domains (2 or more) is lost, evenly spread.

    n - ceil(n / d) >= needed, whose least solution is needed + ceil(needed / (d - 1)).
    """
    return needed + ceil(needed / (domains - 1))


def surviving_replicas(needed: int, domains: FailureDomains) -> int:
    """Replicas of which `needed` are left when the fullest domain is lost; `needed` where no number survives that."""
    if needed <= 0 or domains.there < 2:
        return needed
    _, most = domains.fullest
    even = evenly_spread(needed, domains.there)
    if needed + most <= domains.placed:
        return max(needed + most, even)
    return max(even, min(needed + most, needed + even))


def left_of(replicas: int, domains: FailureDomains) -> int:
    """How many of so many replicas are left when the fullest domain is lost: all where none is to be survived."""
    if domains.there < 2:
        return replicas
    _, most = domains.fullest
    return max(0, replicas - max(most, ceil(replicas / domains.there)))


def survival_reason(needed: int, replicas: int, domains: FailureDomains) -> Reason:
    """Why there are more replicas than demand needs."""
    name, most = domains.fullest
    where = f"{name} has {most} of the {domains.placed} that run" if name else "none of them runs yet"
    text = (
        f"{replicas_text(replicas)}, so that {needed} are left when one of {domains.there} {domains.kind.value}s is"
        f" lost; {where}"
    )
    return Reason(ReasonCode.SURVIVES_LOSS, text)
