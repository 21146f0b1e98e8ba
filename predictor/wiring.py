"""Builds the predictor's objects from settings; the only place that knows both a port and its adapters."""

from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from predictor.api.protection import Protection
    from predictor.api.service import ForecastService
    from predictor.registry.last_good import LastGoodStore
    from predictor.serving.ports import UsageSource
    from predictor.serving.predictor import Predictor
    from predictor.serving.previous import PreviousChampion
    from predictor.settings import PredictorSettings, PrometheusSettings
    from predictor.sources.http import PrometheusEndpoint
    from predictor.sources.promql import ClusterLabels
    from predictor.usage.panel import Resource

ACCURACY_FILE = "accuracy.npz"
CACHE_FOLDER = "cache"
LAST_GOOD_FOLDER = "last_good"
PREVIOUS_FOLDER = "previous"
LEARNED_FOLDER = "learned"


def build_source(settings: "PredictorSettings", history: Path | None = None) -> "UsageSource":
    """The usage table in a file where one is given, else Prometheus with its answers cached in the state folder.

    Raises SourceRefused for a token file that cannot be read.
    """
    if history is not None:
        from predictor.sources.files import FileSource

        return FileSource(history)
    from predictor.sources.prometheus import PrometheusSource

    given = settings.prometheus
    return PrometheusSource(
        build_endpoint(settings),
        labels=cluster_labels(settings),
        scrape_interval_seconds=int(given.scrape_interval.total_seconds()),
        cache_folder=settings.state_folder / CACHE_FOLDER if given.cache else None,
    )


def build_endpoint(settings: "PredictorSettings") -> "PrometheusEndpoint":
    """Where Prometheus is and how to be let in. Raises SourceRefused for a token file that cannot be read."""
    from predictor.sources.http import PrometheusEndpoint

    given = settings.prometheus
    password = given.password.get_secret_value() if given.password is not None else ""
    return PrometheusEndpoint(
        url=given.url,
        timeout_seconds=given.timeout.total_seconds(),
        bearer_token=_bearer_token(given),
        basic_auth=(given.username, password) if given.username is not None else None,
        ca_file=given.ca_file,
        verify=given.verify_tls,
        headers=given.headers,
        max_parallel=given.max_parallel,
        retries=given.retries,
        cache_name=given.cache_name or None,
    )


def cluster_labels(settings: "PredictorSettings") -> "ClusterLabels":
    """What this cluster's metrics are told apart by."""
    from predictor.sources.promql import ClusterLabels

    given = settings.prometheus
    pools = dict.fromkeys((given.node_pool_label, *ClusterLabels().node_pool))
    return ClusterLabels(matchers=given.matchers, node_pool=tuple(pools), namespace=given.namespace_label)


def build_store(settings: "PredictorSettings") -> "LastGoodStore":
    """The MLflow registry, with its last good model kept in the state folder."""
    from predictor.registry.kept import KeptModel
    from predictor.registry.last_good import LastGoodStore
    from predictor.registry.mlflow import MlflowBundleStore

    registry = settings.registry
    inner = MlflowBundleStore(settings.tracking_uri, registry.model_name, registry.timeout)
    return LastGoodStore(inner, KeptModel(settings.state_folder / LAST_GOOD_FOLDER / registry.model_name))


