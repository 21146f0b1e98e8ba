"""What the client makes of a Prometheus that is away, slow, wrong, or says only half of it."""

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from predictor.errors import MalformedAnswer, SourceRefused, SourceUnavailable
from predictor.sources.http import PrometheusClient, PrometheusEndpoint
from predictor.sources.matrix import Matrix
from tests.support.http_answers import (
    Answer,
    Asked,
    a_matrix,
    an_error,
    answering,
    evaluated,
    seconds_since,
    unused_url,
)
from tests.support.missing import without

START = 1_700_000_000


def ask(endpoint: PrometheusEndpoint, points: int = 3, **more: float) -> Matrix:
    """One range query of so many points."""
    client = PrometheusClient(endpoint)
    try:
        return client.range("sum(up)", start_seconds=START, points=points, step_seconds=60, **more)
    finally:
        client.close()


def test_an_unreachable_prometheus_is_unavailable_and_named() -> None:
    """Nobody listens: the message names the address and what to check."""
    url = unused_url()

    with pytest.raises(SourceUnavailable, match=f"{url} cannot be reached.*check the URL"):
        ask(PrometheusEndpoint(url=url, retries=0))


def test_a_slow_prometheus_is_unavailable_after_the_timeout() -> None:
    """A timeout names the address and the seconds, and is not tried again: that would only add to the load."""
    with answering(Answer(delay_seconds=5)) as server:
        start = time.monotonic()
        with pytest.raises(SourceUnavailable, match=f"{server.url} did not answer within 0.2 s"):
            ask(PrometheusEndpoint(url=server.url, timeout_seconds=0.2))

        assert seconds_since(start) < 1.5
        assert len(server.asked) == 1


def test_a_trickling_answer_does_not_outlive_the_timeout() -> None:
    """Each byte comes in time, the whole answer does not: the timeout is for the whole."""
    with answering(Answer(body=b" " * 500, trickle_seconds=0.05)) as server:
        start = time.monotonic()
        with pytest.raises(SourceUnavailable, match=r"did not answer within 0\.3 s"):
            ask(PrometheusEndpoint(url=server.url, timeout_seconds=0.3))

        assert seconds_since(start) < 2


def test_a_deadline_cuts_the_timeout_short() -> None:
    """However long one answer may take, a fetch ends with its deadline."""
    with answering(Answer(delay_seconds=5)) as server:
        start = time.monotonic()
        with pytest.raises(SourceUnavailable):
            ask(PrometheusEndpoint(url=server.url, timeout_seconds=30), deadline=time.monotonic() + 0.2)

        assert seconds_since(start) < 1.5


@pytest.mark.parametrize("status", [400, 422])
def test_a_refused_query_carries_prometheus_own_words_and_the_query(status: int) -> None:
    """The user sees why, and what to paste into Prometheus to see it again; asking again would not help."""
    with answering(an_error(status, "execution", "many-to-many matching not allowed")) as server:
        with pytest.raises(SourceRefused, match=rf"\({status}: many-to-many matching not allowed\).*Query: sum\(up\)"):
            ask(PrometheusEndpoint(url=server.url))

        assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("status", "hint"),
    [(401, "check the token"), (403, "tenant header"), (404, "path prefix"), (302, "set the final URL")],
)
def test_a_wrong_door_says_which_setting_to_mend(status: int, hint: str) -> None:
    """Credentials, prefix and redirects are the user's to mend: the message says which."""
    with answering(Answer(status, headers={"location": "/login"})) as server, pytest.raises(SourceRefused, match=hint):
        ask(PrometheusEndpoint(url=server.url))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(body=b"<html><body>Please log in</body></html>"), "answered with HTML"),
        (Answer(body=b'{"status":"success","data":{"resu'), "not complete JSON"),
        (Answer(body=b'{"status":"success"', missing_bytes=100), "broke off in the middle"),
        (Answer(body=b'{"status":"error","error":"out of luck"}'), "did not say 'success': out of luck"),
        (Answer(body=b"[]"), "did not say 'success'"),
        (Answer(body=b'{"status":"success","data":{"resultType":"vector","result":[]}}'), "unknown shape"),
        (Answer(body=b'{"status":"success","data":{}}'), "unknown shape"),
        (a_matrix({"metric": {}, "values": [[START + 999_999, "1"]]}), "outside the time that was asked for"),
        (a_matrix({"metric": {}, "values": [[START, "many"]]}), "unknown shape"),
    ],
)
def test_an_answer_that_is_no_answer_is_malformed(answer: Answer, words: str) -> None:
    """HTML, truncated JSON, a body that breaks off, another shape: never taken for data."""
    with answering(answer) as server, pytest.raises(MalformedAnswer, match=words):
        ask(PrometheusEndpoint(url=server.url))


