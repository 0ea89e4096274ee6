"""Lists of packages agree with each other, with requirements.txt and with what the code runs on."""

import re

from pipeline.core.runtime.install import OLDEST, requirements
from pipeline.deploy.environments import CODALAB, CODALAB_IMAGE, KAGGLE, WHEELS
from tests.cases.imports import ROOT


def test_codalabs_image_has_the_oldest_torch_that_the_code_runs_on():
    tag = re.search(r":(\d+)\.(\d+)", CODALAB_IMAGE)
    assert (int(tag[1]), int(tag[2])) == OLDEST["torch"]


def test_every_package_is_one_that_setup_installs():
    installed = set(requirements((ROOT / "requirements.txt").read_text()))
    not_ours = {"opencv-python", "pip"}  # OpenCV's other build, and what comes with Python
    assert {*CODALAB, *KAGGLE, *WHEELS.values()} - not_ours <= installed
