"""A bundle store that lives as long as the process: for tests and for training without a registry."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from predictor.errors import ModelNotFound

if TYPE_CHECKING:
    from predictor.serving.bundle import Bundle


@dataclass
class MemoryBundleStore:
    """Keeps bundles in a dictionary; versions are "1", "2", … in the order of adding."""

    bundles: "dict[str, Bundle]" = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)

    def add(self, bundle: "Bundle") -> str:
        """Keep a bundle; the answer is its version."""
        version = str(len(self.bundles) + 1)
        self.bundles[version] = bundle
        return version

    def set_alias(self, alias: str, version: str) -> None:
        """Point an alias to a version. Raises ModelNotFound."""
        self.load(version)
        self.aliases[alias] = version

    def version_of(self, alias: str) -> str:
        """The version an alias points to. Raises ModelNotFound."""
        try:
            return self.aliases[alias]
        except KeyError:
            raise ModelNotFound(f"no model has the alias {alias!r}; train one with `foresize train`") from None

    def load(self, version: str) -> "Bundle":
        """The bundle of a version. Raises ModelNotFound."""
        try:
            return self.bundles[version]
        except KeyError:
            raise ModelNotFound(f"there is no model version {version!r}") from None
