"""A candidate for a lease in a process of its own, to be killed or stopped: says every 50 ms whether it leads.

`python -m tests.support.candidate KUBECONFIG NAMESPACE IDENTITY`; each line is the clock before it asked, then 1 or 0.
"""

import sys
import time
from pathlib import Path

from autoscaler.kube.client import KubeClient
from autoscaler.kube.clocks import seconds_since_boot
from autoscaler.kube.lease import LeaseElector
from autoscaler.wiring import configure_logging


def main() -> None:
    """Runs until it is killed."""
    kubeconfig, namespace, identity = sys.argv[1:]
    configure_logging()
    elector = LeaseElector(
        KubeClient.connect(Path(kubeconfig)), namespace, "foresize", identity, seconds_since_boot, time.time
    )
    elector.start()
    while True:
        before = seconds_since_boot()
        sys.stdout.write(f"{before:.6f} {int(elector.is_leader)}\n")
        sys.stdout.flush()
        time.sleep(0.05)


if __name__ == "__main__":
    main()
