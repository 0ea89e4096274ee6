"""A competition taken from raw files to a submission with tiny networks that nobody trained.

What goes into a package does not depend on how good they are.
"""

import os
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch

from pipeline.core.artifacts.paths import FINETUNED, PRETRAINED
from pipeline.core.artifacts.tables import fold_numbers, read_folds
from pipeline.core.config.competition import load_competition
from pipeline.core.config.run import as_json
from pipeline.core.networks.image import build as build_network
from pipeline.core.networks.image import save_weights
from pipeline.core.runs.facts import facts_of
from pipeline.core.runs.job import Job

FOLDS = {"melanoma": "2", "isic2024": "3"}  # chexpert has the official one
RUNS = {
    "melanoma": ("b3_256", "b5_384"),
    "chexpert": ("densenet121_320", "densenet169_320"),
    "isic2024": ("b0_128", "b3_160"),
}
FINDINGS = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
ROOT = Path(__file__).parents[2]


def write_image(path: Path, rng: np.random.Generator, gray: bool = False) -> None:
    """A smooth random image as JPEG, wider than high."""
    height = int(rng.integers(90, 130))
    width = int(rng.integers(131, 170))
    coarse = rng.integers(0, 255, (6, 8) if gray else (6, 8, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))


def melanoma(raw: Path, train: int = 40, test: int = 12, seed: int = 0) -> None:
    """SIIM-ISIC's layout."""
    rng = np.random.default_rng(seed)
    names = [f"ISIC_{number:07d}" for number in range(train + test)]
    table = pd.DataFrame(
        {
            "image_name": names,
            "patient_id": [f"IP_{number // 2:07d}" for number in range(train + test)],
            "sex": rng.choice(["male", "female", None], train + test),
            "age_approx": rng.integers(4, 18, train + test) * 5.0,
            "anatom_site_general_challenge": rng.choice(["torso", "head/neck", None], train + test),
        }
    )
    for number, name in enumerate(names):
        split = "train" if number < train else "test"
        write_image(raw / "jpeg" / split / f"{name}.jpg", rng)
    target = [int(number % 4 == 0) for number in range(train)]
    labels = {"diagnosis": "unknown", "benign_malignant": "benign", "target": target}
    table[:train].assign(**labels).to_csv(raw / "train.csv", index=False)
    table[train:].to_csv(raw / "test.csv", index=False)
    pd.DataFrame({"image_name": names[train:][::-1], "target": 0}).to_csv(
        raw / "sample_submission.csv", index=False
    )


def chexpert(
    raw: Path, train: int = 40, valid: int = 12, test: int = 9, seed: int = 0, views: int = 1
) -> None:
    """CheXpert's layout; the test list has frontals, a study with two views, and one with a lateral
    only. Labelled studies have 1 to `views` views, a label each."""
    rng = np.random.default_rng(seed)
    base = raw / "CheXpert-v1.0"
    for split, count in (("train", train), ("valid", valid)):
        patients = range(10 * count, 11 * count)
        number = [one % views + 1 for one in range(count)]
        paths = [
            f"CheXpert-v1.0/{split}/patient{one:05d}/study1/view{view + 1}_frontal.jpg"
            for one, most in zip(patients, number)
            for view in range(most)
        ]
        for path in paths:
            write_image(raw / path, rng, gray=True)
        facts = {
            "Sex": rng.choice(["Male", "Female"], count),
            "Age": rng.integers(18, 90, count),
            "Frontal/Lateral": "Frontal",
            "AP/PA": rng.choice(["AP", "PA"], count),
        }
        labels = {name: rng.choice([0.0, 1.0], count) for name in FINDINGS}
        each = pd.DataFrame({**facts, **labels}).loc[np.repeat(range(count), number)]
        each.insert(0, "Path", paths)
        each.to_csv(base / f"{split}.csv", index=False)
    paths = []
    for number in range(test):
        views = ["view1_frontal"]
        if number == 1:
            views = ["view1_lateral"]
        elif number % 3 == 0:
            views = ["view1_frontal", "view2_lateral"]
        study = f"CheXpert-v1.0/test/patient{64741 + number}/study1"
        paths += [f"{study}/{view}.jpg" for view in views]
    for path in paths:
        write_image(raw / path, rng, gray=True)
    pd.DataFrame({"Path": paths}).to_csv(base / "test_image_paths.csv", index=False)


def variables(folder: Path, **more: str) -> dict[str, str]:
    """The environment of a house under that folder."""
    roots = {name: str(folder / name.lower()) for name in ("DATA", "MODELS", "SUBMISSIONS")}
    return {**os.environ, **roots, "SMOKE": "1", "OMP_NUM_THREADS": "1", "WORKERS": "0", **more}


def stage(folder: Path, *arguments: str, status: int = 0, **more: str) -> str:
    """Run a stage in the house and return all that it printed."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env=variables(folder, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout
    return done.stdout


def write_untrained(name: str, runs: tuple[str, ...]) -> None:
    """Weights of both stages for every fold of these runs, as they are drawn; in this process's
    house."""
    competition = load_competition(name)
    for run in map(competition.run, runs):
        for fold in fold_numbers(read_folds(name)):
            job = Job(competition, run, fold)
            for file in (PRETRAINED, FINETUNED):
                torch.manual_seed(zlib.crc32(f"{run.name} {fold} {file}".encode()))
                network = build_network(run, len(job.labels))
                torch.nn.init.normal_(network.classifier.weight, std=0.5)
                header = {**facts_of(job, file), "run": as_json(run)}
                save_weights(job.folder / file, network, header)


SECOND_LEVEL = """
import sys

from pipeline.core.ensemble.second_level import combination

combination.last_earned = lambda *_: "second level"
from pipeline import ensemble

ensemble.main(ensemble.parser().parse_args(sys.argv[1:]))
"""


def submit_second_level(folder: Path, name: str) -> None:
    """The ensemble and the submission anew as if the second level had earned its place, which it
    does not with networks that nobody trained."""
    script = folder / "second_level.py"
    script.write_text(SECOND_LEVEL)
    subprocess.run(
        [sys.executable, str(script), *(f"{name}/{run}" for run in RUNS[name])],
        cwd=ROOT,
        check=True,
        env=variables(folder, PYTHONPATH=str(ROOT)),
    )
    stage(folder, "pipeline.submit", name)


def build(folder: Path, name: str) -> None:
    """Raw files, prepared images, folds, untrained networks, predictions, ensemble and
    submission."""
    raw = folder / "data" / name / "raw"
    writers = {"melanoma": melanoma, "chexpert": chexpert}
    if name in writers:
        raw.mkdir(parents=True)
        writers[name](raw)
    else:
        stage(folder, "pipeline.demo", "--competition", name, "--images", "200", "--side", "64")
    stage(folder, "pipeline.prepare", name)
    stage(folder, "pipeline.folds", name, *(["--folds", FOLDS[name]] if name in FOLDS else []))
    code = (
        f"from tests.cases.trained import write_untrained as write; write({name!r}, {RUNS[name]!r})"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, env=variables(folder))
    targets = [f"{name}/{run}" for run in RUNS[name]]
    stage(folder, "pipeline.predict", *targets)
    if name != "chexpert":
        stage(folder, "pipeline.metadata", name)
        targets.append(f"{name}/metadata")
    stage(folder, "pipeline.ensemble", *targets)
    stage(folder, "pipeline.submit", name)