@pytest.mark.parametrize(
    "answer",
    [
        a_matrix(warnings=["receive series from Addr: thanos-store-1: rpc error: code = Unavailable"]),
        a_matrix(warnings=["No StoreAPIs matched for this query"]),
        a_matrix(warnings=["remote_read: error sending request"]),
        a_matrix(isPartial=True),
    ],
)
def test_a_partial_answer_is_an_error(answer: Answer) -> None:
    """Thanos, VictoriaMetrics and remote read say when a part is missing: then there is no answer."""
    with answering(answer) as server, pytest.raises(MalformedAnswer, match="only a part of the data"):
        ask(PrometheusEndpoint(url=server.url))


def test_warnings_and_infos_come_with_the_answer() -> None:
    """What Prometheus remarks on a query is kept beside the values."""
    answer = a_matrix(
        {"metric": {}, "values": [[START, "1"]]}, warnings=["PromQL warning: odd"], infos=["PromQL info: might"]
    )
    with answering(answer) as server:
        matrix = ask(PrometheusEndpoint(url=server.url))

    assert matrix.warnings == ("PromQL warning: odd",)
    assert matrix.infos == ("PromQL info: might",)


def failing_first(failures: int, failure: Answer) -> Callable[[Asked, int], Answer]:
    """Fails so often, then answers."""
    return lambda asked, number: failure if number < failures else a_matrix(evaluated(asked))


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_passing_failure_is_tried_again(status: int) -> None:
    """Two failures that pass by themselves cost time, not the fetch."""
    with answering(failing_first(2, Answer(status, b"busy", headers={"retry-after": "0"}))) as server:
        matrix = ask(PrometheusEndpoint(url=server.url, retries=3))

        assert len(server.asked) == 3
    np.testing.assert_array_equal(matrix.values, [[START, START + 60, START + 120]])


def test_a_failure_that_stays_is_unavailable_with_its_words() -> None:
    """After the last attempt the server's own words are shown."""
    with answering(an_error(503, "timeout", "query timed out in expression evaluation")) as server:
        with pytest.raises(SourceUnavailable, match="503: query timed out in expression evaluation"):
            ask(PrometheusEndpoint(url=server.url, retries=1))

        assert len(server.asked) == 2


