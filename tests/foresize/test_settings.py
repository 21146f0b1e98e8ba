"""Settings are read once; a mistake names itself, its place and what is accepted."""

from datetime import timedelta
from pathlib import Path

import pytest

from foresize.settings import InvalidSettings, load_settings
from predictor.settings import duration_text, parse_duration


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "foresize.yaml"
    file.write_text(text)
    return file


def test_options_win_over_variables_and_variables_over_the_file(tmp_path: Path) -> None:
    """The nearer to the user, the stronger: file, then variable, then option."""
    file = written(tmp_path, "prometheus: {url: 'http://file:1', retries: 1}\nhistory: {step: 1m}\n")
    variables = {"FORESIZE_PROMETHEUS__URL": "http://variable:2", "FORESIZE_HISTORY__STEP": "2m"}

    settings = load_settings(file, variables, {("prometheus", "url"): "http://option:3"})

    assert settings.prometheus.url == "http://option:3"
    assert settings.history.step == timedelta(minutes=2)
    assert settings.prometheus.retries == 1


def test_an_unknown_key_names_its_line_and_the_nearest_key(tmp_path: Path) -> None:
    """A typing error in the file is found before anything runs."""
    file = written(tmp_path, "prometheus:\n  url: http://x\n  tiemout: 5s\n")

    with pytest.raises(
        InvalidSettings, match=r"foresize.yaml:3: prometheus.tiemout: unknown key; did you mean 'timeout'"
    ):
        load_settings(file, {}, {})


def test_an_unknown_variable_is_a_mistake_too() -> None:
    """A misspelt variable would silently do nothing, so it is refused."""
    with pytest.raises(InvalidSettings, match=r"variable FORESIZE_PROMETHEUS__ULR: prometheus.ulr: unknown key"):
        load_settings(None, {"FORESIZE_PROMETHEUS__ULR": "http://x"}, {})


def test_a_variable_with_one_underscore_is_told_of_the_second() -> None:
    """The commonest slip with nested variables."""
    with pytest.raises(InvalidSettings, match=r"did you mean FORESIZE_PROMETHEUS__URL, with two underscores"):
        load_settings(None, {"FORESIZE_PROMETHEUS_URL": "http://x"}, {})


def test_a_list_may_be_written_with_commas() -> None:
    """As options take it, so do variables."""
    variables = {"FORESIZE_FORECAST__LEVELS": "0.5, 0.9", "FORESIZE_SCALING__NAMESPACES": "shop,pay"}

    settings = load_settings(None, variables, {})

    assert settings.forecast.levels == (0.5, 0.9)
    assert settings.scaling.namespaces == ("shop", "pay")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("history: {step: 5}", r"history.step: '5' is not a duration; write for example 30s"),
        ("history: {step: 0s}", r"history.step: must be longer than 0s"),
        ("scaling: {sla_percentile: 100}", r"scaling.sla_percentile: input should be less than 100"),
        (
            "scaling: {break_even: 5h}",
            r"scaling.break_even 5:00:00 exceeds forecast.horizon 4:00:00: nothing is forecast so far ahead",
        ),
        (
            "scaling: {lead_time: 2h, longest_lead_time: 1h}",
            r"scaling: lead_time 2:00:00 exceeds longest_lead_time 1:00:00",
        ),
        ("forecast: {levels: [0.9, 0.5]}", r"forecast.levels: levels must ascend"),
        ("prometheus: {url: 'prom:9090'}", r"prometheus.url: 'prom:9090' is not an address"),
        ("- a\n- b", r"holds a list; needed: keys"),
        ("a: [", r"is not YAML"),
        ("history: {span: 1d}\nhistory: {span: 2d}", r"yaml:2: history: given twice, first at .*yaml:1"),
        ("training: {forecasters: [prophet]}", r"no forecaster prophet; accepted: seasonal_naive"),
    ],
)
def test_a_wrong_value_names_itself(tmp_path: Path, text: str, message: str) -> None:
    """Each wrong value is reported with its key and what would be right."""
    with pytest.raises(InvalidSettings, match=message):
        load_settings(written(tmp_path, text), {}, {})


def test_every_mistake_is_reported_at_once(tmp_path: Path) -> None:
    """Nobody wants to find three mistakes in three runs."""
    file = written(tmp_path, "prometheus: {retries: -1}\nhistory: {step: soon}\nnonsense: 1\n")

    with pytest.raises(InvalidSettings) as caught:
        load_settings(file, {}, {})

    assert all(part in str(caught.value) for part in ("retries", "history.step", "nonsense"))


