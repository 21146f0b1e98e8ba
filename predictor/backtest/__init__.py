"""How good a forecast would have been: rolling cutoffs, and scores against what then happened. Pure."""