def test_more_points_than_prometheus_gives_are_asked_for_in_parts() -> None:
    """25,000 points come as three requests of at most 11,000 each, joined without seam."""
    with answering(lambda asked, _: a_matrix(evaluated(asked))) as server:
        matrix = ask(PrometheusEndpoint(url=server.url), points=25_000)

        counts = [(int(a.form["end"]) - int(a.form["start"])) // 60 + 1 for a in server.asked]
    assert len(counts) == 3
    assert max(counts) <= 11_000
    np.testing.assert_array_equal(matrix.values[0], START + 60 * np.arange(25_000))


def test_a_query_that_loads_too_much_is_halved_until_it_fits() -> None:
    """The server's cap on samples is met by asking for less time at once, not by giving up."""

    def at_most_two_points(asked: Asked, _: int) -> Answer:
        if int(asked.form["end"]) - int(asked.form["start"]) > 60:
            return an_error(422, "execution", "query processing would load too many samples into memory")
        return a_matrix(evaluated(asked))

    with answering(at_most_two_points) as server:
        matrix = ask(PrometheusEndpoint(url=server.url), points=7)

    np.testing.assert_array_equal(matrix.values[0], START + 60 * np.arange(7))


def test_the_query_travels_in_the_body_with_credentials_and_tenant_in_the_headers() -> None:
    """Long queries do not fit a URL, and secrets do not belong into one."""
    with answering(lambda asked, _: a_matrix(evaluated(asked))) as server:
        ask(PrometheusEndpoint(url=f"{server.url}/prom", bearer_token="t0ken", headers={"X-Scope-OrgID": "shop"}))
        ask(PrometheusEndpoint(url=server.url.replace("://", "://me:pass@")))

    assert server.asked[0].path == "/prom/api/v1/query_range"
    assert server.asked[0].form["query"] == "sum(up)"
    assert server.asked[0].headers["authorization"] == "Bearer t0ken"
    assert server.asked[0].headers["x-scope-orgid"] == "shop"
    assert server.asked[1].headers["authorization"] == "Basic bWU6cGFzcw=="


@pytest.mark.parametrize("status", [401, 422, 503])
def test_no_secret_reaches_a_message(status: int) -> None:
    """Not in the repr, not in an error, not even when the server repeats it back."""
    secret = "hunter2-very-secret"
    echo = an_error(status, "bad", f"no entry for Bearer {secret}")
    with answering(echo) as server:
        endpoints = [
            PrometheusEndpoint(url=server.url, bearer_token=secret, retries=0),
            PrometheusEndpoint(url=server.url, basic_auth=("me", secret), retries=0),
            PrometheusEndpoint(url=server.url.replace("://", f"://me:{secret}@"), retries=0),
            PrometheusEndpoint(url=server.url, headers={"X-Api-Key": secret}, retries=0),
        ]
        for endpoint in endpoints:
            with pytest.raises((SourceRefused, SourceUnavailable)) as caught:
                ask(endpoint)

            assert secret not in str(caught.value)
            assert secret not in repr(endpoint)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for this machine that only itself vouches for, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    if shutil.which("openssl") is None:
        without("the openssl program, which makes the certificate, is not installed")
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
            "-addext", "basicConstraints=critical,CA:TRUE", "-keyout", str(key), "-out", str(cert),
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return cert, key


def test_a_private_authority_is_trusted_when_it_is_named(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    """Unknown authorities are refused; the CA file, or switching the check off, lets them in; a bad file is named."""
    with answering(lambda asked, _: a_matrix(evaluated(asked)), certificate=certificate) as server:
        with pytest.raises(SourceUnavailable, match="check the URL, the network and TLS"):
            ask(PrometheusEndpoint(url=server.url, retries=0))
        trusting = ask(PrometheusEndpoint(url=server.url, ca_file=certificate[0]))
        careless = ask(PrometheusEndpoint(url=server.url, verify=False))
        (tmp_path / "ca.pem").write_text("no certificate")
        with pytest.raises(SourceRefused, match=r"ca\.pem cannot be read as PEM"):
            ask(PrometheusEndpoint(url=server.url, ca_file=tmp_path / "ca.pem"))

    np.testing.assert_array_equal(trusting.values, careless.values)


@pytest.mark.parametrize("url", ["prometheus:9090", "ftp://host", "http://", "http://host:port"])
def test_a_url_that_is_none_is_refused_at_once(url: str) -> None:
    """Before anything is sent."""
    with pytest.raises(SourceRefused, match="must look like"):
        PrometheusEndpoint(url=url)


def test_tenants_and_users_do_not_share_a_cache() -> None:
    """Two tenants of one address have two fingerprints; the same tenant has one, whatever its password."""
    url = "http://mimir:8080"
    fingerprints = {
        PrometheusEndpoint(url=url, headers={"X-Scope-OrgID": "a"}).fingerprint,
        PrometheusEndpoint(url=url, headers={"X-Scope-OrgID": "b"}).fingerprint,
        PrometheusEndpoint(url=url, basic_auth=("me", "old")).fingerprint,
        PrometheusEndpoint(url=url, basic_auth=("me", "new")).fingerprint,
    }

    assert len(fingerprints) == 3


@pytest.mark.parametrize("text", ["s3cret\nmore", "s3cret\x00", "s3crét"])
def test_a_header_that_cannot_be_sent_is_refused_without_its_value(text: str) -> None:
    """However the endpoint was made: the HTTP client's own error would hold the whole header."""
    for endpoint in ({"bearer_token": text}, {"headers": {"X-Key": text}}):
        with pytest.raises(SourceRefused, match=r"a header for Prometheus cannot be sent: the value of") as caught:
            PrometheusEndpoint(url="http://prom:9090", **endpoint)

        assert "s3cr" not in str(caught.value)


def test_an_error_about_our_own_request_tells_nothing_of_it() -> None:
    """Neither its message nor what it came from, as a log shows both."""
    endpoint = PrometheusEndpoint(url=unused_url(), headers={"X-Key": "s3cret"})
    object.__setattr__(endpoint, "headers", {"X-Key": "s3cret\nmore"})

    with answering(a_matrix()) as server:
        object.__setattr__(endpoint, "url", server.url)
        with pytest.raises(SourceRefused, match="breaks the rules of HTTP") as caught:
            ask(endpoint)

    assert caught.value.__suppress_context__
    assert "s3cret" not in str(caught.value)


def test_a_large_answer_is_read_piece_by_piece_and_whole() -> None:
    """Thirty thousand series, one of which has a label that looks like the beginning of another."""
    odd = '{"metric":{}},'
    series: list[dict[str, object]] = [
        {
            "metric": {"job": odd if number == 20_000 else f"x{number}"},
            "values": [[START + 60 * p, f"{number}.{p}"] for p in range(9)],
        }
        for number in range(30_000)
    ]
    with answering(a_matrix(*series, warnings=["half full"])) as server:
        read = ask(PrometheusEndpoint(url=server.url), points=9)

    assert read.labels == tuple((("job", odd if number == 20_000 else f"x{number}"),) for number in range(30_000))
    np.testing.assert_array_equal(read.values, [[float(f"{n}.{p}") for p in range(9)] for n in range(30_000)])
    assert read.warnings == ("half full",)


def test_a_large_answer_that_breaks_off_is_not_believed() -> None:
    """In the middle of a series, after pieces that were fine."""
    series: list[dict[str, object]] = [
        {"metric": {"job": f"x{number}"}, "values": [[START, "1"]] * 3} for number in range(90_000)
    ]
    whole = a_matrix(*series).body
    with answering(Answer(body=whole[:-100])) as server, pytest.raises(MalformedAnswer, match="not complete JSON"):
        ask(PrometheusEndpoint(url=server.url))
