"""What a look at one thing came to."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

REQUEST_SECONDS = 4.0
Status = Literal["OK", "WARN", "FAIL"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    area: str
    status: Status
    message: str
    advice: str = ""
    """What to do about it; empty where all is well."""


Checks = Iterator[Check]
