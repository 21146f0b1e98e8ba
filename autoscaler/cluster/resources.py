"""An amount of each resource, in base units."""

from dataclasses import dataclass
from typing import Self

from predictor.usage.panel import Resource


@dataclass(frozen=True, slots=True)
class Resources:
    """An amount of each resource that Kubernetes can request; requests per second are demand, not a resource."""

    cpu_cores: float = 0.0
    memory_bytes: float = 0.0
    gpu_devices: float = 0.0
    gpu_memory_bytes: float = 0.0

    def amount(self, resource: Resource) -> float:
        """How much of one resource; 0 for `requests`, which nobody reserves."""
        if resource is Resource.CPU:
            return self.cpu_cores
        if resource is Resource.MEMORY:
            return self.memory_bytes
        if resource is Resource.GPU:
            return self.gpu_devices
        if resource is Resource.GPU_MEMORY:
            return self.gpu_memory_bytes
        return 0.0

    def __add__(self, other: Self) -> Self:
        return type(self)(
            self.cpu_cores + other.cpu_cores,
            self.memory_bytes + other.memory_bytes,
            self.gpu_devices + other.gpu_devices,
            self.gpu_memory_bytes + other.gpu_memory_bytes,
        )

    def __mul__(self, factor: float) -> Self:
        return type(self)(
            self.cpu_cores * factor,
            self.memory_bytes * factor,
            self.gpu_devices * factor,
            self.gpu_memory_bytes * factor,
        )
