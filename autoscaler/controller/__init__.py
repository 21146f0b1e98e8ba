"""The loop: predict, observe, decide, validate, act. Owns the ports; the adapters live in autoscaler/kube."""
