"""Traces of the controller's cycles, each step a span, sent by OTLP over HTTP.

On where the environment names a receiver by OpenTelemetry's own variables (OTEL_EXPORTER_OTLP_ENDPOINT, or
OTEL_EXPORTER_OTLP_TRACES_ENDPOINT), which also give headers, certificates and the sampler. Elsewhere a span is nothing.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace

RECEIVER_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
SERVICE = "foresize"

span = trace.get_tracer(SERVICE).start_as_current_span
"""A span around what is done within it; what it raises is recorded."""


@contextmanager
def exported(environment: Mapping[str, str] = os.environ) -> Iterator[None]:
    """Sends the spans of everything within, where the environment names a receiver; the last ones before it ends.

    A receiver that does not answer is logged by OpenTelemetry, and holds nothing up but the end, by seconds.
    """
    if not any(environment.get(name) for name in RECEIVER_VARIABLES):
        yield
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = Resource({"service.name": SERVICE}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=named)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        provider.shutdown()
