"""The copy to go on with where the registry is gone: every model that was loaded is kept on local disk."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from predictor.registry.kept import Kept, KeptModel
from predictor.serving.ports import BundleStore

if TYPE_CHECKING:
    from predictor.serving.bundle import Bundle


@dataclass(frozen=True)
class LastGoodStore:
    """Any bundle store, which remembers across restarts what it last loaded.

    The copy is never served by `load`: falling back is the caller's decision, who asks for `last_good`.
    """

    inner: BundleStore
    copy: KeptModel

    def version_of(self, alias: str) -> str:
        """As the inner store answers."""
        return self.inner.version_of(alias)

    def load(self, version: str) -> "Bundle":
        """As the inner store answers; a success is kept."""
        bundle = self.inner.load(version)
        self.copy.keep(version, bundle)
        return bundle

    def last_good(self) -> Kept | None:
        """What was last loaded, or None where there is no copy that can be trusted."""
        return self.copy.read()
