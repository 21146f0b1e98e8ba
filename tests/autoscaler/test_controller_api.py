"""What a running controller answers over HTTP, and how `explain` words it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from autoscaler.api.app import build_app
from autoscaler.api.server import AddressInUse, start_server
from autoscaler.cli import explain
from autoscaler.controller.autoscalers import Mode
from autoscaler.controller.explanation import amount, explanation
from autoscaler.controller.loop import Controller
from autoscaler.errors import ControllerUnreachable
from autoscaler.settings import AutoscalerSettings, ScalingSettings
from tests.support.http_answers import unused_url
from tests.support.scaling import CART, NOON_SECONDS, ScalingParts, a_target, an_autoscaler, noon_rush
from tests.support.serving import ManualClock

DB = "shop/StatefulSet/db"


def parts_before_the_rush() -> ScalingParts:
    """A workload that is about to rise and only observed, and an object that cannot be followed."""
    return ScalingParts(
        targets=(a_target(), a_target(DB)),
        autoscalers=(an_autoscaler(mode=Mode.OBSERVE), an_autoscaler(DB, problem="spec cannot be followed: no mode")),
        clock=ManualClock(NOON_SECONDS + 60.0),
    )


def after_a_cycle(parts: ScalingParts | None = None) -> tuple[Controller, TestClient]:
    controller = (parts or parts_before_the_rush()).controller()
    controller.cycle()
    return controller, TestClient(build_app(controller))


def settings(_: Mapping[tuple[str, ...], Any]) -> AutoscalerSettings:
    return AutoscalerSettings()


def test_ready_means_that_the_cluster_was_seen_lately() -> None:
    """Not before the first snapshot, and no longer once the API server has been gone for a while; alive throughout."""
    parts = parts_before_the_rush()
    controller = parts.controller()
    client = TestClient(build_app(controller))
    assert client.get("/readyz").status_code == 503
    assert client.get("/decisions").status_code == 503

    controller.cycle()
    assert (client.get("/readyz").status_code, client.get("/healthz").text) == (200, "ok\n")

    parts.cluster.is_reachable = False
    parts.clock.now += 121
    controller.cycle()
    answer = client.get("/readyz")
    assert (answer.status_code, answer.text) == (503, "the cluster was last seen 121 s ago\n")
    assert client.get("/healthz").status_code == 200


def test_ready_means_that_usage_was_read_once() -> None:
    """A rolling update waits for the new copies' windows; a Prometheus that goes later makes nobody unready."""
    parts = parts_before_the_rush()
    parts.source.is_down = True
    controller, client = after_a_cycle(parts)
    answer = client.get("/readyz")
    assert (answer.status_code, answer.text) == (
        503,
        "usage has not been read yet: http://prometheus:9090 did not answer within 60 s\n",
    )

    parts.source.is_down = False
    parts.clock.now += 300
    controller.cycle()
    assert client.get("/readyz").status_code == 200

    parts.source.is_down = True
    parts.clock.now += 300
    controller.cycle()
    assert client.get("/readyz").status_code == 200


def test_a_loop_that_hangs_is_not_healthy() -> None:
    """No cycle has ended for longer than the longest fetch may take."""
    parts = parts_before_the_rush()
    _, client = after_a_cycle(parts)

    parts.clock.now += 1300

    assert client.get("/healthz").status_code == 503


def test_metrics_hold_the_last_cycle() -> None:
    """Replicas, demand, the forecast that was used with its level, the hold with its reason, the model."""
    controller, client = after_a_cycle()

    families = text_string_to_metric_families(client.get("/metrics").text)
    samples = {(s.name, tuple(sorted(s.labels.items()))): s.value for f in families for s in f.samples}

    of_cart = (("namespace", "shop"), ("workload", CART))
    used = (("namespace", "shop"), ("resource", "cpu"), ("workload", CART))
    desired = controller.report and controller.report.records[0].plan.decision.desired
    assert samples["foresize_current_replicas", of_cart] == 3
    assert samples["foresize_desired_replicas", of_cart] == desired
    assert samples["foresize_demand_observed", used] == pytest.approx(2.0)
    assert samples["foresize_demand_forecast", (("level", "0.99"), *used)] == pytest.approx(5.6)
    assert samples["foresize_holds", (("reason", "InvalidSpec"),)] == 1
    assert samples["foresize_model_info", (("origin", "registry"), ("version", "1"))] == 1
    assert samples["foresize_managed_workloads", ()] == 2


def test_a_workload_that_is_gone_leaves_no_series() -> None:
    """The next scrape does not know it any more."""
    parts = parts_before_the_rush()
    controller, client = after_a_cycle(parts)

    parts.cluster.remove(f"object of {DB}")
    controller.cycle()

    assert DB not in client.get("/metrics").text


def test_a_decision_can_be_asked_for_by_name() -> None:
    """By short and full name; an unknown one gets the nearest."""
    _, client = after_a_cycle()

    short, full = client.get("/decisions/shop/cart").json(), client.get(f"/decisions/{CART}").json()
    unknown = client.get("/decisions/shop/card")

    assert short == full
    assert (short["decision"], short["outcome"], short["replicas"]["current"]) == ("scale_up", "observed", 3)
    assert unknown.status_code == 404
    assert f"did you mean {CART}" in unknown.json()["error"]
    assert [d["workload"] for d in client.get("/decisions").json()["decisions"]] == [CART, DB]


