"""Lists of packages agree with each other, with requirements.txt and with what the code runs on."""

import re
import tomllib
from importlib.metadata import distribution
from types import SimpleNamespace

import pytest

from pipeline.core.runtime.errors import UserError
from pipeline.core.runtime.install import OLDEST, requirements
from pipeline.deploy import wheels
from pipeline.deploy.environments import CODALAB, CODALAB_IMAGE, KAGGLE, WHEELS
from tests.cases.imports import ROOT


def test_codalabs_image_has_the_oldest_torch_that_the_code_runs_on():
    tag = re.search(r":(\d+)\.(\d+)", CODALAB_IMAGE)
    assert (int(tag[1]), int(tag[2])) == OLDEST["torch"]


def test_every_package_is_one_that_setup_installs():
    installed = set(requirements((ROOT / "requirements.txt").read_text()))
    not_ours = {"opencv-python", "pip"}  # OpenCV's other build, and what comes with Python
    assert {*CODALAB, *KAGGLE, *WHEELS.values()} - not_ours <= installed


def test_the_wheels_that_travel_have_licences_that_let_them():
    licences = wheels.wheel_licences(WHEELS.values())
    assert all("Apache" in licences[name] for name in ("timm", "python-gdcm"))
    assert set(licences) == set(WHEELS.values())


@pytest.mark.parametrize(
    "fields",
    [
        {"License-Expression": "GPL-3.0-only"},
        {"License": "GPL V3.0", "Classifier": ["License :: OSI Approved :: GNU GPLv3"]},
        {"Classifier": ["License :: OSI Approved :: GNU Lesser GPL v3 (LGPLv3)"]},
        {"License": "BSD, and parts GPL"},
        {},
    ],
)
def test_a_wheel_whose_licence_contradicts_the_datasets_is_refused(monkeypatch, fields):
    class Metadata(dict):
        def get_all(self, name, default):
            return self.get(name, default)

    given = SimpleNamespace(metadata=Metadata(fields))
    monkeypatch.setattr(wheels, "distribution", lambda _: given)
    with pytest.raises(UserError, match="the wheel of x is under"):
        wheels.wheel_licences(["x>=1"])


def test_the_project_says_its_licence():
    assert (
        tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"] == "Apache-2.0"
    )


def test_no_required_package_is_under_the_gpl():
    for name in requirements((ROOT / "requirements.txt").read_text()):
        assert "GPL" not in wheels.licence_of(distribution(name)), name
