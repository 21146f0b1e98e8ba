"""From a question ("what will this workload use?") to a forecast with its reason. Asks ports; no IO of its own."""
