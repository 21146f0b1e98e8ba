"""Amounts as Kubernetes writes them, and back. Values in, values out."""

from typing import Any

from predictor.usage.panel import Resource

MEBIBYTE = 2**20


def amount_text(resource: Resource, value: float) -> str:
    """Cores in millicores, bytes in mebibytes where they are whole; what is not whole is rounded to the nearest."""
    if resource is Resource.CPU:
        return f"{round(value * 1000)}m"
    whole = round(value)
    return f"{whole // MEBIBYTE}Mi" if whole % MEBIBYTE == 0 else str(whole)


def quantity(text: str) -> float:
    """A Kubernetes quantity such as `500m`, `1.5` or `2Gi` in its base unit. Raises ValueError."""
    from kubernetes.utils import quantity as official

    parse: Any = official.parse_quantity  # it has no types
    value = float(parse(text))
    if not 0 <= value < float("inf"):
        raise ValueError(f"{text!r} is not a finite amount of at least 0")
    return value
