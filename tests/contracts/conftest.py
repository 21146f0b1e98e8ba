"""The control plane of the end-to-end tests, for the contract that the real cluster and the one in memory share."""

from tests.e2e.conftest import control_plane

__all__ = ["control_plane"]
