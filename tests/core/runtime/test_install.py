"""Only what is missing is installed; what is there is a constraint, and too old is an error."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.core.runtime import install

ROOT = Path(__file__).parents[3]


def test_every_line_of_the_projects_requirements_is_a_pin():
    pins = install.requirements((ROOT / "requirements.txt").read_text())
    given = {
        "torch",
        "timm",
        "albumentations",
        "pandas",
        "scikit-learn",
        "iterative-stratification",
        "tqdm",
    }
    assert given <= set(pins)
    assert all(
        line.count("==") == 1 and line.startswith(f"{name}==") for name, line in pins.items()
    )


def run_with(
    monkeypatch, tmp_path, there: dict[str, str], lines: str
) -> tuple[int | str, list[str], str]:
    """Exit status, what pip was asked to install, and its constraints."""
    asked = {}

    def found(name):
        if name not in there:
            raise install.PackageNotFoundError(name)
        return there[name]

    def pip(command):
        asked["missing"] = command[command.index("-c") + 2 :]
        asked["constraints"] = Path(command[command.index("-c") + 1]).read_text()
        return subprocess.CompletedProcess(command, 0)

    (tmp_path / "r.txt").write_text(lines)
    monkeypatch.setattr(install, "version", found)
    monkeypatch.setattr(install.subprocess, "run", pip)
    monkeypatch.setattr(sys, "argv", ["install", str(tmp_path / "r.txt")])
    status = 0
    try:
        install.main()
    except SystemExit as end:
        status = end.code
    return status, asked.get("missing", []), asked.get("constraints", "")


def test_what_is_there_stays_and_constrains(monkeypatch, tmp_path):
    lines = "torch==2.13.0  # training\ntimm==1.0.31\n\n# heading\ntqdm==4.70.1\n"
    status, missing, constraints = run_with(
        monkeypatch, tmp_path, {"torch": "2.6.0+cu124", "tqdm": "4.60"}, lines
    )
    assert (status, missing) == (0, ["timm==1.0.31"])
    assert constraints.split() == ["torch==2.6.0+cu124", "tqdm==4.60"]


def test_another_build_of_opencv_counts(monkeypatch, tmp_path):
    lines = "opencv-python-headless==5.0.0.93\n"
    assert run_with(monkeypatch, tmp_path, {"opencv-python": "4.10"}, lines) == (0, [], "")


def test_too_old_is_an_error_that_names_it(monkeypatch, tmp_path):
    status, missing, _ = run_with(monkeypatch, tmp_path, {"torch": "2.4.1"}, "torch==2.13.0\n")
    assert "torch==2.4.1 is older" in status and missing == []


@pytest.mark.parametrize(
    ("pinned", "old"), [("torch==2.5.1", True), ("torch==2.6.0+cu124", False), ("x==0.1", False)]
)
def test_age(pinned, old):
    assert install.too_old(pinned) is old
