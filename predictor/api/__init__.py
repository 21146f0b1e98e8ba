"""The forecast service's entry: HTTP forecasts, health and metrics, and the thread that keeps them up to date."""
