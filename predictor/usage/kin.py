"""What a workload has in common with others: the images it runs and what owns it. Pure values."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

_TAG_OR_DIGEST = re.compile(r"(:[^/:@]*)?(@.*)?$")
_BARE_DIGEST = re.compile(r"(sha256:)?[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Kin:
    """By what a workload's siblings are known; empty is not known."""

    image: str = ""
    """The repositories of all its containers' images, sorted and joined by commas: a sidecar that strangers share makes
    them no siblings, and a new version none of others."""
    owner: str = ""
    """What owns the workload itself, for example `Kafka/orders`, within its namespace."""

    def or_else(self, earlier: "Kin") -> "Kin":
        """This, with what was known earlier where it knows nothing."""
        return Kin(self.image or earlier.image, self.owner or earlier.owner)


UNKNOWN_KIN = Kin()
NO_KIN: Mapping[str, Kin] = MappingProxyType({})
"""Of no workload anything is known."""


def repositories(images: Iterable[str]) -> str:
    """The images as `Kin.image`: without tag and digest. Empty where one of them is known by its digest alone."""
    named = [image.strip() for image in images if image.strip()]
    if any(_BARE_DIGEST.fullmatch(image) for image in named):
        return ""
    return ",".join(sorted({_TAG_OR_DIGEST.sub("", image, count=1) for image in named}))


def kin_by_workload(images: Mapping[str, str], owners: Mapping[str, str]) -> dict[str, Kin]:
    """What is known of each workload, in the order of their names; those of which nothing is known are left out."""
    found = {name: Kin(images.get(name, ""), owners.get(name, "")) for name in sorted({*images, *owners})}
    return {name: kin for name, kin in found.items() if kin != UNKNOWN_KIN}


def joined_kin(earlier: Mapping[str, Kin], later: Mapping[str, Kin], workloads: Collection[str]) -> Mapping[str, Kin]:
    """What either knows of the workloads, the later's word first; what is long gone is forgotten."""
    joined = {**earlier, **{name: kin.or_else(earlier.get(name, UNKNOWN_KIN)) for name, kin in later.items()}}
    return {name: kin for name, kin in joined.items() if name in workloads}
