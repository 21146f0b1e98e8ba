"""A query that somebody else wrote reads the data of one namespace and no other."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import promql_parser
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.demo.local_prometheus import LocalPrometheus
from predictor.errors import QueryRefused
from predictor.sources.held import DEEPEST_QUERY, LONGEST_QUERY, held_to_namespace
from tests.support.prometheus import STEP, a_prometheus, a_series

START = (int(time.time()) // 86_400 - 1) * 86_400
NOW = START + 10 * STEP
OWN, SECRET = 7.0, 4242.0

HARMLESS = (
    "jobs",
    "sum(rate(jobs[10m])) by (pod)",
    "sum by (pod) (avg_over_time(jobs[10m:5m] offset 5m))",
    'max({__name__=~"jobs|pods"}) or vector(0)',
    'max_over_time(jobs{pod!="x"}[1h] @ end())',
    'jobs * on (pod) group_left (node) pods{pod=~"a|b"}',
    "topk(scalar(count(pods)), jobs)",
    "-jobs ^ 2 % 5 - (3 - jobs) # a comment\n + time() - time()",
    'label_replace(jobs, "namespace", "of-another-name", "", "")',
    'histogram_quantile(0.9, sum by (le) (rate(jobs_bucket{namespace="shop"}[10m])))',
    "1e2 + 0x1F",
)
NASTY = (
    "secret",
    '{__name__="secret"}',
    '{__name__=~".+"}',
    '{"secret"}',
    '{"secret", "namespace"=~".*"}',
    'secret{namespace=~"bank|shop"}',
    'secret{namespace!~"shop"}',
    'secret{namespace!=""}',
    "sum(secret) or jobs",
    "jobs + on () group_left () secret",
    "bottomk(2, jobs) + scalar(secret)",
    "quantile(scalar(secret), jobs)",
    'jobs or label_replace(secret, "namespace", "shop", "", "")',
    'label_join(secret, "namespace", "", "pod")',
    "max_over_time(secret[1h])",
    "max_over_time((secret + 0)[1h:5m])",
    "max_over_time(secret[1h:5m] @ end() offset 5m)",
    "secret offset 5m",
    f"secret @ {NOW}",
    'count_values("namespace", secret)',
    "-secret",
    "((secret))",
    "absent(jobs) or secret",
    "jobs and on () secret unless on () pods{x='}'} or secret",
    """{"jobs\\"} or secret{pod!=\\"", namespace=~".*"} or secret""",
    """jobs{pod="\\\\"} or secret or jobs{pod="\\\\"}""",
    "jobs{pod=`x`} or secret",
    "jobs # } \n or secret",
    "sum without (namespace) (secret)",
    "sort_desc(secret)",
    "predict_linear(secret[1h], 60)",
    "secret{}",
    "jobs{namespace='shop'} or secret{namespace=~'ban[k]'}",
)
REFUSED = (
    ('secret{namespace="bank"}', 'reads what is not namespace="shop"'),
    ('jobs + secret{"namespace"="bank"}', 'reads what is not namespace="shop"'),
    ('jobs{namespace!="shop"}', 'reads what is not namespace="shop"'),
    ('jobs{pod="a" or namespace="bank"}', "joined by `or`"),
    ("info(jobs)", "info() reads series"),
    ('rate(info(jobs, {x="y"})[5m:1m])', "info() reads series"),
    ("default_rollup(jobs)", "not PromQL as foresize knows it: unknown function"),
    ("jobs keep_metric_names", "not PromQL as foresize knows it"),
    ("sum(jobs", "not PromQL as foresize knows it"),
    ("", "not PromQL as foresize knows it"),
    ("jobs + " * LONGEST_QUERY + "jobs", "characters; at most"),
    ("(" * (LONGEST_QUERY // 3) + "jobs" + ")" * (LONGEST_QUERY // 3), "nested deeper than"),
    ("-" * (DEEPEST_QUERY + 1) + "jobs", "nested deeper than"),
)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPrometheus]:
    """Two namespaces: one of ours and one with a secret."""
    series = [
        a_series("jobs", [OWN] * 20, namespace="shop", pod="a"),
        a_series("pods", [1.0] * 20, namespace="shop", pod="a", node="n"),
        a_series("jobs", [SECRET] * 20, namespace="bank", pod="a"),
        a_series("secret", [SECRET] * 20, namespace="bank", pod="a"),
        a_series("secret", [SECRET] * 20, pod="of-no-namespace"),
    ]
    folder: Path = tmp_path_factory.mktemp("held")
    with a_prometheus(folder, series, start_seconds=START) as running:
        yield running


def asked(prometheus: LocalPrometheus, path: str, **form: str) -> Any:
    answer = httpx2.post(f"{prometheus.url}/api/v1/{path}", data=form, trust_env=False)
    body = answer.json()
    assert body["status"] == "success", (form, body)
    return body["data"]


@pytest.mark.real
@pytest.mark.parametrize("query", NASTY + HARMLESS)
def test_no_query_sees_a_value_of_another_namespace(prometheus: LocalPrometheus, query: str) -> None:
    """However the secret is named, wrapped or relabelled: held to its namespace a query does not read it."""
    held = held_to_namespace(query, "shop", "namespace")

    answer = str(asked(prometheus, "query", query=held, time=str(NOW)))

    assert "bank" not in answer
    assert str(int(SECRET)) not in answer


@pytest.mark.real
@pytest.mark.parametrize("query", HARMLESS)
def test_an_honest_query_means_what_it_meant(prometheus: LocalPrometheus, tmp_path: Path, query: str) -> None:
    """Where there is only the one namespace, a held query answers as the query as it was given."""
    series = [
        a_series("jobs", [OWN] * 20, namespace="shop", pod="a"),
        a_series("pods", [1.0] * 20, namespace="shop", pod="a", node="n"),
    ]
    with a_prometheus(tmp_path, series, start_seconds=START) as alone:
        given = asked(alone, "query", query=query, time=str(NOW))
        held = asked(alone, "query", query=held_to_namespace(query, "shop", "namespace"), time=str(NOW))

    assert held == given


@pytest.mark.parametrize(("query", "why"), REFUSED)
def test_what_cannot_be_held_is_refused_with_its_reason(query: str, why: str) -> None:
    """Another namespace by name, syntax that is not known, and what would take long to parse."""
    with pytest.raises(QueryRefused) as refused:
        held_to_namespace(query, "shop", "namespace")

    assert why in str(refused.value)


def test_no_namespace_is_no_bound() -> None:
    """An empty value would match every series that has no such label."""
    with pytest.raises(QueryRefused):
        held_to_namespace("jobs", "", "namespace")


def test_a_store_of_many_clusters_is_held_to_its_own() -> None:
    """The matchers that every series must meet are added too, and the label's name is what it is told to be."""
    held = held_to_namespace("sum(jobs)", "shop", "kubernetes_namespace", {"cluster": 'eu"1'})

    assert held == 'sum(jobs{cluster="eu\\"1",kubernetes_namespace="shop"})'