def test_a_secret_never_shows(tmp_path: Path) -> None:
    """Neither the settings' text nor an error about them tells a token."""
    settings = load_settings(None, {"FORESIZE_PROMETHEUS__BEARER_TOKEN": "hunter2"}, {})

    assert "hunter2" not in repr(settings)
    assert settings.prometheus.bearer_token is not None
    assert settings.prometheus.bearer_token.get_secret_value() == "hunter2"


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("BEARER_TOKEN", "hunter2\nhunter3", "prometheus.bearer_token: holds more than one line"),
        ("BEARER_TOKEN", "hunter2é", "prometheus.bearer_token: holds characters that no header may hold"),
        ("BEARER_TOKEN", " \n", "prometheus.bearer_token: is empty"),
        ("PASSWORD", "hunter2\r", "prometheus.password: holds more than one line"),
        ("USERNAME", "hunter2\x07", "prometheus.username: holds control characters"),
        ("HEADERS", '{X-Key: "hunter2\\nhunter3"}', "prometheus.headers: the value of X-Key holds more than one line"),
        ("HEADERS", "{X Key: hunter2}", "prometheus.headers: 'X Key' is not the name of a header"),
        ("HEADERS", "{X-Key: [hunter2]}", "prometheus.headers.X-Key: input should be a valid string"),
    ],
)
def test_a_secret_that_cannot_be_sent_is_refused_unseen(variable: str, value: str, message: str) -> None:
    """By the name of its setting: the HTTP client would put the whole header into its error."""
    with pytest.raises(InvalidSettings) as caught:
        load_settings(None, {f"FORESIZE_PROMETHEUS__{variable}": value}, {})

    assert message in str(caught.value)
    assert "hunter" not in str(caught.value)


def test_what_cannot_be_read_is_not_shown_where_it_may_hold_a_secret(tmp_path: Path) -> None:
    """A line that is not YAML, a login in an address, a section that is no section."""
    said = []
    for text, variables in (
        ('prometheus:\n  password: "hunter2\n', {}),
        ("", {"FORESIZE_PROMETHEUS__URL": "me:hunter2@prom:9090"}),
        ("", {"FORESIZE_PROMETHEUS": "{bearer_token: hunter2"}),
    ):
        with pytest.raises(InvalidSettings) as caught:
            load_settings(written(tmp_path, text), variables, {})
        said.append(str(caught.value))

    assert "foresize.yaml:2: is not YAML: while scanning a quoted scalar, found unexpected end of stream" in said[0]
    assert "prometheus.url: 'prom:9090' is not an address" in said[1]
    assert "variable FORESIZE_PROMETHEUS: prometheus: input should be a valid dictionary" in said[2]
    assert "hunter2" not in "".join(said)


def test_blanks_around_a_token_do_not_count() -> None:
    """A variable from a Secret often ends with a line break; a password may hold any letters."""
    variables = {"BEARER_TOKEN": "hunter2\n", "HEADERS": "{X-Key: 'abc '}", "PASSWORD": "größe"}

    settings = load_settings(None, {f"FORESIZE_PROMETHEUS__{name}": text for name, text in variables.items()}, {})

    assert settings.prometheus.bearer_token is not None
    assert settings.prometheus.bearer_token.get_secret_value() == "hunter2"
    assert settings.prometheus.headers == {"X-Key": "abc"}


@pytest.mark.parametrize("key", ["selector", "min_replicas", "max_replicas"])
def test_a_key_that_is_gone_says_what_took_its_place(tmp_path: Path, key: str) -> None:
    """No other key is suggested: what is alike means something else."""
    with pytest.raises(InvalidSettings) as caught:
        load_settings(written(tmp_path, f"scaling: {{{key}: 3}}"), {}, {})

    assert f"yaml:1: scaling.{key}: gone: each PredictiveAutoscaler says it now" in str(caught.value)
    assert "see docs/controller.md, Upgrade" in str(caught.value)
    assert "did you mean" not in str(caught.value)


def test_a_missing_file_that_was_asked_for_is_an_error(tmp_path: Path) -> None:
    """A configuration named on purpose is never silently left out."""
    with pytest.raises(InvalidSettings, match="cannot be read"):
        load_settings(tmp_path / "none.yaml", {}, {})


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("5m", 300), ("1h30m", 5400), ("7d", 604_800), ("250ms", 0.25)]
)
def test_durations_read_as_prometheus_writes_them(text: str, seconds: float) -> None:
    """A number with a unit, or several."""
    assert parse_duration(text).total_seconds() == seconds
    assert parse_duration(duration_text(parse_duration(text))).total_seconds() == seconds
