"""Where observed usage comes from: Prometheus, a file, memory. Adapters of `predictor.serving.ports.UsageSource`."""
