"""Where a workload's pods are, by what can be lost as a whole: a node or a zone."""

from dataclasses import dataclass
from enum import StrEnum


class DomainKind(StrEnum):
    """What can be lost as a whole."""

    NODE = "node"
    ZONE = "zone"


@dataclass(frozen=True, slots=True)
class FailureDomains:
    """The pods of one workload in each of them."""

    kind: DomainKind
    pods: tuple[tuple[str, int], ...]
    """Name and running pods of each one that has any, the fullest first."""
    eligible: int
    """How many there are that pods could be placed in."""

    @property
    def placed(self) -> int:
        """How many pods are running in all."""
        return sum(count for _, count in self.pods)

    @property
    def fullest(self) -> tuple[str, int]:
        """Name and pods of the one with most; no name and none where no pod runs."""
        return self.pods[0] if self.pods else ("", 0)

    @property
    def there(self) -> int:
        """How many can have pods: those that may be placed in, and those that already have some."""
        return max(self.eligible, len(self.pods))
