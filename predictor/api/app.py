"""The HTTP face of the forecast service."""

from typing import Any

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from predictor.api.service import ForecastService
from predictor.errors import UnknownWorkload
from predictor.metrics import PredictorMetrics
from predictor.serving.bundle import NoForecast
from predictor.serving.forecasts import Forecasts, ServedForecast
from predictor.usage.panel import Resource, SeriesKey

UNITS = {
    Resource.CPU: "cores",
    Resource.MEMORY: "bytes",
    Resource.GPU: "devices",
    Resource.GPU_MEMORY: "bytes",
    Resource.REQUESTS: "requests per second",
    Resource.CUSTOM: "as the query says",
}
INDEX = """foresize forecast service

GET /v1/workloads                                          what is forecast, by which forecaster
GET /v1/forecasts?workload=NAMESPACE/KIND/NAME&resource=cpu[&level=0.99]
                                                           quantiles of usage for each coming step
GET /metrics                                               for Prometheus
GET /healthz                                               the process answers
GET /readyz                                                a model is loaded and the data are fresh
"""


class Refusal(Exception):
    """A request that has no answer: the status and what the caller should know."""

    def __init__(self, status: int, message: str, **details: Any) -> None:
        super().__init__(message)
        self.status = status
        self.details = details


def build_app(service: ForecastService) -> ASGIApp:
    """The routes over one service; every request is counted by route and status."""

    def index(_: Request) -> Response:
        return PlainTextResponse(INDEX)

    def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    def readyz(_: Request) -> Response:
        readiness = service.readiness()
        text = "ready\n" if readiness.is_ready else "not ready\n" + "".join(f"- {p}\n" for p in readiness.problems)
        return PlainTextResponse(text, 200 if readiness.is_ready else 503)

    async def exposition(_: Request) -> Response:
        return Response(
            await run_in_threadpool(generate_latest, service.metrics.registry), media_type=CONTENT_TYPE_LATEST
        )

    def workloads(_: Request) -> Response:
        return _json({"workloads": _workloads(_answer(service))})

    def forecasts(request: Request) -> Response:
        answer = _answer(service)
        resource = _resource(request)
        name = request.query_params.get("workload", "")
        if not name:
            raise Refusal(400, "name a workload, for example ?workload=shop/Deployment/cart&resource=cpu")
        try:
            key = answer.named(name, resource)
        except UnknownWorkload as error:
            raise Refusal(404, str(error)) from None
        served = answer.of(key)
        if isinstance(served, NoForecast):
            raise Refusal(503, served.reason, workload=key.workload, resource=resource.value)
        return _json(_forecast(served, _levels(request, served), answer))

    def refused(_: Request, refusal: Exception) -> Response:
        assert isinstance(refusal, Refusal)
        return _json({"error": str(refusal), **refusal.details}, refusal.status)

    routes = [
        Route("/", index),
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/metrics", exposition),
        Route("/v1/workloads", workloads),
        Route("/v1/forecasts", forecasts),
    ]
    app = Starlette(routes=routes, exception_handlers={Refusal: refused})
    return _Counted(app, service.metrics, {route.path for route in routes})


class _Counted:
    """Counts answers; paths that are no route are one, so that a scanner cannot make time series."""

    def __init__(self, app: ASGIApp, metrics: PredictorMetrics, routes: set[str]) -> None:
        self._app, self._metrics, self._routes = app, metrics, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = scope["path"] if scope["path"] in self._routes else "other"
                self._metrics.requests.labels(route, str(message["status"])).inc()
            await send(message)

        await self._app(scope, receive, counted if scope["type"] == "http" else send)


def _answer(service: ForecastService) -> Forecasts:
    answer = service.answer
    if answer is None:
        raise Refusal(503, "no forecasts yet: " + "; ".join(service.readiness().problems))
    return answer


def _resource(request: Request) -> Resource:
    text = request.query_params.get("resource", "")
    try:
        return Resource(text)
    except ValueError:
        accepted = ", ".join(r.value for r in Resource)
        raise Refusal(400, f"resource={text!r} is not known; accepted: {accepted}") from None


def _levels(request: Request, served: ServedForecast) -> tuple[float, ...]:
    wanted = request.query_params.getlist("level")
    if not wanted:
        return served.series.levels
    by_text = {f"{level:g}": level for level in served.series.levels}
    for text in wanted:
        if text not in by_text:
            raise Refusal(400, f"level={text!r} is not forecast; accepted: {', '.join(by_text)}")
    return tuple(by_text[text] for text in wanted)


def _forecast(served: ServedForecast, levels: tuple[float, ...], answer: Forecasts) -> dict[str, Any]:
    series = served.series
    steps = series.values.shape[1]
    return {
        "workload": series.key.workload,
        "resource": series.key.resource.value,
        "unit": UNITS[series.key.resource],
        "cutoff_seconds": series.cutoff_seconds,
        "step_seconds": series.step_seconds,
        "data_age_seconds": max(0, answer.now_seconds - served.known_until_seconds),
        "forecaster": series.served.forecaster,
        "is_cold": series.served.is_cold,
        "reason": served.reason,
        "model": {"version": served.model.version, "origin": served.model.origin.value},
        "times_seconds": [series.cutoff_seconds + h * series.step_seconds for h in range(1, steps + 1)],
        "quantiles": [{"level": level, "values": series.at(level).tolist()} for level in levels],
        "peaks": [
            {
                "window_seconds": peak.target.steps * peak.step_seconds,
                "quantiles": [{"level": level, "value": float(peak.at(level)[0])} for level in levels],
            }
            for peak in served.peaks
        ],
    }


def _workloads(answer: Forecasts) -> list[dict[str, Any]]:
    resources_by_name: dict[str, dict[str, Any]] = {}
    for key in answer.keys:
        resources_by_name.setdefault(key.workload, {})[key.resource.value] = _outcome(answer, key)
    return [{"workload": name, "resources": resources} for name, resources in sorted(resources_by_name.items())]


def _outcome(answer: Forecasts, key: SeriesKey) -> dict[str, Any]:
    served = answer.of(key)
    if isinstance(served, NoForecast):
        return {"forecaster": "none", "reason": served.reason}
    how = served.series.served
    return {"forecaster": how.forecaster, "is_cold": how.is_cold, "reason": served.reason}


def _json(body: dict[str, Any], status: int = 200) -> Response:
    return Response(orjson.dumps(body), status, media_type="application/json")
