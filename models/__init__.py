"""How usage could continue: quantile forecasters over plain arrays.

Knows arrays and nothing else: no workload names, no clock, no IO. Everything here is deterministic given its
arguments; a source of randomness is a `numpy.random.Generator` handed in.
"""
