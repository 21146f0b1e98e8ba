"""The order of the steps, and nothing else: sources, stores and trackers are handed in."""
