"""Where training cycles are written down: MLflow, or memory."""