text = st.text(max_size=6)
names = st.sampled_from(["jobs", "secret", "by", "sum", "namespace", "a:b"])
texts = st.one_of(names, text, st.sampled_from(['"', "\\", "'", "`", '"}', "\n", 'x"} or secret{y="', "#", "\\x22"]))


def literal(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


matchers = st.builds(
    lambda name, op, value: literal(name) + op + literal(value),
    st.one_of(names, texts.filter(bool)),
    st.sampled_from(["=", "!=", "=~", "!~"]),
    texts,
)
selectors = st.one_of(
    names,
    st.builds(lambda name, inside: f"{name}{{{','.join(inside)}}}", names, st.lists(matchers, max_size=3)),
    st.builds(
        lambda name, inside: "{" + ",".join([literal(name), *inside]) + "}",
        texts.filter(bool),
        st.lists(matchers, max_size=2),
    ),
)
queries = st.recursive(
    selectors,
    lambda inner: st.one_of(
        st.builds(
            lambda one, op, two: f"{one} {op} {two}", inner, st.sampled_from(["+", "^", "or", "and on (a)"]), inner
        ),
        st.builds("({})".format, inner),
        st.builds("-{}".format, inner),
        st.builds("sum by (pod) ({})".format, inner),
        st.builds("topk(scalar({}), {})".format, inner, inner),
        st.builds("max_over_time(({})[1h:5m] offset 3m)".format, inner),
        st.builds("rate({}[5m])".format, selectors),
        st.builds(lambda one, value: f'label_replace({one}, "a", {literal(value)}, "b", "c")', inner, texts),
    ),
    max_leaves=6,
)


@given(queries)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@pytest.mark.real
def test_held_to_an_empty_namespace_a_query_finds_nothing(prometheus: LocalPrometheus, query: str) -> None:
    """Whatever characters its names and values hold: no selector of it reaches what is in other namespaces."""
    try:
        held = held_to_namespace(query, "empty", "namespace")
    except QueryRefused:
        return
    form = {"query": held, "time": str(NOW)}
    answer = httpx2.post(f"{prometheus.url}/api/v1/query", data=form, trust_env=False).json()

    # What Prometheus refuses reads nothing either.
    assert answer["status"] == "error" or answer["data"]["result"] == [], held


@given(queries)
@settings(deadline=None)
def test_a_held_query_stays_as_it_is_when_held_again(query: str) -> None:
    """It parses, has as many selectors as before, and holding it once more adds nothing new."""
    try:
        held = held_to_namespace(query, "shop", "namespace")
    except QueryRefused:
        return
    count = promql_parser.parse(query).prettify().count("secret")
    assert promql_parser.parse(held).prettify() == held
    assert held.count("secret") == count


@given(st.text(alphabet="jobs{}()[]\"\\'`=~!,+-^@:#5mhye.\n \x00é", max_size=40), st.text(min_size=1, max_size=20))
def test_any_text_is_held_or_refused(query: str, namespace: str) -> None:
    """No text ends in anything but a held query or a refusal, whatever the namespace is called."""
    try:
        held = held_to_namespace(query, namespace, "namespace")
    except QueryRefused:
        return
    assert promql_parser.parse(held) is not None
