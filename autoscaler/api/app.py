"""Health, readiness, metrics and the last decisions of a running controller; reads only what its threads left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from autoscaler.controller.records import moment
from autoscaler.controller.selection import find_record
from autoscaler.errors import UnknownNode
from predictor.errors import UnknownWorkload

if TYPE_CHECKING:
    from starlette.requests import Request

    from autoscaler.controller.loop import Controller
    from autoscaler.controller.node_explanation import Looks
    from autoscaler.controller.nodes import NodeControl

STUCK_SECONDS = 1200.0
"""A cycle that takes longer is not slow, it hangs: the longest fetch gives up before."""
MISSED_CYCLES = 3
"""After this many intervals without a snapshot of the cluster the controller is not ready …"""
OLDEST_SNAPSHOT_SECONDS = 120.0
"""… but a short interval alone does not make it so."""


def build_app(controller: Controller, nodes: NodeControl | None = None) -> Starlette:
    """The application over a controller, and what guards nodes, which run in other threads."""

    def healthz(_: Request) -> Response:
        last = controller.last_cycle_seconds
        waiting = controller.clock() - (controller.started_at_seconds if last is None else last)
        if waiting > STUCK_SECONDS:
            return PlainTextResponse(f"no cycle has ended for {waiting:.0f} s\n", 503)
        unguarded = 0.0 if nodes is None else controller.clock() - nodes.last_look_seconds
        if unguarded > STUCK_SECONDS:
            return PlainTextResponse(f"no look at the nodes has ended for {unguarded:.0f} s\n", 503)
        return PlainTextResponse("ok\n")

    def readyz(_: Request) -> Response:
        problem = unready_because(controller)
        return PlainTextResponse(f"{problem}\n", 503) if problem else PlainTextResponse("ok\n")

    def metrics(_: Request) -> Response:
        return Response(generate_latest(controller.metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    def decisions(_: Request) -> Response:
        report = controller.report
        if report is None:
            return _json({"error": "no cycle has seen the cluster yet"}, 503)
        if report.is_standby:
            return _json({"error": _standby(controller)}, 503)
        records = [record.as_json() for record in report.records]
        return _json({"cycle_started_at": moment(report.started_at_seconds), "decisions": records})

    def decision(request: Request) -> Response:
        report = controller.report
        if report is None:
            return _json({"error": "no cycle has seen the cluster yet"}, 503)
        if report.is_standby:
            return _json({"error": _standby(controller)}, 503)
        try:
            return _json(find_record(report.records, request.path_params["workload"]).as_json())
        except UnknownWorkload as error:
            return _json({"error": str(error)}, 404)

    def last_looks() -> Looks | Response:
        if not controller.leadership.is_leader:
            return _json({"error": _standby(controller)}, 503)
        looks = None if nodes is None else nodes.last
        return _json({"error": "no look has seen the nodes yet"}, 503) if looks is None else looks

    def all_nodes(_: Request) -> Response:
        looks = last_looks()
        return looks if isinstance(looks, Response) else _json({"nodes": looks.records()})

    def one_node(request: Request) -> Response:
        looks = last_looks()
        if isinstance(looks, Response):
            return looks
        try:
            return _json(looks.record(request.path_params["name"]))
        except UnknownNode as error:
            return _json({"error": str(error)}, 404)

    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
            Route("/decisions", decisions),
            Route("/decisions/{workload:path}", decision),
            Route("/nodes", all_nodes),
            Route("/nodes/{name}", one_node),
        ]
    )


def unready_because(controller: Controller) -> str:
    """Why the controller is not ready; empty where it is."""
    report = controller.report
    if report is None:
        return "no cycle has seen the whole cluster yet"
    age = controller.clock() - report.started_at_seconds
    limit = max(MISSED_CYCLES * controller.settings.interval.total_seconds(), OLDEST_SNAPSHOT_SECONDS)
    if age > limit:
        return f"the cluster was last seen {age:.0f} s ago"
    if not controller.has_read_usage:
        # A rolling update must not end the copies that have read it before the new ones have.
        problem = None if report.forecasts is None else report.forecasts.source_problem
        return f"usage has not been read yet: {problem}"
    return ""


def _standby(controller: Controller) -> str:
    return f"this copy is on standby and decides nothing; {controller.leadership.holder or 'nobody'} leads"


def _json(content: object, status: int = 200) -> Response:
    return Response(orjson.dumps(content) + b"\n", status, media_type="application/json")
