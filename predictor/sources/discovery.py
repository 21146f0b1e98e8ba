"""What a Prometheus has at all: for error messages and `foresize doctor`. Not for data.

The questions go through `prometheus-api-client`, with a timeout and without its retries.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from predictor.errors import SourceRefused, SourceUnavailable
from predictor.sources.http import PrometheusEndpoint
from predictor.sources.promql import selector

LONGEST_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class MetricsFound:
    """Which of the metrics asked for have a series in the time asked for."""

    present: tuple[str, ...]
    missing: tuple[str, ...]


def find_metrics(
    endpoint: PrometheusEndpoint,
    names: Collection[str],
    *,
    start_seconds: int,
    end_seconds: int,
    matchers: Mapping[str, str] | None = None,
) -> MetricsFound:
    """Which of the metrics exist between start and end. Raises SourceUnavailable or SourceRefused."""
    import requests
    from prometheus_api_client import PrometheusConnect
    from prometheus_api_client.exceptions import PrometheusApiClientException
    from urllib3 import Retry

    with requests.Session() as session:
        session.verify = str(endpoint.ca_file) if endpoint.verify and endpoint.ca_file else endpoint.verify
        session.trust_env = not endpoint.is_loopback
        prometheus = PrometheusConnect(
            url=endpoint.shown_url,
            headers=endpoint.request_headers(),
            auth=endpoint.credentials,
            session=session,
            retry=Retry(total=0),
            timeout=min(endpoint.timeout_seconds, LONGEST_SECONDS),
        )
        query = {
            "match[]": selector("", f'__name__=~"{"|".join(sorted(names))}"', matchers=matchers or {}),
            "start": datetime.fromtimestamp(start_seconds, tz=UTC).isoformat(),
            "end": datetime.fromtimestamp(end_seconds, tz=UTC).isoformat(),
        }
        try:
            found = {str(name) for name in prometheus.all_metrics(params=query)}
        except PrometheusApiClientException as error:
            said = endpoint.without_secrets(str(error))[:300]
            raise SourceRefused(f"Prometheus at {endpoint.shown_url} refused to list its metrics: {said}") from error
        except (requests.RequestException, KeyError, TypeError, ValueError) as error:
            reason = endpoint.without_secrets(str(error)) or type(error).__name__
            raise SourceUnavailable(f"Prometheus at {endpoint.shown_url} cannot list its metrics: {reason}") from error
    return MetricsFound(
        tuple(name for name in names if name in found), tuple(name for name in names if name not in found)
    )