def build_predictor(
    settings: "PredictorSettings",
    source: "UsageSource",
    *,
    levels: Sequence[float] | None = None,
    model: str | None = None,
    stale_after: timedelta | None = None,
    resources: "Collection[Resource] | None" = None,
    peaks_within: timedelta = timedelta(0),
    learns_as: str | None = None,
) -> "Predictor":
    """The predictor over a source, following the registry's alias; what is given stands in for the settings.

    Without `stale_after` history of any age is forecast from. What a service has learned since training is kept in the
    state folder under the name `learns_as`, so that a restart does not lose it; a command that answers once keeps
    nothing. A service's window of usage is appended to at each step where it comes from Prometheus.
    """
    from predictor.registry.kept import KeptModel
    from predictor.serving.ports import QuerySource
    from predictor.serving.predictor import Predictor
    from predictor.sources.prometheus import PrometheusSource
    from predictor.sources.window import UsageWindow
    from predictor.usage.panel import Resource

    store = build_store(settings)
    alias = model or settings.registry.alias
    return Predictor(
        UsageWindow(source) if learns_as and isinstance(source, PrometheusSource) else source,
        store,
        step_seconds=int(settings.history.step.total_seconds()),
        span=settings.history.serving_span,
        horizon=settings.forecast.horizon,
        levels=tuple(levels or settings.forecast.levels),
        stale_after=stale_after or timedelta.max,
        model=alias,
        refresh=settings.registry.refresh,
        last_good=store.last_good,
        resources=resources or tuple(Resource),
        peaks_within=peaks_within,
        threads=settings.serving.threads,
        learned_copy=(
            KeptModel(settings.state_folder / LEARNED_FOLDER / learns_as / settings.registry.model_name)
            if learns_as
            else None
        ),
        query_source=source if isinstance(source, QuerySource) else None,
        previous=None if alias.isdigit() else build_previous(settings, alias, waits=learns_as is None),
    )


def build_previous(settings: "PredictorSettings", alias: str, *, waits: bool) -> "PreviousChampion":
    """Who knows the version before the alias was moved; kept on disk as the champion is, in a place of its own.

    It is asked for beside the cycles, unless there is only one, which `waits`.
    """
    from predictor.registry.kept import KeptModel
    from predictor.registry.last_good import LastGoodStore
    from predictor.registry.mlflow import MlflowBundleStore
    from predictor.serving.ports import StoredBundle, alias_before
    from predictor.serving.previous import PreviousChampion, beside

    registry = settings.registry
    inner = MlflowBundleStore(settings.tracking_uri, registry.model_name, registry.timeout)
    store = LastGoodStore(inner, KeptModel(settings.state_folder / PREVIOUS_FOLDER / registry.model_name))

    def copy() -> StoredBundle | None:
        kept = store.last_good()
        return kept.stored if kept is not None else None

    return PreviousChampion(
        store,
        alias_before(alias),
        step_seconds=int(settings.history.step.total_seconds()),
        refresh_seconds=registry.refresh.total_seconds(),
        copy=copy,
        aside=(lambda work: work()) if waits else beside,
    )


def build_protection(settings: "PredictorSettings") -> "Protection":
    """Who may read the HTTP services. Raises ProtectionFailed for files that cannot be used."""
    from predictor.api.protection import Protection

    given = settings.serving
    return Protection(given.token_file, given.tls_cert_file, given.tls_key_file)


def build_service(
    settings: "PredictorSettings", source: "UsageSource", clock: Callable[[], float], *, keep_scores: bool
) -> "ForecastService":
    """The forecast service over a source; its scores are kept in the state folder where they are to survive."""
    from predictor.api.accuracy_file import AccuracyFile
    from predictor.api.service import ForecastService, restored_tracker
    from predictor.serving.accuracy import followed_horizons

    step = int(settings.history.step.total_seconds())
    horizons = followed_horizons(step, int(settings.forecast.horizon.total_seconds()))
    file = AccuracyFile(settings.state_folder / ACCURACY_FILE) if keep_scores else None
    return ForecastService(
        build_predictor(
            settings,
            source,
            stale_after=settings.serving.stale_after,
            peaks_within=timedelta.max,
            learns_as="service" if keep_scores else None,
        ),
        restored_tracker(file, settings.forecast.levels, horizons, step),
        clock,
        settings.serving.refresh,
        accuracy_file=file,
    )


def _bearer_token(given: "PrometheusSettings") -> str | None:
    from predictor.errors import SourceRefused
    from predictor.settings import checked_token

    if given.bearer_token is not None:
        return given.bearer_token.get_secret_value()
    if given.bearer_token_file is None:
        return None
    named = f"prometheus.bearer_token_file: {given.bearer_token_file}"
    try:
        text = given.bearer_token_file.read_text(encoding="utf-8")
    except UnicodeDecodeError:  # its words tell what the file holds
        raise SourceRefused(f"{named} holds characters that no header may hold") from None
    except OSError as error:
        raise SourceRefused(f"{named}: {error.strerror or error}") from error
    try:
        return checked_token(text)
    except ValueError as flaw:
        raise SourceRefused(f"{named} {flaw}") from None
