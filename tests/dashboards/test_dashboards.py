"""The dashboards and rules speak of metrics that exist, in a form that Grafana and Prometheus accept."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.demo.local_prometheus import find_prometheus
from tests.support.boards import (
    BOARDS,
    RULES,
    RUNBOOK,
    board,
    known_names,
    names_in,
    panel_queries,
    rules,
    variable_queries,
)

RULE_TESTS = Path(__file__).with_name("rules_test.yaml")
ALERTS = [rule for rule in rules() if "alert" in rule]


def test_there_is_a_dashboard_for_each_question() -> None:
    """Accuracy, autoscaling and oversubscription; each with its own address in Grafana."""
    boards = [board(path) for path in BOARDS]

    assert [b["uid"] for b in boards] == ["foresize-autoscaling", "foresize-accuracy", "foresize-oversubscription"]
    assert all(b["schemaVersion"] >= 39 for b in boards)


def test_every_query_uses_metrics_that_exist() -> None:
    """A renamed metric cannot leave an empty panel, a silent alert or an empty variable behind."""
    known = known_names()
    texts = [(str(query), query.expression) for query in panel_queries()]
    texts += [(str(rule.get("alert") or rule["record"]), rule["expr"]) for rule in rules()]
    texts += [(title, metric) for title, metric, _ in variable_queries()]

    unknown = {place: missing for place, text in texts if (missing := names_in(text) - known)}

    assert len(texts) > 60
    assert unknown == {}


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_every_panel_explains_itself(path: Path) -> None:
    """An outsider reads what a panel shows and what is normal; every panel asks the datasource that was chosen."""
    content = board(path)
    panels = [panel for panel in content["panels"] if panel["type"] != "row"]

    assert len({panel["id"] for panel in content["panels"]}) == len(content["panels"])
    assert len({panel["title"] for panel in panels}) == len(panels)
    for panel in panels:
        assert len(panel["description"]) > 40, panel["title"]
        assert panel["targets"], panel["title"]
        assert {str(t["datasource"]["uid"]) for t in [panel, *panel["targets"]]} == {"${datasource}"}, panel["title"]


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_panels_do_not_overlap(path: Path) -> None:
    """Each panel has its own place on the 24 columns."""
    taken: dict[tuple[int, int], str] = {}
    for panel in board(path)["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies on {taken.get((x, y))}"
                taken[x, y] = panel["title"]


@pytest.mark.parametrize("path", BOARDS, ids=lambda path: path.stem)
def test_every_variable_of_a_query_is_defined(path: Path) -> None:
    """No query refers to a variable that its dashboard does not have."""
    content = board(path)
    defined = {variable["name"] for variable in content["templating"]["list"]} | {"__rate_interval"}
    texts = [t["expr"] for panel in content["panels"] for t in panel.get("targets", [])]
    texts += [panel["title"] for panel in content["panels"]]

    used = set(re.findall(r"\$\{?(\w+)", " ".join(texts)))

    assert used - defined == set()


def test_prometheus_accepts_the_rules() -> None:
    """`promtool check rules` finds nothing wrong."""
    said = promtool("check", "rules", "--lint=all", "--lint-fatal", str(RULES))

    assert said.returncode == 0, said.stdout + said.stderr


def test_every_alert_fires_when_it_should() -> None:
    """On time series made up for it each alert fires, with its words filled in, and not before."""
    said = promtool("test", "rules", str(RULE_TESTS))
    tested = {
        case["alertname"]
        for test in yaml.safe_load(RULE_TESTS.read_text(encoding="utf-8"))["tests"]
        for case in test.get("alert_rule_test", [])
        if case.get("exp_alerts")
    }

    assert said.returncode == 0, said.stdout + said.stderr
    assert tested == {rule["alert"] for rule in ALERTS}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda rule: str(rule["alert"]))
def test_every_alert_says_what_is_wrong_and_where_to_read_on(alert: dict[str, Any]) -> None:
    """Summary, description, severity, and a section of the runbook of its own."""
    headings = re.findall(r"^## (\w+)$", RUNBOOK.read_text(encoding="utf-8"), re.M)

    assert alert["labels"]["severity"] in {"warning", "critical"}
    assert alert["annotations"]["summary"]
    assert alert["annotations"]["description"]
    assert alert["annotations"]["runbook_url"] == f"docs/runbook.md#{alert['alert'].lower()}"
    assert alert["alert"] in headings


def promtool(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(find_prometheus().promtool), *arguments], capture_output=True, text=True, check=False, timeout=60
    )