def test_an_explanation_shows_the_whole_way_to_the_number() -> None:
    """Observation, forecast, model, capacity, arithmetic, guardrails, bounds, reason and outcome."""
    _, client = after_a_cycle(
        ScalingParts(autoscalers=(an_autoscaler(max_replicas=5),), clock=ManualClock(NOON_SECONDS + 60.0))
    )

    lines = explanation(client.get("/decisions/shop/cart").json()).splitlines()

    assert lines[0] == f"{CART}: raise 3 -> 5 replicas"
    assert lines[2:] == [
        "  observed     2 cores, 60 s ago",
        "  forecast     5.6 cores: peak from 2025-10-18T12:00:00Z to 2025-10-18T12:11:00Z at quantile level 0.99, "
        "by seasonal_naive",
        "  because      a test's",
        "  model        model version 1, confirmed by the registry 0 s ago, trained on data until 2025-10-17T00:00:00Z",
        "  capacity     0.9 cores per replica (request of 1 × target utilisation 0.9)",
        "  arithmetic   ceil(forecast 5.6 / 0.9) = 7",
        "  guardrails   TooManyReplicas: 7 replicas wanted, the maximum is 5",
        "  bounds       1 to 5 replicas",
        "  lead time    10 min (scaling.lead_time, as only 0 pods were seen)",
        "  level        0.99 (scaling.sla_percentile)",
        "  budget       100.0% left, violated 0 times as often as allowed lately",
        "               level 0.99, as stated",
        f"  reason       {lines[14].removeprefix('  reason       ')}",
        "  outcome      carried out",
        "  decided      2025-10-18T12:01:00Z with 3 of 3 replicas ready",
        "  asked by     PredictiveAutoscaler shop/cart, mode Auto, actuator Scale",
    ]
    assert "ForecastPeak" in lines[14]


def test_an_explanation_without_a_forecast_shows_the_capacity_it_relied_on() -> None:
    """Reactive: the arithmetic that is shown gives the number that was decided."""
    parts = ScalingParts(
        usage_by_workload={CART: noon_rush(5.0, 5.0)},
        targets=(a_target(replicas=5),),
        settings=ScalingSettings(lead_time="9h", longest_lead_time="9h"),
    )
    _, client = after_a_cycle(parts)
    record = client.get("/decisions/shop/cart").json()

    text = explanation(record)

    assert record["rung"] == "reactive"
    assert record["replicas"]["desired"] == 8
    assert "raise forecast.horizon" in text
    assert "0.7 cores per replica (request of 1 × target utilisation 0.9, × 0.778 as nothing is forecast)" in text
    assert "ceil(observed 5 / 0.7) = 8" in text


def test_an_explanation_of_a_hold_says_what_is_missing() -> None:
    """An object that cannot be followed and a source that is gone: no number is made up."""
    parts = parts_before_the_rush()
    parts.source.is_down = True
    _, client = after_a_cycle(parts)

    blind, unreadable = (explanation(client.get(f"/decisions/{name}").json()) for name in (CART, DB))

    assert f"{CART}: hold at 3 replicas" in blind
    assert "observed     none: usage could not be read: http://prometheus:9090 did not answer" in blind
    assert "arithmetic   none: without demand and capacity the number stays" in blind
    assert "InvalidSpec: spec cannot be followed: no mode" in unreadable


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(0.25, "cores", "0.25 cores"), (3 * 2**30, "bytes", "3 GiB"), (12.0, "bytes", "12 bytes")],
)
def test_amounts_are_short(value: float, unit: str, text: str) -> None:
    """Bytes with a binary prefix, all else as it is."""
    assert amount(value, unit) == text


@pytest.fixture
def address() -> Iterator[str]:
    """A controller that serves."""
    controller, _ = after_a_cycle()
    server = start_server(build_app(controller), "127.0.0.1", 0)
    yield server.address
    server.stop()


def test_explain_asks_a_running_controller(address: str) -> None:
    """In words or as JSON; what it does not know is an error with the nearest names."""
    runner = CliRunner()

    words = runner.invoke(explain, ["shop/cart", "--url", address], obj=settings)
    data = runner.invoke(explain, ["shop/cart", "--url", f"{address}/", "--json"], obj=settings)
    unknown = runner.invoke(explain, ["shop/card", "--url", address], obj=settings)

    assert (words.exit_code, data.exit_code, unknown.exit_code) == (0, 0, 1)
    assert words.output.startswith(f"{CART}: raise 3 -> ")
    assert json.loads(data.output)["workload"] == CART
    assert f"did you mean {CART}" in unknown.output


def test_explain_says_when_nobody_answers() -> None:
    """The address, and what it should be."""
    result = CliRunner().invoke(explain, ["shop/cart", "--url", unused_url()], obj=settings)

    assert isinstance(result.exception, ControllerUnreachable)
    assert "is it that of a `foresize run`?" in str(result.exception)


@pytest.mark.parametrize(
    ("content", "flaw"),
    [
        ("-----BEGIN KEY-----\ns3cret\n-----END KEY-----\n", "holds more than one line"),
        ("s3crét", "holds characters that no header may hold"),
        ("", "is empty"),
        (None, "No such file"),
    ],
)
def test_explain_sends_no_file_that_holds_no_token(
    address: str, tmp_path: Path, content: str | None, flaw: str
) -> None:
    """A private key that was named by mistake is neither sent nor shown."""
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)

    result = CliRunner().invoke(
        explain, ["shop/cart", "--url", address, "--token-file", str(file)], obj=settings, terminal_width=300
    )

    assert result.exit_code == 2
    assert flaw in result.output
    assert "s3cr" not in result.output


def test_a_port_that_is_taken_is_refused_at_the_start(address: str) -> None:
    """The address and what to choose."""
    controller, _ = after_a_cycle()
    port = int(address.rpartition(":")[2])

    with pytest.raises(
        AddressInUse, match=f"cannot listen on 127.0.0.1:{port}: Address already in use; choose another"
    ):
        start_server(build_app(controller), "127.0.0.1", port)
