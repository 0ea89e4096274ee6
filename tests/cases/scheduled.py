"""A competition made through `make ... ON=`, and what of it is compared with one made without."""

import subprocess
import sys
from pathlib import Path

from tests.cases.faults import results
from tests.cases.trained import ROOT, variables

FOLD = "models/melanoma/b3_256/fold0"
MADE = ("data/melanoma/images*", "data/melanoma/folds*", "models/melanoma", "submissions/melanoma")


def make(home: Path, *words: str, **more: str) -> str:
    """What `make` prints in that home; after each step of training a checkpoint is written."""
    done = subprocess.run(
        ["make", f"PYTHON={sys.executable}", "COMP=melanoma", "RUN=b3_256", *words],
        cwd=ROOT,
        env=variables(home, CHECKPOINT_SECONDS="0", **more),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def made(home: Path, patterns: tuple[str, ...] = MADE) -> dict:
    """What is compared: not logs and the page with its sources, which say where and when."""
    apart = (".log", "report.html", "/origins-")
    return {
        name: data
        for name, data in results(home, patterns).items()
        if not any(mark in name for mark in apart)
    }


def times_trained(home: Path) -> dict[str, int]:
    """How often each phase of each fold has come to its end, by the logs of its jobs."""
    logs = sorted(home.glob("models/melanoma/*/*/*.log"))
    return {
        f"{log.parent.name} {log.stem}": log.read_text().count("validation AUC")
        for log in logs
        if log.stem in ("pretrain", "finetune")
    }
