"""The predictor's settings: where usage comes from, on which grid, and where models are kept.

Sections are frozen pydantic models; each field's docstring gives its meaning and unit and ends up in
docs/settings.md. The packages above extend `PredictorSettings` with sections of their own, so the whole
configuration is one object that every package sees as its own settings.
"""

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, SecretStr, field_validator

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_UNIT_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def parse_duration(value: Any) -> Any:
    """Prometheus-style text such as `90s`, `5m` or `1h30m` as a timedelta; a timedelta is left alone.

    Raises ValueError for anything else: a bare number has no unit.
    """
    if isinstance(value, timedelta):
        return value
    text = str(value).strip()
    parts = _DURATION.findall(text)
    if not parts or "".join(a + b for a, b in parts) != text:
        raise ValueError(f"{text!r} is not a duration; write for example 30s, 5m, 1h30m or 7d")
    return timedelta(seconds=sum(float(amount) * _UNIT_SECONDS[unit] for amount, unit in parts))


def duration_text(value: timedelta) -> str:
    """The shortest text that `parse_duration` reads back."""
    seconds = value.total_seconds()
    for unit in ("w", "d", "h", "m"):
        if seconds and seconds % _UNIT_SECONDS[unit] == 0:
            return f"{int(seconds / _UNIT_SECONDS[unit])}{unit}"
    return f"{seconds:g}s"


def _positive(value: timedelta) -> timedelta:
    if value.total_seconds() <= 0:
        raise ValueError("must be longer than 0s")
    return value


AnyDuration = Annotated[
    timedelta, BeforeValidator(parse_duration), PlainSerializer(duration_text, return_type=str, when_used="json")
]
"""A span of time, written as `30s`, `5m`, `1h30m`, `7d`; may be zero."""
Duration = Annotated[AnyDuration, BeforeValidator(lambda v: _positive(parse_duration(v)))]
"""A span of time longer than zero."""
QuantileLevel = Annotated[float, Field(gt=0, lt=1)]


def _listed(value: Any) -> Any:
    """A text such as `a, b` as its parts; anything else is left alone."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


Listed = BeforeValidator(_listed)
"""Lets a list be written as text with commas, as variables and options have it."""

_NAME_OF_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE_OF_HEADER = re.compile(r"[\t\x20-\x7e]*")


def header_flaw(value: str) -> str:
    """Why a text cannot be sent in an HTTP header; empty where it can. Never tells the text, as it may be a secret.

    A client library that finds out by itself puts the whole header into its error, and that into logs.
    """
    if re.search(r"[\r\n]", value):
        return "holds more than one line"
    return "" if _VALUE_OF_HEADER.fullmatch(value) else "holds characters that no header may hold"


def checked_token(text: str) -> str:
    """A bearer token without the blanks and line breaks around it. Raises ValueError, without the token."""
    token = text.strip()
    if flaw := header_flaw(token) or ("" if token else "is empty"):
        raise ValueError(flaw)
    return token


def checked_header(name: str, value: str) -> str:
    """A header's value without the blanks around it, which do not count. Raises ValueError, without the value."""
    if not _NAME_OF_HEADER.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of a header")
    if flaw := header_flaw(value.strip()):
        raise ValueError(f"the value of {name} {flaw}")
    return value.strip()


