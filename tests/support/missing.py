"""What a test does where the real server it needs cannot be had."""

import os
from typing import NoReturn

import pytest


def without(reason: object) -> NoReturn:
    """Fails in CI, where nothing may be left untested; elsewhere skips with the reason."""
    if os.environ.get("CI") == "true":
        pytest.fail(str(reason))
    pytest.skip(str(reason))
