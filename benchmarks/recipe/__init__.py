"""The best recipe of an earlier prototype, made anew as a peer: a mixture of windows, analogs, LightGBM on top."""