class Section(BaseModel):
    """Base of every settings section: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)


class PrometheusSettings(Section):
    """Where usage is read from."""

    url: str = "http://127.0.0.1:9090"
    """Base address of Prometheus, Thanos, Mimir or VictoriaMetrics."""
    timeout: Duration = timedelta(seconds=60)
    """How long one query may take."""
    retries: int = Field(default=3, ge=0, le=10)
    """How often a query is tried again after a connection error, a 429 or a 5xx."""
    max_parallel: int = Field(default=4, ge=1, le=64)
    """How many queries run at once."""
    bearer_token: SecretStr | None = None
    """Token sent as `Authorization: Bearer …`."""
    bearer_token_file: Path | None = None
    """File that holds the token; read at every start, as Kubernetes rotates it."""
    username: str | None = None
    """User for basic authentication."""
    password: SecretStr | None = None
    """Password for basic authentication."""
    ca_file: Path | None = None
    """Certificate authority to trust, in PEM."""
    verify_tls: bool = True
    """Whether the server's certificate is checked."""
    headers: dict[str, str] = {}
    """Headers to add to every request, for example `X-Scope-OrgID` for Mimir."""
    matchers: dict[str, str] = {}
    """Label values that every selected series must have, for example `cluster: prod-eu`."""
    namespace_label: str = Field(default="namespace", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """Label that names the namespace of a series; queries that objects give are held to their own by it."""
    node_pool_label: str = "label_node_pool"
    """Label of `kube_node_labels` that names a node's pool."""
    scrape_interval: Duration = timedelta(seconds=60)
    """How often the cluster's metrics are scraped; rates look back over one step, or two scrapes if that is longer."""
    cache: bool = True
    """Whether complete days are kept on disk, so that a retrain fetches only what is new."""
    cache_name: str = ""
    """What the kept days belong to where the address changes, as behind a port-forward; empty: the address."""

    @field_validator("url")
    @classmethod
    def _http(cls, value: str) -> str:
        if not re.match(r"https?://[^/\s]+", value):
            raise ValueError(f"{value.rpartition('@')[2]!r} is not an address; it starts with http:// or https://")
        return value.rstrip("/")

    @field_validator("bearer_token")
    @classmethod
    def _token(cls, value: SecretStr | None) -> SecretStr | None:
        return value if value is None else SecretStr(checked_token(value.get_secret_value()))

    @field_validator("username", "password")
    @classmethod
    def _login(cls, value: str | SecretStr | None) -> str | SecretStr | None:
        text = value.get_secret_value() if isinstance(value, SecretStr) else value or ""
        # Sent in base64, so letters of any language are fine.
        if re.search(r"[\x00-\x1f\x7f]", text):
            raise ValueError("holds more than one line" if re.search(r"[\r\n]", text) else "holds control characters")
        return value

    @field_validator("headers")
    @classmethod
    def _sendable(cls, value: dict[str, str]) -> dict[str, str]:
        return {name: checked_header(name, text) for name, text in value.items()}


class HistorySettings(Section):
    """The grid on which usage is observed and forecast."""

    step: Duration = timedelta(minutes=5)
    """Spacing of samples and of forecast steps."""
    span: Duration = timedelta(days=35)
    """How much past is read for training."""
    serving_span: Duration = timedelta(days=28)
    """How much past is read before a forecast: the more, the more often what happens now has happened before."""


class ForecastSettings(Section):
    """What is forecast."""

    horizon: Duration = timedelta(hours=4)
    """How far ahead."""
    levels: Annotated[tuple[QuantileLevel, ...], Listed] = (0.5, 0.9, 0.95, 0.99)
    """Quantile levels, ascending."""
    peaks: Annotated[tuple[Duration, ...], Listed] = (timedelta(minutes=15), timedelta(hours=1), timedelta(days=1))
    """Windows whose highest usage is forecast as such; scaling uses the shortest that covers its lead time."""

    @field_validator("peaks")
    @classmethod
    def _shortest_first(cls, value: tuple[timedelta, ...]) -> tuple[timedelta, ...]:
        return tuple(sorted(set(value)))

    @field_validator("levels")
    @classmethod
    def _ascending(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value or list(value) != sorted(set(value)):
            raise ValueError("levels must ascend without repeats, for example [0.5, 0.9, 0.99]")
        return value


class RegistrySettings(Section):
    """Where fitted models are tracked and kept."""

    tracking_uri: str = ""
    """MLflow server, or empty for an SQLite file in the state folder (which only the pipelines profile opens)."""
    experiment: str = "foresize"
    """MLflow experiment that training runs are logged to."""
    model_name: str = "foresize"
    """Registered model that bundles are versions of."""
    alias: str = "champion"
    """Alias of the version that serves; the version before it has the same with `-before`."""
    refresh: Duration = timedelta(minutes=5)
    """How often the controller asks whether the alias has moved."""
    timeout: Duration = timedelta(seconds=10)
    """How long the registry may take to answer before the last good model is used."""


class ServingSettings(Section):
    """The HTTP services of `foresize serve` and `foresize run`."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=8080, ge=0, le=65_535)
    """Port of `foresize serve`; 0 takes a free one."""
    token_file: Path | None = None
    """File with the token that all but `/healthz` and `/readyz` ask for; read again when it changes."""
    tls_cert_file: Path | None = None
    """Certificate chain in PEM with which the services speak HTTPS; read again when it changes."""
    tls_key_file: Path | None = None
    """Its private key."""
    refresh: Duration = timedelta(minutes=1)
    """How often forecasts and their realised accuracy are brought up to date."""
    threads: int = Field(default=2, ge=1)
    """Threads that forecast and learn while serving, in the controller as well; each takes some of the series."""
    stale_after: Duration = timedelta(minutes=15)
    """A workload whose newest sample is older than this gets no forecast, and `/readyz` fails when all are."""


class PredictorSettings(Section):
    """Everything the predictor is configured by."""

    state_folder: Path = Path(".foresize")
    """Folder for the cache, the last good model and the local MLflow store."""
    prometheus: PrometheusSettings = PrometheusSettings()
    history: HistorySettings = HistorySettings()
    forecast: ForecastSettings = ForecastSettings()
    registry: RegistrySettings = RegistrySettings()
    serving: ServingSettings = ServingSettings()

    @property
    def tracking_uri(self) -> str:
        """The MLflow store in force."""
        return self.registry.tracking_uri or f"sqlite:///{(self.state_folder / 'mlflow.db').resolve()}"
