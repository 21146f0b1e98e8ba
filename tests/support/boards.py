"""The dashboards and rules as data: every query with the place it stands in, and every metric name there is."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from autoscaler.metrics import AutoscalerMetrics, WebhookMetrics
from predictor import metrics as predictor_metrics
from predictor.metrics import Family, PredictorMetrics

ROOT = Path(__file__).resolve().parents[2]
BOARDS = tuple(sorted((ROOT / "dashboards" / "grafana").glob("*.json")))
RULES = ROOT / "dashboards" / "alerts" / "foresize-rules.yaml"
RUNBOOK = ROOT / "docs" / "runbook.md"
_NAME = re.compile(r"\bforesize[_:][a-z0-9_:]+")
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


@dataclass(frozen=True, slots=True)
class PanelQuery:
    """One query of one panel."""

    board: str
    panel: str
    expression: str

    def __str__(self) -> str:
        return f"{self.board} / {self.panel}: {self.expression}"

    def with_variables(self, values: Mapping[str, str]) -> str:
        """The query as Grafana sends it. Raises KeyError for a variable without a value."""
        return _VARIABLE.sub(lambda match: values[match[1] or match[2]], self.expression)


def board(path: Path) -> dict[str, Any]:
    """One dashboard."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def panel_queries() -> Iterator[PanelQuery]:
    """Every query of every panel of every dashboard."""
    for path in BOARDS:
        content = board(path)
        for panel in content["panels"]:
            for target in panel.get("targets", []):
                yield PanelQuery(content["title"], panel["title"], target["expr"])


def variable_queries() -> Iterator[tuple[str, str, str]]:
    """Dashboard, metric and label of every variable that is filled from a metric."""
    for path in BOARDS:
        content = board(path)
        for variable in content["templating"]["list"]:
            if variable["type"] == "query":
                found = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["definition"])
                assert found is not None, f"{content['title']}: {variable['definition']}"
                yield content["title"], found[1], found[2]


def rules() -> list[dict[str, Any]]:
    """Every recording and alert rule."""
    content = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    return [rule for group in content["groups"] for rule in group["rules"]]


def names_in(text: str) -> set[str]:
    """The metrics and recording rules that an expression mentions."""
    return set(_NAME.findall(text))


def known_names() -> set[str]:
    """Every name that a query may use: the services' metrics and the recording rules."""
    names = {rule["record"] for rule in rules() if "record" in rule}
    names |= {family.name for family in vars(predictor_metrics).values() if isinstance(family, Family)}
    for registry in (PredictorMetrics().registry, AutoscalerMetrics().registry, WebhookMetrics().registry):
        for metric in registry.collect():
            endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(metric.type, ("",))
            names |= {metric.name + ending for ending in endings}
    return names
