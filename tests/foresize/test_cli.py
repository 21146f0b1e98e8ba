"""The front door: quick, complete, and never a stack trace for a user's mistake."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from foresize.cli import main_group

FORESIZE = Path(sys.executable).parent / "foresize"
COMMANDS = (
    "demo",
    "train",
    "backtest",
    "forecast",
    "simulate",
    "oversubscribe",
    "run",
    "webhook",
    "serve",
    "explain",
    "doctor",
)


def foresize(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("FORESIZE_")}
    return subprocess.run(
        [str(FORESIZE), *arguments],
        cwd=folder,
        env=variables | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_commands_are_those_that_were_promised() -> None:
    """One script, eleven commands."""
    assert tuple(main_group.commands) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_examples(command: str) -> None:
    """`--help` says what it does and shows how it is called."""
    result = CliRunner().invoke(main_group, [command, "--help"])

    assert result.exit_code == 0
    assert f"foresize {command}" in result.output
    assert "Examples:" in result.output


def test_help_loads_nothing_heavy() -> None:
    """The help must be quick, so it imports neither NumPy nor anything that does."""
    heavy = "{'numpy', 'pandas', 'pydantic', 'mlflow', 'kubernetes'}"
    code = f"import sys, foresize.cli; print(sorted({heavy} & set(sys.modules)))"

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "[]"


def test_a_wrong_key_in_the_file_ends_with_code_2(tmp_path: Path) -> None:
    """The mistake, its line and the nearest key; no stack trace."""
    (tmp_path / "foresize.yaml").write_text("prometheus:\n  tiemout: 3s\n")

    result = foresize(tmp_path, "simulate", "--fit")

    assert result.returncode == 2
    assert "foresize.yaml:2: prometheus.tiemout: unknown key; did you mean 'timeout'?" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_token_file_that_is_not_there_ends_with_code_2(tmp_path: Path) -> None:
    """What the services are protected with is configuration."""
    settings = {"FORESIZE_SERVING__TOKEN_FILE": "absent"}

    result = foresize(tmp_path, "serve", "--port", "0", "--history", "none.csv", **settings)

    assert result.returncode == 2
    assert "serving.token_file: absent: No such file" in result.stderr


def test_a_prometheus_that_is_not_there_ends_with_code_1(tmp_path: Path) -> None:
    """The address and what happened; no stack trace."""
    settings = {"FORESIZE_PROMETHEUS__RETRIES": "0"}

    result = foresize(tmp_path, "simulate", "--fit", "--prometheus", "http://127.0.0.1:9", **settings)

    assert result.returncode == 1
    assert "127.0.0.1:9" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_unknown_command_is_refused() -> None:
    """A typing error on the command line ends with code 2."""
    assert CliRunner().invoke(main_group, ["trian"]).exit_code == 2
