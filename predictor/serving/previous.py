"""The version that was champion before: asked for beside the cycles, and only once some series needs it."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from predictor.errors import CorruptModel, ModelNotFound, RegistryUnavailable
from predictor.serving.ports import BundleStore, StoredBundle

Work = Callable[[], None]


def beside(work: Work) -> None:
    """Does the work on a thread of its own, which the process does not wait for at its end."""
    threading.Thread(target=work, name="previous-champion", daemon=True).start()


@dataclass
class PreviousChampion:
    """Answers with what is at hand, at once, and never fails; what is at hand is brought up to date meanwhile.

    So a need is met one cycle after it arose, and a registry that is slow or gone delays nobody. An alias that is
    absent is no problem: nothing was champion before. What it holds has the records that it was registered with.
    """

    store: BundleStore
    alias: str
    """Alias of the version before, as `alias_before` names it."""
    step_seconds: int
    refresh_seconds: float = 300.0
    """How often the registry is asked whether the alias has moved, while somebody needs to know."""
    copy: Callable[[], StoredBundle | None] = field(default=lambda: None)
    """What was last loaded, by this process or one before it, to go on with where the registry is gone."""
    aside: Callable[[Work], None] = beside
    """How to ask without waiting; a command that answers once calls the work at once."""

    def __post_init__(self) -> None:
        self._held: StoredBundle | None = None
        self._asked: tuple[int, str] | None = None
        self._is_asking = False

    def at_hand(self, now_seconds: int, champion: str) -> StoredBundle | None:
        """The version before this champion, as far as it is known by now; empty where there is no champion."""
        if self._is_due(now_seconds, champion) and not self._is_asking:
            self._asked, self._is_asking = (now_seconds, champion), True
            self.aside(self._ask)
        held = self._held
        # Between the moves of the two aliases, and after a return to the version before, both are one.
        if held is None or held.version == champion or held.bundle.step_seconds != self.step_seconds:
            return None
        return held

    def _is_due(self, now_seconds: int, champion: str) -> bool:
        if self._asked is None:
            return True
        asked_at, then = self._asked
        return champion != then or now_seconds - asked_at >= self.refresh_seconds

    def _ask(self) -> None:
        try:
            self._held = self._found()
        finally:
            self._is_asking = False

    def _found(self) -> StoredBundle | None:
        held = self._held
        try:
            version = self.store.version_of(self.alias)
            if held is None or held.version != version:
                held = StoredBundle(version, self.store.load(version))
        except (ModelNotFound, CorruptModel):
            return None
        except RegistryUnavailable:
            return held or self.copy()
        return held
