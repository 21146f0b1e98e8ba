"""What a workload will use: from observed usage to a forecast someone can ask for."""
