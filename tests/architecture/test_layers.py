"""The import contracts hold, and would notice if they did not."""

import shutil
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("foresize", "pipelines", "autoscaler", "predictor", "models")


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def copied(to: Path) -> Path:
    shutil.copy(ROOT / "pyproject.toml", to)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, to / package, ignore=shutil.ignore_patterns("__pycache__"))
    return to


def test_the_layers_hold() -> None:
    """Each package imports only downward, each room only what its contract allows."""
    result = lint(ROOT)

    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("file", "line", "contract"),
    [
        ("models/forecast.py", "import predictor.errors", "packages"),
        ("predictor/usage/panel.py", "import predictor.sources", "rooms of predictor"),
        ("autoscaler/decisions/replicas.py", "import time", "pure rooms"),
        ("autoscaler/utils.py", "", "rooms of autoscaler"),
        ("autoscaler/controller/loop.py", "import predictor.registry", "decisions and flows never reach around a port"),
    ],
)
def test_a_planted_violation_is_caught(tmp_path: Path, file: str, line: str, contract: str) -> None:
    """An upward import, a reach around a port, a clock in a pure room or a room nobody decided on fails the check."""
    tree = copied(tmp_path)
    target = tree / file
    target.write_text((target.read_text() if target.exists() else '"""Planted."""\n') + f"\n{line}\n")

    result = lint(tree)

    assert result.returncode != 0
    assert f"{contract} BROKEN" in " ".join(result.stdout.split()) or "BROKEN" in result.stdout
    assert any(contract in row and "BROKEN" in row for row in result.stdout.splitlines()), result.stdout


def test_the_top_level_names_are_ours_alone() -> None:
    """No other installed distribution ships a package called models, predictor, …: it would overwrite ours unseen."""
    owners = packages_distributions()

    assert {name: set(owners[name]) for name in PACKAGES if name in owners} == {
        name: {"foresize"} for name in PACKAGES if name in owners
    }


def test_every_test_folder_is_a_package() -> None:
    """Without __init__.py a test folder called `models` would hide the package of that name."""
    folders = {path.parent for path in (ROOT / "tests").rglob("test_*.py")}

    assert [str(f.relative_to(ROOT)) for f in sorted(folders) if not (f / "__init__.py").exists()] == []
