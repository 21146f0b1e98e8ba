"""A cluster to try everything on: a seeded history in the metrics real clusters have, in a real local Prometheus."""
