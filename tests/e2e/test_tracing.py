"""Traces of the controller's cycles, as a receiver of OTLP gets them."""

from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.support.controlplane import ControlPlane
from tests.support.http_answers import Answer, AnsweringServer, answering, unused_url
from tests.support.live_demand import LiveDemand
from tests.support.running import MUCH, a_scene

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


def spans_of(receiver: AnsweringServer) -> list[Span]:
    """Every span that was sent to it, of the service foresize."""
    found = []
    for asked in receiver.asked:
        assert asked.path == "/v1/traces"
        for sent in ExportTraceServiceRequest.FromString(asked.body).resource_spans:
            names = {each.key: each.value.string_value for each in sent.resource.attributes}
            assert names["service.name"] == "foresize"
            found += [span for scope in sent.scope_spans for span in scope.spans]
    return found


def test_a_cycle_is_a_trace_of_its_steps(control_plane: ControlPlane, demand: LiveDemand, tmp_path: Path) -> None:
    """Each write belongs to the cycle that decided it, says for which workload it was, and is there after SIGTERM."""
    with answering(Answer()) as receiver:
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_BSP_SCHEDULE_DELAY": "600000"}
        with a_scene(control_plane, demand, tmp_path, variables) as scene:
            scene.use(MUCH, "web")
            scene.put("web", maxReplicas=3)
            copy = scene.start()
            scene.until_replicas("web", 3)
            workload = f"{scene.namespace}/Deployment/web"
            assert copy.terminate() == 0

    spans = spans_of(receiver)
    cycles = {span.span_id: span for span in spans if span.name == "cycle"}
    acts = [span for span in spans if span.name == "act"]
    assert acts and all(act.parent_span_id in cycles for act in acts)
    assert {each.value.string_value for act in acts for each in act.attributes if each.key == "workload"} == {workload}
    steps = {span.name for span in spans if span.parent_span_id == acts[0].parent_span_id}
    assert {"observe", "predict", "decide", "validate", "act", "tell"} <= steps


def test_a_receiver_that_is_not_there_holds_nothing_up(
    control_plane: ControlPlane, demand: LiveDemand, tmp_path: Path
) -> None:
    """The copy decides, and ends with success; that traces were lost is in its log."""
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": unused_url(), "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    with a_scene(control_plane, demand, tmp_path, variables) as scene:
        scene.use(MUCH, "web")
        scene.put("web", maxReplicas=3)
        copy = scene.start()
        scene.until_replicas("web", 3)

        assert copy.terminate() == 0
    assert "Failed to export" in copy.log.read_text()
