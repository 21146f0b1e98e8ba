"""Amounts as Kubernetes writes them, and back. Values in, values out."""

from predictor.usage.panel import Resource

MEBIBYTE = 2**20
SUFFIXES = {"m": 1e-3, "Mi": float(MEBIBYTE), "": 1.0}
"""Those that `amount_text` writes."""


def amount_text(resource: Resource, value: float) -> str:
    """Cores in millicores, bytes in mebibytes where they are whole; what is not whole is rounded to the nearest."""
    if resource is Resource.CPU:
        return f"{round(value * 1000)}m"
    whole = round(value)
    return f"{whole // MEBIBYTE}Mi" if whole % MEBIBYTE == 0 else str(whole)


def amount_of(text: str) -> float:
    """What `amount_text` wrote, in base units. Raises ValueError."""
    number = text.rstrip("Mim")
    return float(number) * SUFFIXES[text[len(number) :]]
